"""Taking a trial out of its study: weights, a JSON that describes it, the registry."""

import json
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from fixtures.studies import LAYERS, make_network
from mlflow import MlflowClient

import wwopt
from wwopt import TrackingError
from wwopt.cli import main
from wwopt.plain_data import make_plain
from wwopt.report.export import export_trial, register_trial
from wwopt.study.recording import record
from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.tracked_studies import TrackedStudy, read_study

Recorded = tuple[optuna.Study, str]


@pytest.fixture(scope="module")
def tracked(recorded: Recorded) -> TrackedStudy:
    return read_study(recorded[1])


def read(path: Path) -> dict:
    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def test_the_best_trial_is_exported_with_its_weights(
    recorded: Recorded, tracked: TrackedStudy, tmp_path: Path
) -> None:
    done = export_trial(tracked, tmp_path)
    best = recorded[0].best_trial
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"trial-{best.number}.json",
        f"trial-{best.number}.safetensors",
    ]
    document = read(done.document)
    assert document["objective"] == pytest.approx(best.value)
    assert list(document["suggested"].values()) == list(best.params.values())  # every digit
    assert [row["longname"] for row in document["layers"]] == list(LAYERS)
    assert set(document["spectra"]) == set(LAYERS)
    # The file holds the network that was judged.
    assert done.weights is not None
    table = read_layer_table(done.trial)
    assert table is not None
    metrics = wwopt.analyze(done.weights)
    alphas = dict(zip(table["longname"], table["alpha"], strict=True))
    assert {x.name: x.alpha for x in metrics.layers} == pytest.approx(alphas)
    spectrum = metrics[LAYERS[0]].spectrum
    assert spectrum is not None
    values = document["spectra"][LAYERS[0]]["eigenvalues"]
    assert values == pytest.approx(spectrum.eigenvalues, rel=1e-4)


def test_exporting_again_replaces_the_files(tracked: TrackedStudy, tmp_path: Path) -> None:
    first = export_trial(tracked, tmp_path, number=2)
    before = first.document.read_text("utf-8")
    assert export_trial(tracked, tmp_path, number=2) == first
    assert first.document.read_text("utf-8") == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_trial_without_weights_is_described_all_the_same(
    tracked: TrackedStudy, tmp_path: Path
) -> None:
    done = export_trial(tracked, tmp_path, number=4)  # it failed
    assert done.weights is None
    document = read(done.document)
    assert (document["state"], document["weights"]) == ("FAIL", None)
    assert document["status"] == "RuntimeError: postgresql://me:***@db/x is down"
    assert "s3cret" not in done.document.read_text("utf-8")


def test_a_trial_that_is_not_there_is_said(tracked: TrackedStudy, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="has no trial 99"):
        export_trial(tracked, tmp_path, number=99)
    nothing = TrackedStudy("", "1", None, "empty", {}, {}, {}, ())
    with pytest.raises(TrackingError, match="'empty' has no complete trial"):
        export_trial(nothing, tmp_path)


def test_the_registry_gets_versions_whose_files_are_the_weights(tracked: TrackedStudy) -> None:
    assert [register_trial(tracked, "digits", number=n) for n in (0, 1)] == ["1", "2"]
    client = MlflowClient(tracked.uri, registry_uri=tracked.uri)
    version = client.get_model_version("digits", "2")
    assert version.run_id == tracked[1].run_id
    folder = Path(version.source.removeprefix("file://"))
    assert [path.name for path in folder.iterdir()] == ["weights.safetensors"]
    with pytest.raises(TrackingError, match="trial 4 has no logged model to register"):
        register_trial(tracked, "digits", number=4)


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


def test_what_is_not_finite_becomes_null() -> None:
    values = {"a": [1.0, float("nan")], "b": (float("inf"), "x", None, 3)}
    assert make_plain(values) == {"a": [1.0, None], "b": [None, "x", None, 3]}


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
