"""Which score guides a study that names none: its first trial's first step decides."""

import math
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from fixtures.recorded.old_study import unpack_old_study
from fixtures.studies.recordings import model, study, train

import wwopt
from wwopt.metrics.objective import PRESETS, SpectralObjective
from wwopt.study.guides import (
    FIRST_STEP,
    GUIDE_ATTR,
    TRAIN_LOSS,
    score_by_all,
    settle_score,
    tracked_score,
)
from wwopt.study.score_version import ScoreError, held_score
from wwopt.study.trial.recording import record
from wwopt.tracking import read_study
from wwopt.tracking.store import folder_uri

WEIGHTS, FREE = SpectralObjective(), SpectralObjective("validation-free")
METRICS = wwopt.analyze(model())


def train_without_loss(trial: optuna.trial.BaseTrial) -> float:
    with record(trial, epochs=2) as recorder:
        recorder.step(model())
        recorder.step(model())
    return recorder.value


def test_a_training_loss_makes_it_validation_free() -> None:
    s = study()
    assert train(s.ask(), 1.0, 0.5) == pytest.approx(FREE(METRICS, train_loss=0.5).value)
    assert held_score(s) == FREE
    assert s.user_attrs[GUIDE_ATTR] == FIRST_STEP


def test_without_one_it_is_weights_only() -> None:
    s = study()
    assert train_without_loss(s.ask()) == pytest.approx(WEIGHTS(METRICS).value)
    assert held_score(s) == WEIGHTS


def test_a_log_likelihood_that_the_score_cannot_read_leaves_the_weights() -> None:
    s = study()
    assert train(s.ask(), -1.0, -2.0) == pytest.approx(WEIGHTS(METRICS).value)


def test_a_trial_alone_decides_for_itself() -> None:
    trial = optuna.trial.FixedTrial({})
    assert train(trial, 1.0, 0.5) == pytest.approx(FREE(METRICS, train_loss=0.5).value)


def test_of_several_objectives_the_loss_may_be_another() -> None:
    s = optuna.create_study(directions=["minimize", "minimize"])
    assert train(s.ask(), 1.0, 0.5) == pytest.approx(WEIGHTS(METRICS).value)


def test_step_0_without_a_loss_decides_nothing() -> None:
    s = study()
    with record(s.ask(), epochs=1) as recorder:
        assert recorder.step(model(), step=0).value is None
        assert held_score(s) is None
        recorder.step(model(), train_loss=0.5)
    assert held_score(s) == FREE
    with record(s.ask(), epochs=1) as recorder:  # nor does it contradict what was decided
        recorder.step(model(), step=0)
        recorder.step(model(), train_loss=0.5)


def test_a_network_that_was_never_trained_is_no_trial() -> None:
    with pytest.raises(ValueError, match="for step 0 alone"), record(study().ask()) as recorder:
        recorder.step(model(), step=0)


def test_a_later_trial_that_differs_fails_with_the_reason() -> None:
    logs, omits = study(), study()
    train(logs.ask(), 1.0, 0.5)
    with pytest.raises(ScoreError, match="first trial logged one as training loss, this one none"):
        train_without_loss(logs.ask())
    train_without_loss(omits.ask())
    with pytest.raises(ScoreError, match=r"logged none that is at least 0 .*, this one 1\. V"):
        train(omits.ask(), 1.0, 0.5)


def test_a_score_that_was_named_asks_nothing_of_the_first_step() -> None:
    s = study()
    assert train(s.ask(), 1.0, objective=WEIGHTS) == pytest.approx(WEIGHTS(METRICS).value)
    assert GUIDE_ATTR not in s.user_attrs
    assert train(s.ask(), 1.0) == pytest.approx(WEIGHTS(METRICS).value)  # as it holds
    assert train_without_loss(s.ask()) == pytest.approx(WEIGHTS(METRICS).value)


def test_a_named_score_that_cannot_be_fed_is_an_error() -> None:
    with (
        pytest.raises(ValueError, match=r"reads the training loss.*got None"),
        record(study().ask(), epochs=2, objective=FREE) as recorder,
    ):
        recorder.step(model())


def test_what_was_decided_first_holds_though_two_begin_at_once() -> None:
    s = study()
    one, other = s.ask(), s.ask()
    assert settle_score(one, train_loss=1.0) == settle_score(other, train_loss=2.0) == FREE


def test_a_trial_keeps_what_every_score_says_of_it() -> None:
    s = study()
    trial = s.ask()
    s.tell(trial, train(trial, 1.0, 0.5))
    kept = s.trials[0].user_attrs
    assert kept["guide"] == "validation-free"
    assert kept["scores"] == pytest.approx(
        {
            TRAIN_LOSS: 0.5,
            "weights-only": WEIGHTS(METRICS).value,
            "validation-free": FREE(METRICS, train_loss=0.5).value,
        }
    )


def test_scores_that_cannot_be_fed_are_left_out() -> None:
    assert list(score_by_all(METRICS, train_loss=None, version=4)) == ["weights-only"]
    assert set(score_by_all(METRICS, train_loss=0.5, version=4)) == {TRAIN_LOSS, *PRESETS}
    assert set(score_by_all(METRICS, train_loss=-0.5, version=4)) == {TRAIN_LOSS, "weights-only"}
    assert set(score_by_all(METRICS, train_loss=math.nan, version=4)) == {"weights-only"}
    dead = wwopt.analyze(model(scale=0.0))
    assert score_by_all(dead, train_loss=0.5, version=4) == {TRAIN_LOSS: 0.5}


def test_a_study_in_mlflow_tells_its_score(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    s = optuna.create_study(study_name="told")
    trial = s.ask()
    s.tell(trial, train(trial, 1.0, 0.5, tracking=uri))
    tracked = read_study(uri, "told")
    assert tracked_score(tracked) == FREE
    assert tracked.trials[0].metrics["scores/weights-only"] == pytest.approx(WEIGHTS(METRICS).value)
    assert tracked_score(replace(tracked, tags={})) is None


def test_a_study_begun_with_an_older_version_tells_that_score(tmp_path: Path) -> None:
    old = unpack_old_study(tmp_path)
    assert tracked_score(read_study(folder_uri(old))) == SpectralObjective(version=3)
