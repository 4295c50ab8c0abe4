"""The study of the kinds of change: its edits, its truths, and its tables, on what is cheap."""

from pathlib import Path

import pytest
import torch

import kinds_of_change
from harness.changes.cases import Change, find_full_rank, find_truth
from harness.changes.edits import EDITS, cast, per_group, to_nf4
from harness.changes.judgement import Judged, count_kinds, find_kinship
from wwopt.metrics.base.movements import ChangeKind, LayerMovement
from wwopt.weights.matrices import read_weights

W = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))


def truth_of(change: Change, base: torch.Tensor) -> ChangeKind:
    (matrix,) = read_weights(change.weights).matrices
    return find_truth(change, matrix, {"fc.weight": base})


def test_of_two_changes_the_larger_names_a_layer() -> None:
    rounded = {"fc.weight": W.bfloat16().float()}
    for size, kind in ((1e-4, ChangeKind.OTHER_DTYPE), (0.1, ChangeKind.DENSE)):
        tuned = {"fc.weight": W + size * torch.ones_like(W)}
        after = {"fc.weight": tuned["fc.weight"].bfloat16().float()}
        change = Change("fine-tuned, then bf16", after, ChangeKind.DENSE, tuned)
        assert truth_of(change, W) is kind
    same = Change("LoRA", {"fc.weight": W}, ChangeKind.LOW_RANK, rank=4)
    assert truth_of(same, W) is ChangeKind.IDENTICAL
    for rank, kind in ((8, ChangeKind.LOW_RANK), (30, ChangeKind.DENSE)):
        wide = Change("LoRA", rounded, ChangeKind.LOW_RANK, rank=rank)
        assert truth_of(wide, W) is kind


def test_a_convolution_has_as_many_directions_as_outputs_or_inputs_of_all_positions() -> None:
    (matrix,) = read_weights({"conv.weight": torch.randn(16, 8, 3, 3)}).matrices
    assert find_full_rank(matrix) == 16


@pytest.mark.parametrize("half", EDITS)
def test_edits_change_weights_and_leave_their_shape(half: int) -> None:
    for name, (edit, kind) in EDITS[half].items():
        edited = edit(W)
        assert edited.shape == W.shape and not torch.equal(edited, W), name
        assert kind in (
            ChangeKind.OTHER_DTYPE, ChangeKind.ROUNDING, ChangeKind.ZEROED, ChangeKind.SCALED,
        )  # fmt: skip
    assert len(per_group(4, 32)(W)[0, :32].unique()) <= 15
    assert len(to_nf4(torch.randn(4, 64))[0].unique()) <= 16
    assert cast(torch.float8_e4m3fn, scaled=True)(W).abs().max() == pytest.approx(
        float(W.abs().max()), rel=1e-6
    )


def test_right_answers_are_counted_by_model_and_by_layer() -> None:
    base = {"N": 96, "M": 64, "parameters": 6144}
    same = LayerMovement(name="a", movement=0.0, overlap=1.0, overlap_right=0.8, **base)
    moved = LayerMovement(name="b", movement=0.1, overlap=0.6, overlap_right=0.9, **base)
    case = Judged("net", 1, "x", ((same, ChangeKind.IDENTICAL), (moved, ChangeKind.LOW_RANK)))
    assert (case.truth, case.said) == (ChangeKind.LOW_RANK, ChangeKind.DENSE)
    table = count_kinds([case], "judged")
    assert table["low rank"]["models, judged"].startswith("0/1, 0 %")
    assert table["**all**"]["layers, judged"].startswith("1/2, 50 %")
    overlap, limit = find_kinship(case)
    assert overlap == pytest.approx(0.7) and limit == pytest.approx(0.3)


def test_the_command_lists_its_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        kinds_of_change.main(["--help"])
    assert "--design" in capsys.readouterr().out
