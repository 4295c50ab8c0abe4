"""Norms and products of whole layers are those of double precision, to 1e-7."""

import pytest
import torch

from wwopt.spectra.inner_products import frobenius_norm, inner_product

SHAPES = [(3, 5), (1024,), (7, 33, 31), (1500, 1400)]


def draw(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.02 * torch.randn(shape, generator=generator) + 0.01).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_as_in_double_precision(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    a, b = draw(shape, dtype), draw(shape, dtype, seed=1)
    exact = float(torch.linalg.vector_norm(a.double()))
    assert frobenius_norm(a) == pytest.approx(exact, rel=1e-7)
    assert frobenius_norm(a.mT if a.ndim > 1 else a) == pytest.approx(exact, rel=1e-7)
    bound = 1e-7 * exact * float(torch.linalg.vector_norm(b.double()))
    exact = float((a.double() * b.double()).sum())
    assert inner_product(a, b) == pytest.approx(exact, abs=bound)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e18, 1e30])
def test_what_squares_leave_the_range_of_float32_is_counted_all_the_same(size: float) -> None:
    a, b = size * draw((64, 64)), draw((64, 64), seed=1)
    exact = float(torch.linalg.vector_norm(a.double()))
    assert frobenius_norm(a) == pytest.approx(exact, rel=1e-7)
    assert inner_product(a, b) == pytest.approx(float((a.double() * b.double()).sum()), rel=1e-4)


def test_zero_is_zero_and_what_is_not_finite_is_not() -> None:
    zeros = torch.zeros(2000)
    assert frobenius_norm(zeros) == 0.0 and inner_product(zeros, zeros) == 0.0
    assert frobenius_norm(torch.tensor([1.0, torch.inf])) == torch.inf
    assert frobenius_norm(torch.tensor([1.0, torch.nan])) != frobenius_norm(torch.ones(2))
