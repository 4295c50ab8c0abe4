"""`wwopt analyze` end to end: tables, words, JSON, CSV, pictures and exit statuses."""

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from fixtures.processes import run_wwopt
from safetensors.torch import save_file

import wwopt
from wwopt.cli import main

NO_INT = "not a tensor: int"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = {"fc.weight": torch.randn(80, 60), "fc.bias": torch.zeros(80)}
    path = tmp_path / "model.safetensors"
    save_file({**state, "head.weight": torch.randn(10, 80)}, path)
    return path


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_wwopt("analyze", *arguments)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["analyze", *map(str, arguments)])


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


def test_a_training_checkpoint_is_read_by_its_model_or_by_a_key(tmp_path: Path) -> None:
    path = tmp_path / "last.pth.tar"
    states = [{"fc.weight": torch.randn(80, 60)} for _ in range(2)]
    torch.save({"model": states[0], "ema": states[1], "epoch": 3}, path)
    document = json.loads(run(path, "--json").stdout)[str(path)]
    assert document["skipped"] == {"ema": "another model: 1 tensor (key 'ema')", "epoch": NO_INT}
    for state, options in zip(states, ([], ["--key", "ema"]), strict=True):
        (layer,) = json.loads(run(path, "--json", *options).stdout)[str(path)]["layers"]
        assert layer["alpha"] == pytest.approx(wwopt.analyze(state)["fc"].alpha)
        assert wwopt.analyze(path, key=(options or ["model"])[-1])["fc"].alpha == layer["alpha"]
    unknown = run(path, "--key", "swa")
    assert unknown.exit_code == 2 and unknown.stderr.count("\n") == 1
    assert "has no key 'swa'; there is model (1 tensor, 4,800 numbers), ema (" in unknown.stderr
    torch.save({"student": states[0], "teacher": states[1]}, path)
    several = run(path)
    assert several.exit_code == 2 and several.stderr.count("\n") == 1
    assert "student (1 tensor, 4,800 numbers), teacher (1 tensor, 4,800" in several.stderr
    assert "--key NAME" in several.stderr


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


@pytest.mark.usefixtures("nothing_of_matplotlib_is_changed")
def test_the_command_writes_pictures_and_says_where(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    result = run(checkpoint, "--json", "--plot", folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.lstrip().startswith("{")
    assert str(folder / "overview.png") in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "001-fc.png",
        "002-head.png",
        "overview.png",
    ]
    several = run(checkpoint, tmp_path / "none.safetensors", "--plot", tmp_path / "two")
    assert several.exit_code == 1
    (own,) = (tmp_path / "two").iterdir()
    assert own.name.startswith("001-") and (own / "overview.png").exists()


@pytest.mark.usefixtures("nothing_of_matplotlib_is_changed")
def test_a_folder_that_cannot_be_written_is_one_clear_error(
    checkpoint: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for folder in (file, file / "below"):
        result = run(checkpoint, "--plot", folder)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        assert f"cannot write pictures to {folder}" in result.stderr


def test_workers_change_no_number(checkpoint: Path) -> None:
    one, three = (run(checkpoint, "--csv", "--workers", workers) for workers in (1, 3))
    assert (one.exit_code, three.exit_code) == (0, 0)
    assert one.stdout == three.stdout
    refused = run(checkpoint, "--workers", 2, "--dask", "tcp://localhost:1")
    assert refused.exit_code == 2
    assert "--workers is for this process" in refused.output
    assert run(checkpoint, "--workers", 0).exit_code == 2
