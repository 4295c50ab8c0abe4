"""Quick estimates against full spectra: `large_layers`, `spectrum`, and what metrics make of it."""

import numpy as np
import pytest
import torch

from wwopt import analyze, check
from wwopt.gate.text import format_check
from wwopt.metrics.text import describe
from wwopt.selection import rank
from wwopt.spectra.large_layers import QUICK_METHOD, estimate_quickly
from wwopt.spectra.power_law import averaged_hill
from wwopt.spectra.spectrum import EXACT, QUICK_SIDE

SIDE = QUICK_SIDE  # the smallest that is estimated


def draw(seed: int, *, strength: float = 0.0, side: int = SIDE) -> torch.Tensor:
    """Noise, and a power law in a sixteenth of the directions."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(side, side, generator=generator)
    rank = side // 16
    left = torch.randn(side, rank, generator=generator) / side**0.5
    right = torch.randn(rank, side, generator=generator)
    scale = ((torch.arange(rank) + 1.0) / rank) ** -0.4
    return noise + strength * (left * scale) @ right


@pytest.mark.parametrize("strength", [0.0, 2.0])
def test_a_quick_estimate_has_the_top_the_sum_and_the_hill_estimate(strength: float) -> None:
    weights = draw(0, strength=strength, side=1024)
    full = np.sort(np.linalg.svd(weights.double().numpy(), compute_uv=False) ** 2)
    found = estimate_quickly(weights)
    assert found.shape == full.shape and (np.diff(found) >= 0.0).all()
    assert found.sum() == pytest.approx(full.sum(), rel=1e-4)
    assert found[-1] == pytest.approx(full[-1], rel=0.01 if strength == 0.0 else 1e-5)
    # Three deviations of what benchmarks/error_quick.py finds on trained layers.
    assert averaged_hill(found) == pytest.approx(averaged_hill(full), abs=0.04)
    assert (found == estimate_quickly(weights)).all()


def test_only_large_layers_are_estimated_and_only_doubtful_ones_shuffled() -> None:
    entries = draw(1)
    huge = entries.clone()
    huge[3, 5] = 3.0 * SIDE**0.5  # a trap
    layers = {"plain": entries, "huge": huge, "below": draw(2)[:, : SIDE - 1].clone()}
    source = {f"{name}.weight": weights for name, weights in layers.items()}
    found = {layer.name: layer for layer in analyze(source, quick=True, shuffles=2).layers}
    assert {n: x.method for n, x in found.items()} == {
        "plain": QUICK_METHOD,
        "huge": QUICK_METHOD,
        "below": EXACT,
    }
    assert {name: layer.num_traps for name, layer in found.items()} == {
        "plain": 0,
        "huge": 1,
        "below": 0,
    }
    tops = {name: layer.spectrum.shuffled_tops for name, layer in found.items() if layer.spectrum}
    shapes = {name: np.shape(top) for name, top in tops.items()}
    assert shapes == {"plain": (1, 1), "huge": (1, 8), "below": (2, 8)}


def test_what_was_estimated_is_said_everywhere_and_alpha_is_less_certain() -> None:
    source = {"layer.weight": draw(3, strength=2.0)}
    quick, full = analyze(source, quick=True), analyze(source)
    assert quick.layers[0].sigma > 1.2 * full.layers[0].sigma
    assert abs(quick.layers[0].alpha - full.layers[0].alpha) < 2.0 * quick.layers[0].sigma
    words = f"1 of 1 layers estimated ({QUICK_METHOD})"
    assert words in describe(quick) and "estimated" not in describe(full)
    damaged = {"layer.weight": 8.0 * source["layer.weight"]}
    result = check(source, damaged, quick=True)
    assert not result.passed and words in format_check(result)
    ranking = rank({"a": source, "b": damaged}, quick=True)
    assert all(words in candidate.warnings for candidate in ranking)


def test_what_is_not_finite_is_told_and_not_estimated() -> None:
    weights = draw(4)
    weights[0, 0] = torch.nan
    found = analyze({"layer.weight": weights}, quick=True).layers[0]
    assert found.status == "not finite" and found.method == QUICK_METHOD
