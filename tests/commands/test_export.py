"""`wwopt export` end to end, and with `wwopt compare` on a colleague's server."""

from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from fixtures.studies.quick_studies import LAYERS, make_network
from fixtures.studies.recorded_study import Recorded
from mlflow import MlflowClient

import wwopt
from wwopt.cli import main
from wwopt.study.trial.recording import record


def test_the_command_exports_registers_and_draws(recorded: Recorded, tmp_path: Path) -> None:
    folder = str(Path(recorded[1].removeprefix("sqlite:///")).parent)
    command = ["export", folder, "--trial", "3", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*command, "--register", "command", "--pictures"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Registered in MLflow as command, version 1" in result.stdout
    assert "4 pictures attached to run" in result.stdout
    failed = CliRunner().invoke(main, ["export", folder, "--trial", "4", "-o", str(tmp_path)])
    assert failed.exit_code == 1 and "trial 4 has no weights" in failed.stderr
    unknown = CliRunner().invoke(main, ["export", folder, "--trial", "99", "-o", str(tmp_path)])
    assert unknown.exit_code == 2 and unknown.stderr.startswith("wwopt: study 'härte/1' has no")


@pytest.mark.integration
def test_a_colleagues_study_on_a_server(mlflow_server: str, tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("lr", 0.01, 1.0, log=True)
        with record(trial, epochs=1, tracking=mlflow_server) as recorder:
            recorder.step(make_network(trial.number, rate), train_loss=1.0 - rate)
        return recorder.value

    study = optuna.create_study(study_name="colleague")
    study.optimize(objective, n_trials=3)
    server = ["--tracking-uri", mlflow_server]
    for command in (
        ["compare", "colleague", *server, "--pair", "0", "1"],
        ["compare", "colleague", *server, "--importance"],
        ["export", "colleague", *server, "-o", str(tmp_path), "--register", "from a server"],
    ):
        result = CliRunner().invoke(main, command)
        assert (result.exit_code, result.stderr) == (0, ""), command
    weights = tmp_path / f"trial-{study.best_trial.number}.safetensors"
    assert len(wwopt.analyze(weights).layers) == len(LAYERS)
    version = MlflowClient(mlflow_server).get_model_version("from a server", "1")
    assert version.source.startswith("mlflow-artifacts:")
