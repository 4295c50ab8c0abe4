"""Taking a trial out of its study: weights, a JSON that describes it, the registry."""

import json
from pathlib import Path

import pytest
from fixtures.studies.quick_studies import LAYERS
from fixtures.studies.recorded_study import Recorded
from mlflow import MlflowClient

import wwopt
from wwopt import TrackingError
from wwopt.report.export import export_trial, register_trial
from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.tracked_studies import TrackedStudy


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
