"""Lanczos' method against LAPACK."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import linalg

from wwopt.spectra.lanczos import top_eigenvalues
from wwopt.spectra.marchenko_pastur import trap_z

Array = NDArray[np.float64]
TOLERANCE = 0.05  # of eigenvalues of some hundreds


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


class TestTop:
    @pytest.mark.parametrize(
        "shape", [(1, 1), (5, 2), (200, 128), (129, 129), (300, 200), (800, 400)]
    )
    def test_of_the_top_agree_with_all(self, shape: tuple[int, int]) -> None:
        weights = gaussian(*shape).astype(np.float32)
        gram = weights.T @ weights
        expected = np.linalg.eigvalsh(gram.astype(np.float64))[::-1][:8]
        found = top_eigenvalues(gram, 8, tolerance=TOLERANCE)
        N, M = shape
        scale = abs(trap_z(0.0, N, M, 1.0) - trap_z(1.0, N, M, 1.0)) if N > 1 else 1.0
        error = np.abs(found - expected) * scale
        assert error[0] < 1e-3
        assert error.max() < 2e-2

    @pytest.mark.parametrize("shape", [(160, 140), (400, 300), (6000, 150)])
    def test_of_random_matrices_is_found_to_the_tolerance(self, shape: tuple[int, int]) -> None:
        # A space that has not met the largest eigenvalue takes its neighbour for it: an error of
        # one or two units, in 1 % of draws where the neighbour need not stand still too; at a
        # tolerance of .01 it still happens to draw 47 of the last shape.
        N, M = shape
        unit = 1.0 / (trap_z(1.0, N, M, 1.0) - trap_z(0.0, N, M, 1.0))
        level = (3.0 - trap_z(0.0, N, M, 1.0)) * unit
        for seed in range(60):
            weights = gaussian(*shape, seed=seed).astype(np.float32)
            gram = weights.T @ weights
            found = top_eigenvalues(gram, 8, tolerance=0.001 * unit, level=level)
            expected = linalg.eigvalsh(gram, subset_by_index=[M - 1, M - 1])[0]
            assert (expected - found[0]) / unit < 0.02

    def test_below_the_level_is_a_lower_bound(self) -> None:
        weights = gaussian(300, 200).astype(np.float32)
        weights[0, 0] = 80.0
        gram = weights.T @ weights
        expected = np.linalg.eigvalsh(gram.astype(np.float64))[::-1][:8]
        found = top_eigenvalues(gram, 8, tolerance=0.1, level=2_000.0)
        assert found[0] == pytest.approx(expected[0], abs=0.1)
        assert (found[1:] < expected[1:] + 0.1).all()

    def test_of_outliers_are_all_found(self) -> None:
        weights = gaussian(300, 200)
        weights[np.arange(5), np.arange(5)] = 60.0  # nearly equal
        gram = (weights.T @ weights).astype(np.float32)
        expected = np.linalg.eigvalsh(gram.astype(np.float64))[::-1][:8]
        assert top_eigenvalues(gram, 8, tolerance=TOLERANCE) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(
        "gram",
        [np.zeros((200, 200)), np.eye(200), np.diag([9.0] * 12 + [1.0] * 188), np.ones((200, 200))],
        ids=["zero", "identity", "twelve equal", "rank one"],
    )
    def test_that_are_equal_are_counted(self, gram: Array) -> None:
        expected = np.linalg.eigvalsh(gram)[::-1][:8]
        found = top_eigenvalues(gram.astype(np.float32), 8, tolerance=TOLERANCE)
        assert found == pytest.approx(expected, abs=1e-4)

    def test_of_tensors_are_the_same(self) -> None:
        # Tensors are what comes from a GPU; here they are on the CPU.
        weights = gaussian(300, 200).astype(np.float32)
        gram = weights.T @ weights
        found = top_eigenvalues(torch.from_numpy(gram), 8, tolerance=TOLERANCE)
        expected = top_eigenvalues(gram, 8, tolerance=TOLERANCE)
        assert found == pytest.approx(expected, rel=1e-5)
