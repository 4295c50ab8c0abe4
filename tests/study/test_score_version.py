"""A study holds values of one score: another one is refused before it trains."""

import optuna
import pytest
from fixtures.recordings import study, train

from wwopt.metrics.objective import SpectralObjective
from wwopt.study.recording import record


def test_a_score_of_another_version_is_refused_before_it_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s = optuna.create_study(study_name="mine")
    train(s.ask(), 1.0)
    monkeypatch.setattr(SpectralObjective, "version", SpectralObjective.version + 1)
    expected = "study 'mine' holds values of another score: version .*; values of the two do not"
    with pytest.raises(ValueError, match=expected), record(s.ask(), epochs=1):
        pytest.fail("the block must not start")


def test_a_score_with_another_option_is_refused_but_not_beside_a_second_objective() -> None:
    other = SpectralObjective(penalty=20.0)
    s = study()
    train(s.ask(), 1.0)
    with pytest.raises(ValueError, match=r"penalty 10\.0, not 20\.0"):
        train(s.ask(), 1.0, objective=other)
    pareto = optuna.create_study(directions=["minimize", "minimize"])
    trial = pareto.ask()
    pareto.tell(trial, [train(trial, 1.0), train(trial, 1.0, objective=other)])
