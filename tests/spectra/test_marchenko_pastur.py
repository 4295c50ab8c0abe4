"""The law against numerical integration, edges and Tracy-Widom against seeded random matrices."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, optimize
from sklearn.neighbors import KernelDensity

from wwopt.spectra.marchenko_pastur import (
    fit_bulk,
    marchenko_pastur_quantiles,
    random_hill,
    signal_to_bulk,
    trap_z,
)
from wwopt.spectra.power_law import averaged_hill

Array = NDArray[np.float64]


def analytic_cdf(value: float, Q: float) -> float:
    """Integral of √((λ₊-λ)(λ-λ₋)) Q/(2πλ) from λ₋; λ = λ₋ + t² takes the root out of the edge."""
    low, high = (1 - Q**-0.5) ** 2, (1 + Q**-0.5) ** 2

    def integrand(t: float) -> float:
        x = low + t * t
        return 2 * t * math.sqrt(max((high - x) * (x - low), 0.0)) * Q / (2 * math.pi * x)

    return integrate.quad(integrand, 0.0, math.sqrt(value - low), epsabs=1e-12, limit=200)[0]


def gaussian_eigenvalues(N: int, M: int, *, count: int = 1, seed: int = 0) -> Array:
    """Eigenvalues of `count` Gaussian matrices, shape (count, M), ascending."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(count, N, M, generator=generator, dtype=torch.float64)
    eigenvalues: Array = torch.linalg.eigvalsh(weights.mT @ weights).numpy()
    return eigenvalues


class TestQuantiles:
    @pytest.mark.parametrize("Q", [1.0, 1.001, 1.1, 1.5, 4.0, 50.0, 1000.0])
    def test_agree_with_the_integrated_density(self, Q: float) -> None:
        quantiles = marchenko_pastur_quantiles(Q, 9)
        probabilities = [analytic_cdf(value, Q) for value in quantiles]
        assert probabilities == pytest.approx((np.arange(9) + 0.5) / 9, abs=1e-7)

    @pytest.mark.parametrize("Q", [1.0, 1.5, 4.0, 50.0])
    def test_have_the_moments_of_the_law(self, Q: float) -> None:
        values, ratio = marchenko_pastur_quantiles(Q, 4000), 1 / Q
        assert values.mean() == pytest.approx(1.0, abs=1e-5)
        assert (values**2).mean() == pytest.approx(1.0 + ratio, abs=1e-4)
        assert (values**3).mean() == pytest.approx(1.0 + 3.0 * ratio + ratio**2, abs=1e-3)

    @pytest.mark.parametrize("Q", [1.0, 1.5, 4.0, 50.0])
    def test_fill_the_bulk_from_edge_to_edge(self, Q: float) -> None:
        values = marchenko_pastur_quantiles(Q, 100_000)
        low, high = (1 - Q**-0.5) ** 2, (1 + Q**-0.5) ** 2
        assert (np.diff(values) > 0).all()
        assert low < values[0] < low + 1e-3
        assert high - 3e-3 < values[-1] < high

    def test_agree_with_the_eigenvalues_of_a_gaussian_matrix(self) -> None:
        eigenvalues = gaussian_eigenvalues(1200, 600)[0] / 1200
        # Eigenvalues are rigid: they stray from their quantiles by about 1/M, more at the edges.
        strays = np.abs(eigenvalues - marchenko_pastur_quantiles(2.0, 600))
        assert strays.mean() < 0.005
        assert strays.max() < 0.06


class TestTrapZ:
    def test_centre_and_scale_by_hand(self) -> None:
        # N = 101, M = 25: μ = (10 + 5)², s = 15 (1/10 + 1/5)^(1/3).
        scale = 15.0 * 0.3 ** (1.0 / 3.0)
        assert trap_z(225.0, 101, 25, 1.0) == pytest.approx(0.0, abs=1e-12)
        assert trap_z(0.7 * (225.0 + 2.5 * scale), 101, 25, 0.7) == pytest.approx(2.5)

    def test_one_by_one_matrices_do_not_divide_by_zero(self) -> None:
        assert math.isfinite(trap_z(2.0, 1, 1, 1.0))

    def test_is_tracy_widom_distributed_for_gaussian_matrices(self) -> None:
        tops = gaussian_eigenvalues(100, 50, count=2000)[:, -1]
        scores = np.array([trap_z(top, 100, 50, 1.0) for top in tops])
        # Three standard errors of a frequency over 2,000 draws: .015 at 5 %, .007 at 1 %.
        assert (scores > 0.98).mean() == pytest.approx(0.05, abs=0.015)
        assert (scores > 2.02).mean() == pytest.approx(0.01, abs=0.007)
        assert scores.mean() == pytest.approx(-1.2065, abs=0.1)  # of the law, β = 1
        assert scores.std() == pytest.approx(1.268, abs=0.1)

    def test_dividing_by_the_sample_variance_does_not_raise_false_alarms(self) -> None:
        # The largest eigenvalue is part of the variance it is divided by: slightly conservative.
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(2000, 100, 50, generator=generator, dtype=torch.float64)
        tops = torch.linalg.eigvalsh(weights.mT @ weights)[:, -1].tolist()
        variances = weights.flatten(1).var(dim=1).tolist()
        scores = [trap_z(t, 100, 50, v) for t, v in zip(tops, variances, strict=True)]
        assert np.mean(np.array(scores) > 0.98) <= 0.05
        assert np.mean(np.array(scores) > 2.02) <= 0.01
        assert max(scores) < 4.0


class TestRandomHill:
    @pytest.mark.parametrize(
        ("N", "M", "num_slices"),
        [
            (64, 64, 1),
            (100, 100, 1),
            (300, 100, 1),
            (512, 256, 1),
            (784, 512, 1),
            (2048, 128, 1),
            (64, 32, 9),
            (64, 64, 9),
            (32, 32, 4),
            (64, 3, 49),
            (32, 1, 400),
            (200, 8, 9),
        ],
    )
    def test_is_the_averaged_hill_of_gaussian_matrices(
        self, N: int, M: int, num_slices: int
    ) -> None:
        draws = [gaussian_eigenvalues(N, M, count=num_slices, seed=s).ravel() for s in range(10)]
        tails = [math.log(averaged_hill(draw) - 1.0) for draw in draws]
        reference = math.log(random_hill(N, M, num_slices) - 1.0)
        # In units of the objective's tail term, where training is worth .5 and more.
        assert np.mean(tails) == pytest.approx(reference, abs=0.04)

    def test_grows_with_the_aspect_ratio(self) -> None:
        hills = [random_hill(N, 128) for N in (128, 256, 512, 2048)]
        assert hills == sorted(hills)

    def test_is_nan_where_there_are_too_few_eigenvalues(self) -> None:
        assert math.isnan(random_hill(100, 16))
        assert math.isfinite(random_hill(100, 17))
        assert math.isfinite(random_hill(100, 6, 9))


def naive_bulk(eigenvalues: Array, N: int, M: int) -> tuple[float, float]:
    """WeightWatcher's σ and mp_softrank with its kernel density and its brute-force search."""
    Q, n = N / M, len(eigenvalues)
    rescaled = eigenvalues * n / eigenvalues.sum()
    x = np.linspace(0, rescaled.max() + 0.5, 1000)
    kde = KernelDensity(kernel="linear", bandwidth=0.1).fit(rescaled[:, None])
    y = np.exp(kde.score_samples(x[:, None]))
    x, y = x[y > 0.01], y[y > 0.01]
    sigma_at_top = math.sqrt(rescaled.max()) / (1 + Q**-0.5)

    def residual(parameters: Array) -> float:
        sigma = float(np.ravel(parameters)[0])
        low, high = (sigma * (1 - Q**-0.5)) ** 2, (sigma * (1 + Q**-0.5)) ** 2
        peak = x[y.argmax()]
        if not (low <= peak <= high <= x[-1]):
            return 1000.0**2 * len(x)
        total = 0.0
        for at, density in zip(x, y, strict=True):
            law = 0.0
            if low < at < high:
                law = math.sqrt((high - at) * (at - low)) * Q / (2 * math.pi * sigma**2 * at)
            total += (law - density) ** 2
        return total

    grid = (slice(0.05 * sigma_at_top, 2.0 * sigma_at_top, 0.01 * sigma_at_top),)
    sigma = float(optimize.brute(residual, grid)[0])
    return sigma, (sigma * (1 + Q**-0.5)) ** 2 / rescaled.max()


class TestFitBulk:
    @pytest.mark.parametrize(("N", "M"), [(300, 200), (400, 100), (3000, 300)])
    def test_finds_the_edges_of_gaussian_matrices_and_no_spikes(self, N: int, M: int) -> None:
        fit = fit_bulk(gaussian_eigenvalues(N, M)[0] * 0.25, N=N, M=M)
        assert fit is not None
        high, low = N * 0.25 * (1 + (M / N) ** 0.5) ** 2, N * 0.25 * (1 - (M / N) ** 0.5) ** 2
        assert fit.sigma_mp == pytest.approx(1.0, abs=0.05)
        assert fit.bulk_max == pytest.approx(high, rel=0.05)
        assert fit.bulk_min == pytest.approx(low, rel=0.15)
        assert fit.num_spikes == 0
        assert fit.mp_softrank == pytest.approx(1.0, abs=0.06)
        assert fit.W_scale == pytest.approx((0.25 * N) ** -0.5, rel=0.01)

    def test_counts_planted_spikes(self) -> None:
        rng = np.random.default_rng(0)
        left, _ = np.linalg.qr(rng.normal(size=(400, 5)))
        right, _ = np.linalg.qr(rng.normal(size=(150, 5)))
        strengths = 60.0 + 10.0 * np.arange(5)  # the bulk of singular values ends at 32
        weights = rng.normal(size=(400, 150)) + (left * strengths) @ right.T
        eigenvalues = np.linalg.svd(weights, compute_uv=False) ** 2
        fit = fit_bulk(eigenvalues, N=400, M=150)
        assert fit is not None
        assert fit.num_spikes == 5
        assert fit.bulk_max == pytest.approx((400**0.5 + 150**0.5) ** 2, rel=0.05)
        assert fit.mp_softrank == pytest.approx(fit.bulk_max / eigenvalues.max(), rel=1e-12)

    def test_agrees_with_a_kernel_density_and_a_brute_force_search(self) -> None:
        weights = np.random.default_rng(1).standard_t(4, size=(120, 60))
        eigenvalues = np.linalg.svd(weights, compute_uv=False) ** 2
        fit = fit_bulk(eigenvalues, N=120, M=60)
        sigma, softrank = naive_bulk(eigenvalues, 120, 60)
        assert fit is not None
        assert fit.sigma_mp == pytest.approx(sigma, rel=1e-9)
        assert fit.mp_softrank == pytest.approx(softrank, rel=1e-9)

    def test_edges_scale_with_the_eigenvalues(self) -> None:
        eigenvalues = gaussian_eigenvalues(200, 80)[0]
        fit, scaled = fit_bulk(eigenvalues, N=200, M=80), fit_bulk(64 * eigenvalues, N=200, M=80)
        assert fit is not None
        assert scaled == dataclasses.replace(
            fit, bulk_min=64 * fit.bulk_min, bulk_max=64 * fit.bulk_max, W_scale=fit.W_scale / 8
        )

    def test_square_and_zero_layers_have_no_fit(self) -> None:
        assert fit_bulk(gaussian_eigenvalues(80, 80)[0], N=80, M=80) is None
        assert fit_bulk(np.zeros(50), N=100, M=50) is None

    @pytest.mark.parametrize("strength", [1, 2, 5])
    def test_a_bulk_that_the_grid_misses_has_no_fit(self, strength: int) -> None:
        # An embedding with a large mean: the 1,000 points between 0 and λmax are a bulk apart, and
        # the search for a density among none of them once ended the whole analysis.
        N, M = 50_000, 2048
        eigenvalues = N * marchenko_pastur_quantiles(N / M, M)
        eigenvalues[-1] = strength * N * M
        assert fit_bulk(eigenvalues, N=N, M=M) is None


class TestSignalToBulk:
    @pytest.mark.parametrize(("N", "M"), [(100, 100), (300, 100), (784, 512), (60, 6)])
    def test_a_random_matrix_has_no_signal_at_any_scale(self, N: int, M: int) -> None:
        slices = 1 if M > 32 else 25
        for scale in (1e-3, 1.0):
            pooled = np.sort(gaussian_eigenvalues(N, M, count=slices).ravel()) * scale
            found = signal_to_bulk(pooled, N=N, M=M, num_slices=slices)
            assert found == pytest.approx(0.0, abs=0.08)

    @pytest.mark.parametrize("ratio", [0.5, 1.0, 5.0])
    def test_a_planted_signal_is_measured(self, ratio: float) -> None:
        """Ten directions that hold `ratio` times the energy of the noise around them."""
        rng = np.random.default_rng(0)
        N, M, k = 400, 200, 10
        left, _ = np.linalg.qr(rng.normal(size=(N, k)))
        right, _ = np.linalg.qr(rng.normal(size=(M, k)))
        signal = math.sqrt(ratio * N * M / k) * left @ right.T
        eigenvalues = np.linalg.svd(rng.normal(size=(N, M)) + signal, compute_uv=False)[::-1] ** 2
        # The noise that the ten directions displace, and its scatter.
        assert signal_to_bulk(eigenvalues, N=N, M=M) == pytest.approx(ratio, rel=0.1, abs=0.1)

    def test_an_empty_bulk_is_all_signal(self) -> None:
        assert signal_to_bulk(np.repeat([0.0, 1.0], 50), N=100, M=100) == math.inf
