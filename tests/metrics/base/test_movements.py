"""The kind of a layer's change, and of a model's: `movements` and `movement_measures`."""

import math
from collections.abc import Callable

import pytest
import torch

from wwopt.metrics.base.movement_measures import measure_movement, measure_tensors
from wwopt.metrics.base.movements import ChangeKind, LayerMovement, name_change
from wwopt.weights.matrices import read_weights

N, M = 160, 96


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(seed: int = 0) -> torch.Tensor:
    """A layer with ten directions that training would have found."""
    return 0.05 * draw(N, M, seed=seed) + 0.02 * draw(N, 10, seed=seed + 1) @ draw(10, M, seed=seed)


def lora(rank: int = 4, size: float = 0.01) -> torch.Tensor:
    return size * draw(N, rank, seed=7) @ draw(rank, M, seed=8)


def int4(w: torch.Tensor) -> torch.Tensor:
    step = w.abs().amax(1, keepdim=True) / 7.0
    return (w / step).round() * step


def int8(w: torch.Tensor) -> torch.Tensor:
    step = w.abs().amax(1, keepdim=True) / 127.0
    return (w / step).round() * step


def measure(after: torch.Tensor, before: torch.Tensor, kind: str = "linear") -> LayerMovement:
    after, before = (x if x.ndim == 3 else x[None] for x in (after, before))
    return measure_tensors("fc", kind, after, before)


KINDS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], ChangeKind]] = {
    "nothing": (lambda w: w.clone(), ChangeKind.IDENTICAL),
    "bf16": (lambda w: w.bfloat16().float(), ChangeKind.OTHER_DTYPE),
    "fp8": (lambda w: w.to(torch.float8_e4m3fn).float(), ChangeKind.OTHER_DTYPE),
    "int4": (int4, ChangeKind.ROUNDING),
    "int8, as bf16": (lambda w: int8(w).bfloat16().float(), ChangeKind.ROUNDING),
    "pruned": (lambda w: torch.where(w.abs() > 0.05, w, 0.0), ChangeKind.ZEROED),
    "scaled": (lambda w: 0.8 * w, ChangeKind.SCALED),
    "LoRA": (lambda w: w + lora(), ChangeKind.LOW_RANK),
    "LoRA, then bf16": (lambda w: (w + lora()).bfloat16().float(), ChangeKind.LOW_RANK),
    "LoRA, then int4": (lambda w: int4(w + lora(size=0.05)), ChangeKind.LOW_RANK),
    "all weights": (lambda w: w + 0.005 * draw(N, M, seed=9), ChangeKind.DENSE),
    "a rate far too high": (lambda w: w + lora(3, 2.0) + 0.01 * draw(N, M), ChangeKind.DENSE),
    "permuted": (lambda w: w[torch.randperm(N)][:, torch.randperm(M)], ChangeKind.REARRANGED),
    "replaced": (lambda w: network(seed=40), ChangeKind.ANOTHER),
    "zero": (torch.zeros_like, ChangeKind.UNKNOWN),
    "not finite": (lambda w: w / 0.0, ChangeKind.UNKNOWN),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_layer_is_told_what_was_done_to_it(name: str) -> None:
    torch.manual_seed(0)
    edit, kind = KINDS[name]
    assert measure(edit(network()), network()).kind is kind


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"pruned", "int8, as bf16"}))
def test_a_layer_may_lie_on_its_side(name: str) -> None:
    """As in GPT-2, and as scaling both sides; groups go along the rows, so int4 is per column."""
    torch.manual_seed(0)
    edit, kind = KINDS[name]
    after, before = edit(network()).T.contiguous(), network().T.contiguous()
    assert measure(after, before).kind is kind
    assert measure(4.0 * after, 4.0 * before).kind is kind


def test_what_a_base_was_rounded_from_is_told_from_a_fine_tune_of_the_rounded_base() -> None:
    """Both stay within half of a step of its grid."""
    base = int4(network())
    back = measure(network(), base)
    assert back.kind is ChangeKind.ROUNDING and back.backwards and back.base_grid
    for size in (1e-5, 1e-3, 1e-2):  # QLoRA, merged
        assert measure(base + lora(size=size), base).kind is ChangeKind.LOW_RANK
    assert measure(base + 1e-4 * draw(N, M), base).kind is ChangeKind.DENSE


def test_the_numbers_of_a_change_between_known_directions() -> None:
    """Of a diagonal base, along its two first axes, then along two that it hardly has."""
    before = torch.diag(torch.arange(40.0, 0.0, -1.0) ** 2)
    after = before.clone()
    after[0, 1] += 30.0
    found = measure(after, before)
    assert (found.inside, found.outside) == pytest.approx((1.0, 0.0), abs=1e-9)
    assert (found.delta_rank, found.full_rank, found.directions) == (1, 1, 1)
    after = before.clone()
    after[38, 39] += 30.0
    found = measure(after, before)
    assert (found.inside, found.outside) == pytest.approx((0.0, 1.0), abs=1e-9)
    assert found.overlap == found.overlap_right == pytest.approx(1.0)
    assert found.largest_angle == pytest.approx(0.0, abs=0.1) and found.intruders == 0
    assert found.slope == pytest.approx(1.0)


def test_turned_leading_directions_have_the_angle_they_were_turned_by() -> None:
    before = torch.diag(torch.tensor([9.0, 8.0, 1.0, 0.9, 0.8, 0.7]))
    turn = torch.eye(6)
    c, s = math.cos(0.4), math.sin(0.4)
    turn[0, 0] = turn[2, 2] = c
    turn[0, 2], turn[2, 0] = -s, s
    found = measure_tensors("fc", "linear", (turn @ before)[None], before[None], top=2)
    assert found.largest_angle == pytest.approx(math.degrees(0.4), abs=1e-3)
    assert found.angle == pytest.approx(math.degrees(0.2), abs=1e-3)
    assert found.overlap == pytest.approx((c + 1.0) / 2.0, abs=1e-5)
    assert found.overlap_right == pytest.approx(1.0, abs=1e-5)


def test_a_convolution_is_one_matrix_and_experts_are_many() -> None:
    conv = {"conv.weight": 0.1 * draw(32, 24, 3, 3)}
    delta = torch.einsum("or,rikl->oikl", 0.1 * draw(32, 2, seed=3), draw(2, 24, 3, 3, seed=4))
    (before,), (after,) = (
        read_weights(w).matrices for w in (conv, {"conv.weight": conv["conv.weight"] + delta})
    )
    found = measure_movement(after, before)
    assert found.kind is ChangeKind.LOW_RANK and (found.delta_rank, found.full_rank) == (2, 32)
    experts = torch.stack([network(1), network(2), network(3)])
    tuned = experts.clone()
    tuned[1] += lora()
    found = measure(tuned, experts, kind="moe")
    assert found.kind is ChangeKind.LOW_RANK and found.delta_rank == 4
    assert found.overlap < 1.0


def test_large_layers_are_measured_by_their_leading_vectors() -> None:
    """Beyond 512 columns no whole decomposition, beyond 1,536 an estimate; the kinds stay."""
    for columns in (700, 1600):
        base = 0.02 * draw(columns + 50, columns) + 0.01 * draw(columns + 50, 12) @ draw(
            12, columns
        )
        delta = 0.002 * draw(columns + 50, 6, seed=3) @ draw(6, columns, seed=4)
        found = measure(base + delta, base)
        assert found.kind is ChangeKind.LOW_RANK and found.delta_rank == 6
        dense = measure(base + 0.001 * draw(columns + 50, columns, seed=5), base)
        assert dense.kind is ChangeKind.DENSE and dense.overlap > 0.9


def test_a_models_kind_is_that_of_most_changed_parameters() -> None:
    low, same, dense, other = (
        ChangeKind.LOW_RANK, ChangeKind.IDENTICAL, ChangeKind.DENSE, ChangeKind.ANOTHER,
    )  # fmt: skip
    change = name_change([("a", same, 900), ("q", low, 90), ("v", low, 90), ("head", dense, 10)])
    assert change.kind is low
    assert change.layers == {same: ("a",), low: ("q", "v"), dense: ("head",)}
    assert change.to_dict()["layers"]["low rank"] == ["q", "v"]
    assert name_change([("a", same, 9)]).kind is same
    assert name_change([]).kind is ChangeKind.UNKNOWN
    # A new head on a frozen body is no other network.
    assert name_change([("a", same, 900), ("head", other, 10)]).kind is dense
    assert name_change([("a", other, 900), ("b", same, 10)]).kind is other
