import pytest
import torch

from wwopt.compression import LayerPlan, dequantize, encode_layer, magnitude_mask, quantize
from wwopt.compression.compensation import quantize_compensated, stand_in
from wwopt.compression.errors import CompressionError


@pytest.fixture(scope="module")
def matrix() -> torch.Tensor:
    """Rows whose inputs are correlated, as in a trained layer."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(40, 40, generator=generator) / 6.0
    return torch.randn(30, 40, generator=generator) @ (mixing + torch.eye(40))


def output_error(before: torch.Tensor, after: torch.Tensor) -> float:
    E, H = (after - before).double(), stand_in(before).double()
    return float(((E @ H) * E).sum())


@pytest.mark.parametrize(("group", "sparsity"), [(None, 0.0), (16, 0.0), (None, 0.5)])
def test_one_column_after_another_is_the_definition_of_gptq(
    matrix: torch.Tensor, group: int | None, sparsity: float
) -> None:
    """The witness solves for the columns to come anew after each one, in double precision."""
    mask = magnitude_mask(matrix, sparsity)
    quantized = quantize_compensated(matrix, 4, group=group, mask=mask)
    scales = quantized.scales.double().repeat_interleave(group or 40, dim=1)
    H = stand_in(matrix).double()
    W, order = matrix.double().clone(), H.diagonal().argsort(descending=True, stable=True)
    codes = torch.zeros_like(W)
    for place, column in enumerate(order):
        scale = scales[:, column]
        codes[:, column] = (W[:, column] / scale).round().clamp(-7, 7) * mask[:, column]
        error = W[:, column] - codes[:, column] * scale
        later = order[place + 1 :]
        if len(later):
            shift = torch.linalg.solve(H[later][:, later], H[later, column])
            W[:, later] += error[:, None] * shift
    assert (quantized.codes == codes).float().mean() > 0.999  # ties apart


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_outputs_change_less_than_by_rounding_to_the_nearest(
    matrix: torch.Tensor, bits: int
) -> None:
    compensated = dequantize(quantize_compensated(matrix, bits))
    errors = [
        output_error(matrix, dequantize(quantize(matrix, bits, clip=clip)))
        for clip in (False, True)
    ]
    assert output_error(matrix, compensated) < 0.9 * min(errors)


def test_pruned_weights_stay_zero_and_are_made_up_for(matrix: torch.Tensor) -> None:
    mask = magnitude_mask(matrix, 0.5)
    after = dequantize(quantize_compensated(matrix, 8, mask=mask))
    assert not after[~mask].any()
    assert output_error(matrix, after) < 0.95 * output_error(matrix, matrix * mask)


@pytest.mark.parametrize("group", [None, 300])
def test_a_wide_matrix_is_rounded_in_parts(group: int | None) -> None:
    """Columns of a part make up for each other; scales are those of whole rows or groups."""
    W = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0))
    W[:, 4000:] *= 0.3
    found = quantize_compensated(W, 4, group=group, mask=magnitude_mask(W, 0.3))
    assert found.scales.shape == (3, 1 if group is None else 17)
    assert int((found.codes == 0).sum()) >= round(0.3 * W.numel())
    narrow = quantize_compensated(W[:, :1667], 4)  # the first of three parts
    same = torch.cat([W[:, :1667]] * 3, 1)
    codes = quantize_compensated(same, 4).codes
    assert all(torch.equal(part, narrow.codes) for part in codes.split(1667, 1))


def test_inputs_that_are_not_correlated_are_rounded_to_the_nearest() -> None:
    diagonal = torch.diag(torch.linspace(0.5, 2.0, 12))
    quantized = quantize_compensated(diagonal, 8)
    assert torch.allclose(dequantize(quantized), dequantize(quantize(diagonal, 8)))


@pytest.mark.parametrize("factor", [2.0**-70, 2.0**50])
def test_scale_of_the_weights_does_not_matter(matrix: torch.Tensor, factor: float) -> None:
    plain, scaled = quantize_compensated(matrix, 4), quantize_compensated(factor * matrix, 4)
    assert torch.equal(dequantize(scaled) / factor, dequantize(plain))


def test_zeros_and_single_columns_pass() -> None:
    assert not dequantize(quantize_compensated(torch.zeros(3, 5), 2)).any()
    column = torch.tensor([[1.0], [-2.0], [0.0]])
    assert torch.allclose(dequantize(quantize_compensated(column, 4)), column, atol=2e-3)


def test_a_plan_compensates_and_keeps_the_bytes(matrix: torch.Tensor) -> None:
    for options in ({}, {"group": 16}, {"sparsity": 0.5}, {"rank": 4}):
        plain = encode_layer("w", matrix, LayerPlan(bits=4, **options))
        other = encode_layer("w", matrix, LayerPlan(bits=4, compensate=True, **options))
        assert plain.bytes == other.bytes and plain.entries == other.entries
        assert not torch.equal(plain.weights, other.weights)


def test_compensation_belongs_to_rounding() -> None:
    with pytest.raises(CompressionError, match="give bits"):
        LayerPlan(compensate=True)
