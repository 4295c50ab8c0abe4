"""A trial's run is opened once, with every hyperparameter under a name of its own."""

from pathlib import Path

from mlflow import MlflowClient

from wwopt.tracking import (
    open_study,
    open_trial,
)
from wwopt.tracking.tracked_studies import find_runs


def test_layers_whose_names_become_equal_stay_apart(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'mlflow.db'}", name="s", study="u")
    run = open_trial(study, number=0, hyperparameters={"lr/a(b": 0.1, "lr/a)b": 0.2})
    params = MlflowClient(study.uri).get_run(run.run_id).data.params
    assert params == {"lr/a_b": "0.1", "lr/a_b-2": "0.2"}


def test_what_a_tie_made_of_few_values_is_logged_beside_each_layers_own(tmp_path: Path) -> None:
    run = open_trial(
        open_study(f"sqlite:///{tmp_path / 'mlflow.db'}", name="s", study="u"),
        number=0,
        hyperparameters={"lr/a": 0.1, "lr/b": 0.2},
        suggested={"lr/a": 0.1, "lr/depth=first": 0.1, "batch": 8},
    )
    params = find_runs(run.uri, run_id=run.run_id)[0].params
    assert params == {
        "lr/a": "0.1",
        "lr/b": "0.2",
        "tuned/lr.depth_first": "0.1",
        "tuned/batch": "8",
    }
