"""What MLflow is told of a check, written to a real store and read back."""

import json
from pathlib import Path

import pytest
from fixtures.machines.stores import StoreIn
from fixtures.weights.damaged_models import edited, model
from mlflow import MlflowClient

import wwopt
from wwopt.gate.history import Drift
from wwopt.gate.logged_checks import LONGEST_NOTE, describe_check
from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.checks import EXPERIMENT, log_check
from wwopt.tracking.keys import PASSED_TAG
from wwopt.tracking.tracked_studies import read_study


def test_a_check_is_a_run_with_its_verdict_and_its_numbers(
    tmp_path: Path, store_in: StoreIn
) -> None:
    uri = store_in(tmp_path)
    result = wwopt.check(model(), edited(lambda w: w * 4.0, "fc2"))
    run_id = log_check(uri, describe_check(result, before="good.pt", after="bad.pt"))
    log_check(uri, describe_check(wwopt.check(model(), model()), before="good.pt", after="same"))
    broken, passed = read_study(uri, EXPERIMENT).trials
    assert broken.run_id == run_id and broken.name == "bad.pt: 1 of 4 layers broke"
    assert (broken.tags[PASSED_TAG], passed.tags[PASSED_TAG]) == ("false", "true")
    assert broken.params["before"] == "good.pt" and broken.params["max_scale"] == "1.18"
    assert broken.metrics["gate/broken"] == 1 and passed.metrics["gate/passed"] == 1
    assert broken.metrics["change/scale"] == pytest.approx(1.386, abs=1e-3)
    after = wwopt.analyze(edited(lambda w: w * 4.0, "fc2"))
    score = wwopt.SpectralObjective()(after).value
    assert broken.metrics["objective/value"] == pytest.approx(score)
    table = read_layer_table(broken)
    assert table is not None and list(table["longname"]) == ["fc1", "fc2", "fc3", "head"]
    client = MlflowClient(uri)
    path = client.download_artifacts(run_id, "check.json", str(tmp_path))
    assert json.loads(Path(path).read_text())["broken"] == {"fc2": "scaled by 4"}
    assert "- **fc2** broke: scaled by 4" in broken.tags["mlflow.note.content"]


def test_a_description_fits_into_mlflows_tag() -> None:
    """Eighty layers with long names, all broken: the description says less, and the verdict."""
    weights = model()["fc1.weight"]
    names = [f"transformer.encoder.block.{i}.attention.output.dense.weight" for i in range(80)]
    result = wwopt.check(dict.fromkeys(names, weights), {n: weights * 4.0 for n in names})
    drift = [Drift(n, "change/ks", 0.05, 0.01, z=9.0, limit=5.0, past=7) for n in names]
    note = describe_check(result, drift).note
    assert len(note) <= LONGEST_NOTE and note.startswith("### wwopt check: 80 of 80 layers")
