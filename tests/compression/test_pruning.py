"""Masks against sorting by hand; AlphaPruning's map against its definition."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wwopt.compression.errors import CompressionError
from wwopt.compression.pruning import allot_sparsity, magnitude_mask

LAYERS = st.lists(st.tuples(st.floats(1.5, 12.0), st.integers(1, 10_000)), min_size=1, max_size=8)


@given(st.integers(1, 300), st.floats(0.0, 0.999), st.integers(0, 9), st.booleans())
def test_exactly_the_smallest_go(size: int, sparsity: float, seed: int, coarse: bool) -> None:
    W = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    W = W.round() if coarse else W  # many equal ones
    mask = magnitude_mask(W, sparsity)
    assert int((~mask).sum()) == round(sparsity * size)
    if mask.any() and not mask.all():
        assert W[~mask].abs().max() <= W[mask].abs().min()
    order = W.abs().argsort(stable=True)  # of equals the earlier go
    assert set((~mask).nonzero()[:, 0].tolist()) == set(order[: int((~mask).sum())].tolist())


def test_a_mask_has_the_shape_of_the_weights() -> None:
    assert magnitude_mask(torch.tensor([[3.0, -1.0], [2.0, -4.0]]), 0.5).tolist() == [
        [True, False],
        [False, True],
    ]


@given(LAYERS, st.floats(0.0, 0.99), st.floats(0.0, 0.9))
def test_the_mean_over_the_weights_is_the_target(
    layers: list[tuple[float, int]], target: float, epsilon: float
) -> None:
    alphas = {str(i): alpha for i, (alpha, _) in enumerate(layers)}
    sizes = {str(i): size for i, (_, size) in enumerate(layers)}
    found = allot_sparsity(alphas, sizes, target, epsilon=epsilon)
    pruned = sum(found[name] * sizes[name] for name in sizes)
    assert pruned == pytest.approx(target * sum(sizes.values()), abs=1e-9 * sum(sizes.values()))
    assert all(-1e-12 <= share <= 0.99 + 1e-12 for share in found.values())
    ordered = sorted(alphas, key=lambda name: alphas[name])
    assert all(found[a] <= found[b] + 1e-12 for a, b in pairwise(ordered))


def test_the_map_is_the_papers() -> None:
    alphas = {"light": 6.0, "middle": 4.0, "heavy": 2.0}
    found = allot_sparsity(alphas, dict.fromkeys(alphas, 100), 0.5, epsilon=0.3)
    assert list(found.values()) == pytest.approx([0.65, 0.5, 0.35])


def test_larger_layers_weigh_more() -> None:
    found = allot_sparsity({"a": 2.0, "b": 6.0}, {"a": 900, "b": 100}, 0.5, epsilon=0.3)
    assert found["b"] / found["a"] == pytest.approx(1.3 / 0.7)
    assert 0.9 * found["a"] + 0.1 * found["b"] == pytest.approx(0.5)


def test_a_layer_without_alpha_counts_as_the_median_and_none_gives_uniform() -> None:
    sizes = dict.fromkeys("abc", 10)
    found = allot_sparsity({"a": 2.0, "b": np.nan, "c": 6.0}, sizes, 0.5)
    assert found["a"] < found["b"] < found["c"]
    assert set(allot_sparsity(dict.fromkeys("abc", np.nan), sizes, 0.5).values()) == {0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 1.0}, "sparsity must be from 0 to 0.99, got 1"),
        ({"target": -0.1}, "got -0.1"),
        ({"target": float("nan")}, "got nan"),
        ({"target": 0.5, "epsilon": 1.0}, "epsilon must be from 0 to below 1, got 1"),
    ],
)
def test_says_what_is_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        allot_sparsity({"a": 2.0}, {"a": 10}, **options)


def test_a_mask_refuses_a_sparsity_out_of_range() -> None:
    with pytest.raises(CompressionError, match="from 0 to below 1, got 1"):
        magnitude_mask(torch.ones(3), 1.0)
