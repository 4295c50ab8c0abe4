"""What is said of a layer and of a model, and the command that says it."""

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest
import torch
from fixtures.layers import well_trained
from fixtures.processes import run_wwopt
from safetensors.torch import save_file

import wwopt
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.text import describe, format_table, say_verdict


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "well trained"),
        ({"alpha": 1.5}, "over-trained"),
        ({"alpha": 1.8}, "well trained"),  # within two standard errors of 2
        ({"alpha": 6.5}, "under-trained"),
        ({"alpha": 6.3}, "well trained"),
        ({"hill": 4.0}, "looks untrained"),
        ({"hill": 2.2, "hill_shuffled": 2.2}, "looks untrained"),
        ({"num_pl_spikes": 9}, "unreliable: short tail"),
        ({"D": 0.2, "num_pl_spikes": 5}, "unreliable: short tail; high D"),
        ({"status": "collapsed"}, "collapsed"),
        ({"status": "too few eigenvalues"}, "too few eigenvalues"),
    ],
)
def test_the_verdict_on_a_layer(values: dict[str, object], said: str) -> None:
    assert say_verdict(well_trained(**values)) == said


def test_the_description_names_what_matters() -> None:
    metrics = ModelMetrics(
        (
            well_trained(name="good"),
            well_trained(name="over", alpha=1.4),
            well_trained(name="noise", hill=4.0),
            well_trained(name="trapped", num_traps=2, trap_z=30.0),
            well_trained(name="dead", status="zero", alpha=float("nan")),
            well_trained(name="head", status="too few eigenvalues", tied=("embedding",)),
        ),
        {"bias": "vector", "act.scale": "quantized: int8"},
    )
    text = describe(metrics)
    assert "2 of 5 layers look well trained, mean alpha 2.60." in text
    assert "Over-trained: over." in text
    assert "Like a random matrix: noise." in text
    assert "with correlation traps: trapped." in text
    assert "Broken (zero): dead." in text
    assert "Not counted (too few eigenvalues): head." in text
    assert "Tied and counted once: embedding (with head)." in text
    assert "act.scale (quantized: int8)" in text and "bias (vector)" in text


def test_a_model_without_layers_is_said_to_have_none() -> None:
    assert format_table(ModelMetrics(())) == "no layer with a weight matrix"
    assert describe(ModelMetrics(())) == "No layer has enough eigenvalues to say anything."


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = {"fc.weight": torch.randn(80, 60), "fc.bias": torch.zeros(80)}
    path = tmp_path / "model.safetensors"
    save_file({**state, "head.weight": torch.randn(10, 80)}, path)
    return path


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_wwopt("analyze", *arguments)


def test_the_command_prints_a_table_and_words(checkpoint: Path) -> None:
    result = analyze(checkpoint)
    assert result.returncode == 0, result.stderr
    assert "80×60" in result.stdout and "looks untrained" in result.stdout
    assert "Not counted (too few eigenvalues): head." in result.stdout
    assert "Not analysed: fc.bias" in result.stdout


def test_json_and_csv_hold_the_same_numbers_as_python(checkpoint: Path) -> None:
    expected = wwopt.analyze(checkpoint)["fc"]
    document = json.loads(analyze(checkpoint, "--json").stdout)[str(checkpoint)]
    fc, head = document["layers"]
    assert fc["alpha"] == pytest.approx(expected.alpha, rel=1e-12)
    assert head["hill"] is None  # unknown is null, never NaN
    assert document["skipped"] == {"fc.bias": "vector"}
    rows = list(csv.DictReader(io.StringIO(analyze(checkpoint, "--csv").stdout)))
    assert [row["longname"] for row in rows] == ["fc", "head"]
    assert float(rows[0]["alpha"]) == pytest.approx(expected.alpha)
    assert rows[0]["source"] == str(checkpoint)


def test_a_source_that_cannot_be_read_does_not_stop_the_others(
    checkpoint: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("this is no checkpoint")
    both = analyze(text, checkpoint)
    assert both.returncode == 1
    assert "looks untrained" in both.stdout
    assert both.stderr.count("\n") == 1 and "text.safetensors" in both.stderr
    assert analyze(text).returncode == 2
    assert analyze(checkpoint, "--layers", "fx").returncode == 2
