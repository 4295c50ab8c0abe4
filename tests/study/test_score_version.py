"""A study holds values of one score: another one is refused before it trains."""

import optuna
import pytest
import torch
from fixtures.studies.recordings import study, train
from fixtures.weights.layers import trained_like
from torch import nn

from wwopt.metrics.objective import SpectralObjective
from wwopt.study.score_version import SCORE_ATTR, describe_score
from wwopt.study.trial.recording import record


def trained_layer() -> nn.Linear:
    """One of which the versions of the score think differently: its bulk is nearly empty."""
    layer = nn.Linear(100, 120)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(trained_like(120, 100, one_in=3) ** 3))
    return layer


@pytest.mark.parametrize("changes", [{"version": 99}, {"preset": "later"}, {"new_weight": 1.0}])
def test_a_score_that_cannot_be_computed_is_refused_before_it_trains(
    changes: dict[str, object],
) -> None:
    s = optuna.create_study(study_name="mine")
    s.set_user_attr(SCORE_ATTR, describe_score(SpectralObjective()) | changes)
    expected = "study 'mine' holds values of another score, which this version of wwopt cannot"
    with pytest.raises(ValueError, match=expected), record(s.ask(), epochs=1):
        pytest.fail("the block must not start")


def test_a_study_goes_on_under_the_version_and_the_former_name_that_it_holds() -> None:
    s = optuna.create_study()
    held = describe_score(SpectralObjective(version=3))
    s.set_user_attr(SCORE_ATTR, held | {"preset": "default"})
    for named in (None, SpectralObjective()):
        with record(s.ask(), epochs=1, objective=named) as recorder:
            recorder.step(trained_layer())
        expected = SpectralObjective(version=3)(recorder.metrics)
        assert recorder.value == expected.value != SpectralObjective()(recorder.metrics).value


def test_a_score_with_another_option_is_refused_but_not_beside_a_second_objective() -> None:
    other = SpectralObjective(penalty=20.0)
    s = study()
    train(s.ask(), 1.0)
    with pytest.raises(ValueError, match=r"penalty 10\.0, not 20\.0"):
        train(s.ask(), 1.0, objective=other)
    pareto = optuna.create_study(directions=["minimize", "minimize"])
    trial = pareto.ask()
    pareto.tell(trial, [train(trial, 1.0), train(trial, 1.0, objective=other)])
