"""Estimated spectra against full ones, at sizes where both are possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wwopt.metrics.analysis import analyze
from wwopt.spectra.large_layers import METHOD, estimate_spectrum, estimate_top

if TYPE_CHECKING:
    from fixtures.weights.layers import SpectrumOf

Array = NDArray[np.float64]


def trained(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Noise and a planted power law: λ with alpha 2.5 from somewhat inside the noise on."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    side = min(rows, columns)
    left, _ = torch.linalg.qr(torch.randn(rows, side, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, side, generator=generator, dtype=torch.float64))
    scale = ((torch.arange(side, dtype=torch.float64) + 0.5) / side) ** (-1 / 3)
    return 0.7 * noise + 0.7 * max(rows, columns) ** 0.5 * (left * scale) @ right.mT


def full_spectrum(weights: torch.Tensor) -> Array:
    return np.sort(np.linalg.svd(weights.numpy(), compute_uv=False) ** 2)


class TestSpectrum:
    @pytest.mark.parametrize("shape", [(600, 600), (900, 400), (400, 900)])
    def test_is_exact_at_the_top_and_close_below(self, shape: tuple[int, int]) -> None:
        weights = trained(*shape)
        found, full = estimate_spectrum(weights), full_spectrum(weights)
        assert found.shape == full.shape
        assert (np.diff(found) >= 0).all()
        assert found[-4:] == pytest.approx(full[-4:], rel=1e-6)
        assert found.sum() == pytest.approx(full.sum(), rel=1e-9)
        # Kolmogorov-Smirnov distance of two samples.
        below = np.searchsorted(found, full, side="right") / full.size
        assert np.abs(below - np.arange(1, full.size + 1) / full.size).max() < 0.04

    def test_of_a_whole_space_is_the_full_one(self) -> None:
        weights = trained(200, 160)
        found = estimate_spectrum(weights, space=160, dtype=torch.float64)
        assert found == pytest.approx(full_spectrum(weights), rel=1e-8)

    @pytest.mark.parametrize("rank", [0, 1, 7])
    @pytest.mark.parametrize(
        ("dtype", "error"), [(torch.float64, 1e-8), (torch.float32, 2e-6)], ids=str
    )
    def test_of_low_rank_ends_in_zeros(self, rank: int, dtype: torch.dtype, error: float) -> None:
        generator = torch.Generator().manual_seed(0)
        left = torch.randn(200, rank, generator=generator, dtype=torch.float64)
        weights = left @ torch.randn(rank, 120, generator=generator, dtype=torch.float64)
        found, full = estimate_spectrum(weights, dtype=dtype), full_spectrum(weights)
        assert found[-7:] == pytest.approx(full[-7:], abs=error * max(full[-1], 1.0))
        assert found.sum() == pytest.approx(full.sum(), rel=error)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_of_weights_whose_squares_float32_cannot_hold(self, scale: float) -> None:
        weights = trained(300, 200).float()
        expected = estimate_spectrum(weights)
        found = estimate_spectrum(scale * weights) / scale**2
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6 * expected[-1])

    def test_in_float32_is_that_in_float64(self) -> None:
        weights = trained(600, 400)
        found, exact = (estimate_spectrum(weights, dtype=d) for d in (torch.float32, torch.float64))
        assert found == pytest.approx(exact, rel=1e-3)
        assert found[-10:] == pytest.approx(exact[-10:], rel=1e-6)

    def test_does_not_depend_on_the_global_generator(self) -> None:
        weights = trained(150, 120)
        first = estimate_spectrum(weights)
        torch.manual_seed(1)
        assert np.array_equal(first, estimate_spectrum(weights))

    @pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
    def test_top_agrees_with_the_full_one(self, shape: tuple[int, int]) -> None:
        weights = trained(*shape)
        found = estimate_top(weights.float(), 8, tolerance=1e-3)
        assert found == pytest.approx(full_spectrum(weights)[::-1][:8], rel=1e-4)

    def test_top_of_equal_eigenvalues_is_found(self) -> None:
        assert estimate_top(torch.eye(200), 3, tolerance=1e-4) == pytest.approx(
            np.ones(3), rel=1e-4
        )


class TestLayers:
    @pytest.mark.parametrize("shape", [(1024, 700), (768, 768)])
    def test_metrics_are_close_to_the_exact_ones(self, shape: tuple[int, int]) -> None:
        state = {"fc.weight": trained(*shape).float()}
        exact, found = analyze(state)["fc"], analyze(state, max_size=512)["fc"]
        assert (exact.method, found.method) == ("exact", METHOD)
        assert found.alpha == pytest.approx(exact.alpha, abs=2 * exact.sigma)
        assert found.hill == pytest.approx(exact.hill, rel=0.03)
        assert found.spectral_norm == pytest.approx(exact.spectral_norm, rel=1e-6)
        assert found.stable_rank == pytest.approx(exact.stable_rank, rel=1e-4)
        assert found.entropy == pytest.approx(exact.entropy, abs=0.005)
        assert found.kurtosis == pytest.approx(exact.kurtosis, rel=1e-12)
        assert found.num_traps == exact.num_traps
        # The first shuffle is the same one; of the further ones only the law is.
        tops = [m.spectrum.shuffled_tops for m in (exact, found) if m.spectrum is not None]
        assert tops[1][0, 0] == pytest.approx(tops[0][0, 0], rel=1e-5)

    def test_the_method_is_named_in_the_table(self) -> None:
        state = {"small": trained(90, 60), "large": trained(150, 100)}
        frame = analyze(state, max_size=64).to_frame().set_index("longname")
        assert frame["method"].to_dict() == {"small": "exact", "large": METHOD}

    def test_slices_are_estimated_one_by_one(self, spectrum_of: SpectrumOf) -> None:
        stack = torch.stack([trained(200, 160, seed=seed) for seed in range(2)])
        exact, found = spectrum_of(stack), spectrum_of(stack, max_size=100)
        assert found.eigenvalues.shape == exact.eigenvalues.shape
        assert found.eigenvalues[-3:] == pytest.approx(exact.eigenvalues[-3:], rel=1e-3)
        assert found.shuffled_eigenvalues is None

    def test_not_finite_weights_are_said_to_be_that(self) -> None:
        weights = trained(150, 100)
        weights[3, 4] = np.nan
        assert analyze({"fc": weights}, max_size=64)["fc"].status == "not finite"
