"""Norms and ranks: by hand, against numpy, and where plain arithmetic overflows."""

import math

import numpy as np
import pytest

from wwopt.spectra.norms import compute_norms


def test_four_eigenvalues_by_hand() -> None:
    norms = compute_norms(np.array([1.0, 2.0, 3.0, 10.0]), N=5, alpha=2.0)
    assert norms.norm == 16.0 and norms.spectral_norm == 10.0
    assert norms.stable_rank == pytest.approx(1.6)
    assert norms.alpha_weighted == pytest.approx(2.0)  # 2 · log10(10)
    assert norms.log_alpha_norm == pytest.approx(math.log10(1 + 4 + 9 + 100))
    p = np.array([1, 2, 3, 10]) / 16
    assert norms.entropy == pytest.approx(-(p * np.log(p)).sum() / math.log(4))
    # rescaled to mean 1: 2.5, .75, .5, .25; products 2.5, 1.875, .9375
    assert norms.detX_num == 3


@pytest.mark.parametrize("rank", [1, 7, 40])
def test_the_rank_is_that_of_the_matrix_not_of_its_rounding(rank: int) -> None:
    rng = np.random.default_rng(0)
    W = rng.normal(size=(150, rank)) @ rng.normal(size=(rank, 100))
    eigenvalues = np.clip(np.linalg.eigvalsh(W.T @ W), 0.0, None)
    norms = compute_norms(eigenvalues, N=150, alpha=math.nan)
    assert norms.matrix_rank == rank == np.linalg.matrix_rank(W)
    assert norms.rank_loss == 100 - rank


def test_large_alphas_and_eigenvalues_do_not_overflow() -> None:
    eigenvalues = np.geomspace(1e-3, 1e12, 300)
    norms = compute_norms(eigenvalues, N=300, alpha=60.0)
    ratio = eigenvalues[1] / eigenvalues[0]
    geometric = 60.0 * 12.0 - math.log10(1.0 - ratio**-60.0)  # Σ of a geometric series
    assert norms.log_alpha_norm == pytest.approx(geometric, rel=1e-12)


def test_detx_neither_over_nor_underflows_on_4096_eigenvalues() -> None:
    rng = np.random.default_rng(1)
    eigenvalues = np.sort(rng.pareto(1.5, size=4096) + 1e-3)
    rescaled = np.sort(eigenvalues)[::-1] * (4096 / eigenvalues.sum())
    logs = [math.fsum(np.log(rescaled[:k])) for k in range(1, 4096)]
    expected = next(k for k, value in enumerate(logs, start=1) if value < 0)
    assert compute_norms(eigenvalues, N=4096, alpha=2.0).detX_num == expected


@pytest.mark.parametrize("eigenvalues", [np.full(5, 2.0), np.array([3.0])])
def test_without_spread_there_is_no_detx(eigenvalues: np.ndarray) -> None:
    assert compute_norms(eigenvalues, N=5, alpha=math.nan).detX_num == 0
