"""AlphaQ's allocation against trying all, and by closed forms."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wwopt.compression.bit_allocation import allot_bits
from wwopt.compression.errors import CompressionError

LAYER = st.tuples(st.floats(1.5, 9.0), st.floats(1e-5, 1e-1), st.integers(10, 5000))


@given(
    st.lists(LAYER, min_size=1, max_size=4),
    st.sampled_from([2.0, 2.7, 3.5, 4.0, 6.1]),
    st.sampled_from([0.0, 1.0, 3.0]),
)
def test_no_other_allocation_within_the_budget_is_better(
    layers: list[tuple[float, float, int]], budget: float, gamma: float
) -> None:
    alphas, variances, sizes = (
        {str(i): layer[k] for i, layer in enumerate(layers)} for k in range(3)
    )
    choices = (2, 3, 4, 8)

    def cost(bits: tuple[int, ...]) -> float:
        middle = float(np.median(list(alphas.values())))
        return sum(
            (middle / alpha) ** gamma * variance * 2.0 ** (-2 * b)
            for b, (alpha, variance, _) in zip(bits, layers, strict=True)
        )

    def fits(bits: tuple[int, ...]) -> bool:
        spent = sum(b * size for b, (*_, size) in zip(bits, layers, strict=True))
        return spent <= budget * sum(sizes.values()) * (1 + 1e-12)

    best = min(cost(bits) for bits in product(choices, repeat=len(layers)) if fits(bits))
    found = allot_bits(alphas, variances, sizes, budget, gamma=gamma, choices=choices)
    chosen = tuple(found.values())
    assert fits(chosen) and cost(chosen) == pytest.approx(best, rel=1e-6)


def test_a_heavy_tail_gets_more_bits_and_gamma_zero_looks_at_the_variance_alone() -> None:
    same = dict.fromkeys("abc", 0.01)
    sizes = dict.fromkeys("abc", 100)
    alphas = {"a": 2.0, "b": 4.0, "c": 8.0}
    found = allot_bits(alphas, same, sizes, 4, gamma=3.0)
    assert found["a"] > found["b"] > found["c"]
    assert set(allot_bits(alphas, same, sizes, 4, gamma=0.0).values()) == {4}
    variances = {"a": 0.01, "b": 0.04, "c": 0.16}  # one bit for each factor of 4: water-filling
    assert allot_bits(alphas, variances, sizes, 4, gamma=0.0) == {"a": 3, "b": 4, "c": 5}


def test_a_layer_without_alpha_counts_as_the_median() -> None:
    same, sizes = dict.fromkeys("abc", 0.01), dict.fromkeys("abc", 100)
    given_, missing = (
        allot_bits({"a": 2.0, "b": b, "c": 8.0}, same, sizes, 4, gamma=3.0) for b in (5.0, np.nan)
    )
    assert given_ == missing
    assert allot_bits(dict.fromkeys("abc", np.nan), same, sizes, 3) == dict.fromkeys("abc", 3)


def test_a_hundred_layers_keep_the_budget() -> None:
    draws = np.random.default_rng(0)
    names = [str(i) for i in range(100)]
    alphas = dict(zip(names, draws.uniform(1.5, 8, 100), strict=True))
    variances = dict(zip(names, draws.uniform(1e-4, 1e-2, 100), strict=True))
    sizes = dict(zip(names, map(int, draws.integers(100, 10**6, 100)), strict=True))
    found = allot_bits(alphas, variances, sizes, 3.5)
    spent = sum(found[name] * sizes[name] for name in names) / sum(sizes.values())
    assert 3.45 < spent <= 3.5 and len(set(found.values())) > 2


def test_says_what_cannot_be_met() -> None:
    with pytest.raises(CompressionError, match=r"a mean of 1\.5 bits is below the least choice, 2"):
        allot_bits({"a": 2.0}, {"a": 0.1}, {"a": 10}, 1.5)
    with pytest.raises(CompressionError, match="alpha, variance and size"):
        allot_bits({"a": 2.0}, {"b": 0.1}, {"a": 10}, 4)
