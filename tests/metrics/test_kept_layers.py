"""An analysis that was interrupted goes on after the layers that it had measured."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from wwopt import analyze
from wwopt.cli import main
from wwopt.metrics import analysis
from wwopt.metrics.kept_layers import KeptLayersError, identify
from wwopt.spectra.spectrum import compute_spectrum


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    layers = {f"{name}.weight": torch.randn(80, 60) for name in "abc"}
    path = tmp_path / "model.safetensors"
    save_file(layers, path)
    return path


def count_measured(monkeypatch: pytest.MonkeyPatch, *, fail_at: int = 99) -> list[str]:
    """Names of the layers that are measured from here on; the last one allowed, then it dies."""
    names: list[str] = []

    def watched(matrix, **options):  # type: ignore[no-untyped-def]
        if len(names) == fail_at:
            raise KeyboardInterrupt
        names.append(matrix.name)
        return compute_spectrum(matrix, **options)

    monkeypatch.setattr(analysis, "compute_spectrum", watched)
    return names


def test_what_was_measured_is_not_measured_again_and_the_numbers_are_the_same(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    whole = analyze(checkpoint)
    count_measured(monkeypatch, fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        analyze(checkpoint, resume=kept, workers=1)
    left = count_measured(monkeypatch)
    resumed = analyze(checkpoint, resume=kept, workers=1)
    assert left == ["c"]
    assert resumed.to_frame().equals(whole.to_frame())
    for ours, theirs in zip(resumed.layers, whole.layers, strict=True):
        assert ours.spectrum is not None and theirs.spectrum is not None
        assert np.array_equal(ours.spectrum.eigenvalues, theirs.spectrum.eigenvalues)
        assert ours.spectrum.shape == theirs.spectrum.shape
    assert analyze(checkpoint, resume=kept).to_frame().equals(whole.to_frame())
    assert left == ["c"]


def test_other_options_and_other_files_are_measured_anew(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    analyze(checkpoint, resume=kept)
    measured = count_measured(monkeypatch)
    analyze(checkpoint, resume=kept, seed=1)
    assert len(measured) == 3
    os.utime(checkpoint, ns=(1, 1))  # written again
    analyze(checkpoint, resume=kept)
    assert len(measured) == 6
    analyze(checkpoint, resume=kept, layers=["b"])  # which layers are wanted changes no number
    assert len(measured) == 6


def test_a_torn_line_is_left_out_and_ends(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    analyze(checkpoint, resume=kept)
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-40])
    measured = count_measured(monkeypatch)
    analyze(checkpoint, resume=kept)
    assert measured == ["c"]
    assert kept.read_bytes() == whole
    assert all(json.loads(line) for line in whole.splitlines())


def test_a_file_of_something_else_is_refused_and_kept(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("a shopping list\nwith two lines\n")
    with pytest.raises(KeptLayersError, match=r"line 1 is none that"):
        analyze(checkpoint, resume=other)
    assert other.read_text().startswith("a shopping list")
    with pytest.raises(KeptLayersError, match="cannot be written"):
        analyze(checkpoint, resume=tmp_path / "no such folder" / "kept")
    with pytest.raises(ValueError, match="only the analysis of a path"):
        analyze({"a.weight": torch.randn(80, 60)}, resume=tmp_path / "kept")


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("1")
    before = identify(folder, {"seed": 0})
    assert before == identify(folder, {"seed": 0}) != identify(folder, {"seed": 1})
    (folder / "b").write_text("2")
    assert identify(folder, {"seed": 0}) != before
    assert identify("https://host/model", {}) != identify("https://host/other", {})


def test_the_command_resumes_several_paths_from_one_file(checkpoint: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.safetensors"
    second.write_bytes(checkpoint.read_bytes())
    kept = tmp_path / "kept"
    arguments = ["analyze", str(checkpoint), str(second), "--resume", str(kept), "--json"]
    first = CliRunner().invoke(main, arguments)
    again = CliRunner().invoke(main, arguments)
    assert first.exit_code == again.exit_code == 0, first.output
    assert first.output == again.output
    assert len(kept.read_text().splitlines()) == 6
