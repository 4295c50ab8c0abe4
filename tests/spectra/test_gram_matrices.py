"""Gram matrices and their eigenvalues, in both precisions and in both places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wwopt.spectra.gram_matrices import gram_matrices, multiply_tall, solve_all

Array = NDArray[np.float64]


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("shape", [(300, 7), (2_000, 300), (65, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tall_matrix_meets_itself(shape: tuple[int, int], dtype: torch.dtype) -> None:
    weights = torch.from_numpy(gaussian(*shape)).float()
    expected = (weights.double().T @ weights.double()).numpy()
    tolerance = (1e-12 if dtype == torch.float64 else 1e-5) * shape[0]
    for slices in (weights[None], weights.T[None], weights.double()[None]):
        ((found,),) = gram_matrices(slices, dtype)
        assert found.dtype == (np.float32 if dtype == torch.float32 else np.float64)
        assert np.allclose(np.triu(found), np.triu(expected), rtol=0.0, atol=tolerance)
    assert np.allclose(multiply_tall(weights), expected, rtol=0.0, atol=1e-5 * shape[0])


def test_the_smaller_side_is_chosen() -> None:
    stack = torch.from_numpy(gaussian(3, 20, 30))
    (found,) = gram_matrices(stack, torch.float64)
    assert np.allclose(found, np.asarray(stack @ stack.mT))


@pytest.mark.parametrize("size", [1, 2, 3, 50, 64, 200])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_all_eigenvalues_agree_with_numpy(size: int, precision: type) -> None:
    weights = gaussian(2 * size, size).astype(precision)
    gram = weights.T @ weights
    expected = np.linalg.eigvalsh(gram.astype(np.float64))
    tolerance = (3e-6 if precision is np.float32 else 1e-13) * expected[-1]
    assert np.sort(solve_all(gram[None])) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_far_from_one_they_are_as_exact(scale: float) -> None:
    weights = gaussian(150, 100)
    gram = weights.T @ weights
    expected = np.linalg.eigvalsh(gram)
    found = np.sort(solve_all(scale * gram[None])) / scale
    assert found == pytest.approx(expected, abs=1e-12 * expected[-1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_of_a_sum_that_overflowed_are_nan(bad: float) -> None:
    gram = np.full((2, 70, 70), bad)
    assert np.isnan(solve_all(gram)).all()
    assert solve_all(gram).shape == (140,)


def test_of_tensors_are_the_same() -> None:
    # Tensors are what comes from a GPU; here they are on the CPU.
    weights = gaussian(300, 200)
    gram = weights.T @ weights
    found = np.sort(solve_all(torch.from_numpy(gram.copy())[None]))
    assert found == pytest.approx(np.sort(solve_all(gram[None])), rel=1e-9)
