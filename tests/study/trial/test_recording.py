"""A recorded trial has a run in MLflow that ends as it did, or fails before any training."""

import sys
from pathlib import Path

import optuna
import pytest
from fixtures.studies.recordings import model, runs_of, study
from mlflow import MlflowClient
from torch import nn

import wwopt
from wwopt.study.trial.recording import record
from wwopt.tracking import STUDY_TAG, TRIAL_TAG


def test_a_block_without_a_step_fails() -> None:
    with pytest.raises(ValueError, match="step\\(model\\) was never called"), record(study().ask()):
        pass


def test_a_model_whose_layers_are_all_small_fails_with_the_reason() -> None:
    small = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    with (
        pytest.raises(ValueError, match="no countable layer"),
        record(study().ask(), epochs=1) as recorder,
    ):
        recorder.step(small)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"every": 0}])
def test_an_impossible_length_is_refused(options: dict[str, int]) -> None:
    with (
        pytest.raises(ValueError, match="must be at least 1, got 0"),
        record(study().ask(), **options),
    ):
        pass


def test_mlflow_holds_a_child_run_per_trial_with_its_state(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    s = optuna.create_study(
        study_name="states",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
    )

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("hyperparameters", {"lr/0": 0.1 * (trial.number + 1)})
        with record(trial, epochs=2, tracking=uri) as recorder:
            recorder.step(model(), train_loss=1.0)
            if trial.number == 2:
                raise RuntimeError("out of luck")
            recorder.step(model(scale=0.0 if trial.number == 1 else 1.0), train_loss=0.5)
        return recorder.value

    s.optimize(objective, n_trials=3, catch=(RuntimeError,))
    runs = runs_of(uri, "states")
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = {r.data.tags[TRIAL_TAG]: r for r in runs if TRIAL_TAG in r.data.tags}
    assert len(parents) == 1 and sorted(children) == ["0", "1", "2"]
    expected = {"0": ("FINISHED", "COMPLETE"), "1": ("KILLED", "PRUNED"), "2": ("FAILED", "FAIL")}
    for number, (status, state) in expected.items():
        run, trial = children[number], s.trials[int(number)]
        assert (run.info.status, run.data.tags["optuna.state"], trial.state.name) == (
            status,
            state,
            state,
        )
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert run.data.tags[STUDY_TAG] == s.user_attrs["wwopt.study"]
        assert trial.user_attrs["mlflow_run_id"] == run.info.run_id
        assert float(run.data.params["lr/0"]) == pytest.approx(0.1 * (int(number) + 1))
    assert children["2"].data.tags["wwopt.error"] == "RuntimeError: out of luck"
    assert children["1"].data.tags["wwopt.status"] == "broken: 0 zero"

    client = MlflowClient(uri)
    losses = client.get_metric_history(children["0"].info.run_id, "train/loss")
    assert [(m.step, m.value) for m in losses] == [(1, 1.0), (2, 0.5)]
    values = client.get_metric_history(children["0"].info.run_id, "objective/value")
    assert [m.step for m in values] == [1, 2]  # analysed at ½ and the end
    assert values[-1].value == pytest.approx(s.trials[0].value)
    names = {a.path for a in client.list_artifacts(children["0"].info.run_id)}
    assert "layers.json" in names
    assert {a.path for a in client.list_artifacts(children["2"].info.run_id)} >= {"error.txt"}


def test_an_unreachable_store_is_said_before_any_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    uri = f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}"
    with (
        pytest.raises(wwopt.TrackingError, match="cannot be used"),
        record(study().ask(), tracking=uri),
    ):
        pytest.fail("the block must not start")


def test_an_interruption_that_a_framework_made_a_system_exit_of_ends_the_trial() -> None:
    """Lightning exits with status 1 at a Ctrl-C; Optuna leaves a SystemExit's trial running."""
    s = study()

    def objective(trial: optuna.Trial) -> float:
        with record(trial, epochs=2) as recorder:
            recorder.step(model())
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                sys.exit(1)
        return recorder.value

    with pytest.raises(KeyboardInterrupt):
        s.optimize(objective, n_trials=2)
    assert [t.state.name for t in s.trials] == ["FAIL"]


def test_an_exit_of_the_trainings_own_stays_one() -> None:
    with pytest.raises(SystemExit), record(study().ask()) as recorder:
        recorder.step(model())
        sys.exit(3)


def test_without_tracking_there_is_no_run_to_make_active() -> None:
    with record(study().ask(), epochs=1) as recorder, recorder.active_run():
        recorder.step(model())
