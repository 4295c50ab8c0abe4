"""`wwopt analyze` end to end: tables, words, JSON, CSV, pictures and exit statuses."""

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from fixtures.machines.processes import run_wwopt
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


def adapted(folder: Path) -> tuple[Path, Path]:
    """A base of two layers, and its copy with a LoRA of rank 3 merged into the first."""
    torch.manual_seed(0)
    base = {"q.weight": torch.randn(90, 80), "up.weight": torch.randn(70, 60)}
    tuned = base | {"q.weight": base["q.weight"] + 0.1 * torch.randn(90, 3) @ torch.randn(3, 80)}
    for name, state in (("base", base), ("tuned", tuned)):
        save_file(state, folder / f"{name}.safetensors")
    return folder / "base.safetensors", folder / "tuned.safetensors"


def test_with_a_base_the_command_says_what_kind_of_change_it_was(tmp_path: Path) -> None:
    base, tuned = adapted(tmp_path)
    result = run(tuned, "--base", base)
    assert result.exit_code == 0, result.output
    _, _, first, second, *rows = result.stdout.splitlines()
    assert first.startswith("Change: low rank, as a merged LoRA, in 1 of 2 layers (q; rank 3 of 80")
    assert second.startswith("Moved by 0.1")
    assert "collapsed" not in result.stdout and "trained" not in second
    assert [line.split()[0] for line in rows if line.strip()] == ["layer", "q"]
    same = run(base, "--base", base)
    assert "Change: none, 2 weight matrices identical" in same.stdout


def test_with_a_base_the_data_hold_the_comparison_and_the_differences_spectra(
    tmp_path: Path,
) -> None:
    base, tuned = adapted(tmp_path)
    document = json.loads(run(tuned, "--base", base, "--json").stdout)[str(tuned)]
    assert {row["status"] for row in document["layers"]} == {"a difference"}
    found = document["base"]
    assert found["change"] == {
        "kind": "low rank",
        "layers": {"low rank": ["q"], "identical": ["up"]},
    }
    q, up = found["layers"]
    assert (q["kind"], q["delta_rank"], up["kind"]) == ("low rank", 3, "identical")
    assert 0.5 < q["overlap"] <= 1.0 and up["delta_stable_rank"] is None
    table = run(tuned, "--base", base, "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["longname"], row["kind"]) for row in rows] == [
        ("q", "low rank"),
        ("up", "identical"),
    ]
    assert float(rows[0]["stable_rank"]) == pytest.approx(float(rows[0]["delta_stable_rank"]))


def test_a_base_of_another_architecture_is_an_error_in_one_line(
    checkpoint: Path, tmp_path: Path
) -> None:
    base, tuned = adapted(tmp_path)
    result = run(tuned, "--base", checkpoint)
    assert result.exit_code == 2
    assert "no layer in common: 'q' and others here, 'fc' and others there" in result.stderr
    both = run(tuned, checkpoint, "--base", base)
    assert both.exit_code == 1 and "low rank" in both.stdout


def test_an_adapters_folder_is_compared_and_judged_as_the_adapted_model(tmp_path: Path) -> None:
    base, _ = adapted(tmp_path)
    folder = tmp_path / "adapter"
    folder.mkdir()
    factors = {"lora_A": torch.randn(2, 80), "lora_B": 0.1 * torch.randn(90, 2)}
    named = {f"base_model.model.q.{name}.weight": w for name, w in factors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2, "r": 2}))
    result = run(folder, "--base", base)
    assert result.exit_code == 0, result.output
    assert (
        "low rank, as a merged LoRA, in 1 of 2 layers (q; rank 2 of 80); 1 identical"
        in result.stdout
    )
    assert "balance" in result.stdout and "verdict" in result.stdout
