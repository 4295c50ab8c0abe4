"""A study with an objective of its own is watched, and stays as it would have been without."""

import logging
import math
from pathlib import Path

import optuna
import pytest
from fixtures.studies.recordings import model, runs_of
from torch import nn

import wwopt
from wwopt.study.trial.observing import OBSERVED_ATTR
from wwopt.study.trial.recording import observe, record
from wwopt.tracking import read_study

KEPT = ("state", "values", "params", "constraints", "intermediate_values", "number")


def make_study() -> optuna.Study:
    sampler, pruner = optuna.samplers.TPESampler(seed=0), optuna.pruners.MedianPruner()
    return optuna.create_study(
        study_name="own", direction="maximize", sampler=sampler, pruner=pruner
    )


def run(watched: bool, uri: str | None = None) -> optuna.Study:
    def objective(trial: optuna.Trial) -> float:
        quality = trial.suggest_float("quality", 0.0, 1.0)
        trial.set_user_attr("metrics", "mine")

        def train(step) -> float:  # type: ignore[no-untyped-def]
            for epoch in range(1, 4):
                net = model(trial.number, scale=0.0 if trial.number == 2 else 1.0)
                step(net, train_loss=math.nan if trial.number == 3 else 2.0 / epoch)
                trial.report(quality + 0.01 * epoch, epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return quality

        if not watched:
            return train(lambda *_, **__: None)
        with record(trial, observe=True, epochs=3, tracking=uri) as recorder:
            return recorder.keep_value(train(recorder.step))

    study = make_study()
    study.optimize(objective, n_trials=10)
    return study


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[optuna.Study, str]:
    uri = f"sqlite:///{tmp_path_factory.mktemp('observed') / 'mlflow.db'}"
    return run(True, uri), uri


def test_a_watched_study_is_the_one_that_it_would_have_been(
    watched: tuple[optuna.Study, str],
) -> None:
    """Same parameters, reports, pruning and values: the sampler saw nothing of ours."""
    alone, beside = run(False), watched[0]
    assert {t.state.name for t in alone.trials} == {"COMPLETE", "PRUNED"}
    for ours, theirs in zip(beside.trials, alone.trials, strict=True):
        assert [getattr(ours, k) for k in KEPT] == [getattr(theirs, k) for k in KEPT]
        assert set(ours.user_attrs) == {"metrics", OBSERVED_ATTR}
        assert ours.user_attrs["metrics"] == "mine"
    assert set(beside.user_attrs) == {"wwopt.study"}


def test_mlflow_has_the_trials_under_their_own_objective(
    watched: tuple[optuna.Study, str],
) -> None:
    study, uri = watched
    tracked = read_study(uri, "own")
    assert tracked.is_observed
    states = {t.number: t.state.name for t in study.trials}
    assert {t.number: t.state for t in tracked.trials} == states
    best = tracked.best
    assert best is not None and best.number == study.best_trial.number
    assert best.metrics["metrics/own_objective"] == study.best_value
    assert best.value == -study.best_value
    assert not best.violated and best.metrics["scores/weights-only"] != 0.0
    pruned = next(t for t in tracked.trials if t.state == "PRUNED")
    assert pruned.tags["wwopt.ending"] == "pruned" and not pruned.refused


def test_what_is_wrong_is_an_alarm_and_ends_nothing(watched: tuple[optuna.Study, str]) -> None:
    study, uri = watched
    broken, lossless = (study.trials[n].user_attrs[OBSERVED_ATTR] for n in (2, 3))
    assert "step 2: broken: 0 zero" in broken["alarms"]
    assert lossless["alarms"][0] == "step 1: training loss is nan"
    assert "guards would refuse this network: train_loss" in lossless["alarms"]
    assert study.trials[4].user_attrs[OBSERVED_ATTR]["alarms"] == []
    assert "step 2: broken: 0 zero" in read_study(uri, "own")[2].alarms


def test_an_error_of_its_own_does_not_end_the_training(caplog: pytest.LogCaptureFixture) -> None:
    study = make_study()
    small = nn.Linear(5, 5)
    with caplog.at_level(logging.WARNING), record(study.ask(), observe=True, every=1) as recorder:
        recorder.step(small)
        recorder.step("no such file")  # type: ignore[arg-type]
        recorder.step(small, step=1)
        recorder.step(small, step=3)
    assert recorder.alarms[0] == "step 1: no countable layer"
    assert recorder.alarms[1].startswith("step 2 was not recorded: WeightsError: ")
    assert "ValueError: step 1 comes after step 2" in recorder.alarms[2]
    assert recorder.alarms[-1].startswith("not judged: ValueError: ")
    assert "trial 0: step 2 was not recorded" in caplog.text
    with record(study.ask(), observe=True) as recorder:
        pass
    assert "recorder.step(model) was never called" in recorder.alarms[0]


def test_one_line_at_the_end_of_an_objective(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = optuna.create_study(study_name="line")
    study.optimize(lambda t: observe(t, model(t.number), 0.25, tracking=uri), n_trials=2)
    assert [t.values for t in study.trials] == [[0.25], [0.25]]
    assert [t.value for t in read_study(uri, "line").trials] == [0.25, 0.25]


@pytest.mark.slow
def test_a_training_that_raises_is_failed_and_its_error_is_its_own(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    trial = optuna.create_study(study_name="line").ask()
    with (
        pytest.raises(RuntimeError, match="out of luck"),
        record(trial, observe=True, epochs=1, tracking=uri) as recorder,
    ):
        recorder.step(model())
        raise RuntimeError("out of luck")
    (found,) = read_study(uri, "line").trials
    assert (found.state, found.tags["wwopt.ending"]) == ("FAIL", "failed")
    assert "error" not in trial.user_attrs


def test_one_training_outside_any_study(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for lr in (0.1, 0.2):
        with record(None, tracking=uri, epochs=2, params={"lr": lr}) as recorder:
            recorder.step(model(), train_loss=2.0, val_accuracy=0.5)
            advice = recorder.step(model(1), train_loss=1.0, val_accuracy=0.7)
        assert advice.metrics is not None and recorder.value == advice.value
    study = read_study(uri, "trainings")
    assert [t.params["lr"] for t in study.trials] == ["0.1", "0.2"]
    assert [t.metrics["metrics/val_accuracy"] for t in study.trials] == [0.7, 0.7]
    assert (
        len([r for r in runs_of(uri, "trainings") if "mlflow.parentRunId" not in r.data.tags]) == 1
    )
    with record(None) as recorder:
        recorder.step(model())
    assert recorder.metrics is not None
    with pytest.raises(RuntimeError, match="observe=True"):
        recorder.keep_value(1.0)
    with pytest.raises(wwopt.TrackingError), record(None, tracking="http://127.0.0.1:9"):
        pytest.fail("said before any training")
