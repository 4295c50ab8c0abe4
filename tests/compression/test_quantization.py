"""Rounding: how far off it may be, what it keeps, and torch's own rounding as outside witness."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wwopt.compression.errors import CompressionError
from wwopt.compression.quantization import BITS, dequantize, quantize, top_code

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 40))


def draw(shape: tuple[int, int], seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(
    SHAPES,
    st.integers(0, 99),
    st.sampled_from(BITS),
    st.one_of(st.none(), st.integers(1, 48)),
    st.sampled_from([1e-30, 1e-6, 1.0, 1e8]),
)
def test_no_weight_moves_by_more_than_half_a_step(
    shape: tuple[int, int], seed: int, bits: int, group: int | None, scale: float
) -> None:
    W = draw(shape, seed, scale)
    found = quantize(W, bits, group=group)
    width = shape[1] if group is None else group
    steps = (found.scales.double() * found.unit).repeat_interleave(width, 1)[:, : shape[1]]
    assert found.codes.abs().max() <= found.top
    errors = (dequantize(found).double() - W.double()).abs()
    assert bool((errors <= 0.5 * steps * (1 + 1e-5)).all())
    # Scales are no coarser than half floats of the largest weight make them.
    largest = W.double().abs().max() / top_code(bits)
    assert float(steps.max()) <= float(largest) * 1.002


@given(SHAPES, st.integers(0, 99), st.sampled_from(BITS), st.one_of(st.none(), st.just(8)))
def test_what_was_rounded_once_is_not_moved_again(
    shape: tuple[int, int], seed: int, bits: int, group: int | None
) -> None:
    once = dequantize(quantize(draw(shape, seed), bits, group=group))
    torch.testing.assert_close(dequantize(quantize(once, bits, group=group)), once)


def test_by_hand() -> None:
    found = quantize(torch.tensor([[7.0, -3.4, 0.0, 0.4], [0.0, 0.0, 0.0, 0.0]]), 4)
    assert found.codes.tolist() == [[7, -3, 0, 0], [0, 0, 0, 0]]
    assert found.scales.tolist() == [[1.0], [0.0]]


@pytest.mark.parametrize("bits", BITS)
def test_the_values_are_those_of_torch(bits: int) -> None:
    W = draw((16, 64), 3)
    found = quantize(W, bits)
    scales, top = found.scales.float()[:, 0] * found.unit, top_code(bits)
    theirs = torch.fake_quantize_per_channel_affine(W, scales, torch.zeros(16), 0, -top, top)
    torch.testing.assert_close(dequantize(found), theirs)


def test_each_group_has_the_scale_of_its_own_largest_weight() -> None:
    W = torch.ones(2, 10)
    W[:, 8:] = 100.0
    assert quantize(W, 8, group=4).scales.shape == (2, 3)
    torch.testing.assert_close(dequantize(quantize(W, 2, group=4)), W)


@pytest.mark.parametrize(("bits", "share"), [(2, 0.4), (3, 0.8), (4, 0.95)])
def test_clipping_leaves_less_squared_error(bits: int, share: float) -> None:
    W = draw((64, 128), 0)
    plain, clipped = (
        float((dequantize(quantize(W, bits, clip=clip)) - W).square().sum())
        for clip in (False, True)
    )
    assert clipped < share * plain


@pytest.mark.parametrize(
    ("bits", "group", "message"),
    [(1, None, "bits must be 2 to 8, got 1"), (9, None, "got 9"), (4, 0, "at least one column")],
)
def test_says_what_it_cannot_round_to(bits: int, group: int | None, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        quantize(torch.ones(2, 2), bits, group=group)


def test_refuses_weights_that_are_not_finite() -> None:
    with pytest.raises(CompressionError, match="not finite"):
        quantize(torch.tensor([[1.0, torch.nan]]), 8)
