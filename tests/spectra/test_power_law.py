"""Closed forms first, naive transcriptions and scipy as witnesses second, invariances third."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from wwopt.spectra import power_law
from wwopt.spectra.power_law import EIGENVALUE_FLOOR, PowerLawFit, averaged_hill, fit_power_law

Array = NDArray[np.float64]


def pareto_quantiles(alpha: float, size: int, xmin: float = 1.0) -> Array:
    """Evenly spaced quantiles of the exact law: a sample without sampling noise."""
    quantiles: Array = stats.pareto(b=alpha - 1.0, scale=xmin).ppf((np.arange(size) + 0.5) / size)
    return quantiles


def naive_fit(eigenvalues: Array) -> tuple[float, float, float, int, float]:
    """Alpha, xmin, D, tail size and sigma as design/spectral.md says it, entry by entry."""
    data = sorted(float(value) for value in eigenvalues if value > EIGENVALUE_FLOOR)
    best = (math.nan, math.nan, math.inf, 0, math.nan)
    for start, xmin in enumerate(data[:-1]):
        n = len(data) - start
        logs = [math.log(value / xmin) for value in data[start:]]
        if math.fsum(logs) == 0.0:
            continue
        alpha = 1.0 + n / math.fsum(logs)
        distance = 0.0
        for rank, log in enumerate(logs):
            fitted = 1.0 - math.exp((1.0 - alpha) * log)
            distance = max(distance, abs(fitted - rank / n))
        if distance < best[2]:
            spikes = sum(value >= xmin for value in data)
            best = (alpha, xmin, distance, spikes, (alpha - 1.0) / math.sqrt(n))
    return best


def naive_hill(eigenvalues: Array) -> float:
    """Log-mean of α_k - 1 over k from max(10, n/10) to 6n/10, tail by tail."""
    descending = sorted((float(value) for value in eigenvalues), reverse=True)
    n = len(descending)
    logs = []
    for k in range(max(10, math.ceil(0.1 * n)), math.floor(0.6 * n) + 1):
        excess = math.fsum(math.log(value / descending[k]) for value in descending[:k])
        logs.append(math.log(k / excess))
    return 1.0 + math.exp(math.fsum(logs) / len(logs))


def heavy_tailed(seed: int, size: int) -> Array:
    return np.random.default_rng(seed).pareto(1.5, size=size) + 1.0


def spectrum(seed: int, rows: int, columns: int, *, freedom: float = 3.0) -> Array:
    """Eigenvalues of a matrix with Student-t entries: a bulk and a heavy tail."""
    weights = np.random.default_rng(seed).standard_t(freedom, size=(rows, columns))
    return np.linalg.svd(weights, compute_uv=False) ** 2


class TestFit:
    @pytest.mark.parametrize(
        ("size", "exponent", "alpha", "distance"),
        [
            (100, 2.5, 2.512820, 0.006733),
            (500, 3.0, 3.003393, 0.001345),
            (1000, 2.0, 2.000847, 0.000673),
        ],
    )
    def test_pareto_quantiles_give_the_published_numbers(
        self, size: int, exponent: float, alpha: float, distance: float
    ) -> None:
        quantiles = pareto_quantiles(exponent, size)
        fit = fit_power_law(quantiles)
        assert fit.status == "ok"
        assert (fit.alpha, fit.D) == pytest.approx((alpha, distance), abs=5e-7)
        assert (fit.xmin, fit.xmax, fit.num_pl_spikes) == (quantiles[0], quantiles[-1], size)
        assert fit.sigma == pytest.approx((alpha - 1.0) / math.sqrt(size), abs=1e-7)

    def test_four_eigenvalues_by_hand(self) -> None:
        # All four: Σ ln(λ/1) = 6 ln 2, gaps |1 - e^(-2i/3) - i/4|, the largest at the third value.
        # Three: α - 1 = 1/ln 2, D = 2/3 - e^-1 … .299; two: D = 1/2 - e^-2 = .365. All four win.
        fit = fit_power_law(np.array([8.0, 1.0, 4.0, 2.0]))
        alpha, distance = 1.0 + 4.0 / (6.0 * math.log(2.0)), 0.75 - math.exp(-2.0 / 3.0)
        assert (fit.alpha, fit.D) == pytest.approx((alpha, distance), rel=1e-14)
        assert fit.sigma == pytest.approx((fit.alpha - 1.0) / 2.0, rel=1e-15)
        assert (fit.xmin, fit.xmax, fit.num_pl_spikes) == (1.0, 8.0, 4)

    @pytest.mark.parametrize("alpha", [1.5, 2.0, 4.0, 6.0])
    def test_recovers_the_exponent_it_was_given(self, alpha: float) -> None:
        assert fit_power_law(pareto_quantiles(alpha, 2000)).alpha == pytest.approx(alpha, rel=1e-3)

    def test_xmin_separates_the_bulk_from_the_tail(self) -> None:
        bulk = np.linspace(0.01, 1.0, 500)
        fit = fit_power_law(np.concatenate([bulk, pareto_quantiles(3.0, 500)]))
        assert fit.xmin == pytest.approx(1.0, rel=0.05)
        assert fit.alpha == pytest.approx(3.0, rel=0.02)

    @pytest.mark.parametrize(
        "eigenvalues",
        [
            pytest.param(heavy_tailed(0, 5), id="5 values"),
            pytest.param(heavy_tailed(1, 19), id="19 values, where WeightWatcher switches"),
            pytest.param(heavy_tailed(2, 300), id="300 values"),
            pytest.param(spectrum(3, 120, 80), id="Student-t matrix"),
            pytest.param(spectrum(4, 90, 90, freedom=1e9), id="Gaussian matrix"),
            pytest.param(1e-9 * spectrum(5, 120, 80, freedom=1.0), id="most of it below the floor"),
            pytest.param(np.ceil(4 * heavy_tailed(6, 200)), id="ties everywhere"),
            pytest.param(np.repeat(heavy_tailed(7, 30), 4), id="every value four times"),
            pytest.param(heavy_tailed(8, 1200), id="several blocks of the scan"),
        ],
    )
    def test_agrees_with_a_double_loop_over_starts_and_entries(self, eigenvalues: Array) -> None:
        fit = fit_power_law(eigenvalues)
        alpha, xmin, distance, spikes, sigma = naive_fit(eigenvalues)
        assert (fit.xmin, fit.num_pl_spikes) == (xmin, spikes)
        found = (fit.alpha, fit.D, fit.sigma)
        assert found == pytest.approx((alpha, distance, sigma), rel=1e-11)

    def test_agrees_with_scipy_on_the_tail_it_chose(self) -> None:
        values = np.random.default_rng(1).pareto(2.5, size=400) + 1.0
        fit = fit_power_law(values)
        tail = values[values >= fit.xmin]
        b, _, _ = stats.pareto.fit(tail, floc=0.0, fscale=fit.xmin)
        assert fit.alpha == pytest.approx(b + 1.0, rel=1e-9)
        two_sided = stats.kstest(tail, stats.pareto(b=b, scale=fit.xmin).cdf).statistic
        assert fit.D <= two_sided <= fit.D + 1.001 / fit.num_pl_spikes  # the sides: one step apart

    def test_does_not_depend_on_the_size_of_its_blocks(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values = spectrum(9, 100, 70)
        expected = fit_power_law(values)
        monkeypatch.setattr(power_law, "_BLOCK_ENTRIES", 100)
        assert fit_power_law(values) == expected

    @given(seed=st.integers(0, 10**6), exponent=st.integers(-8, 60))
    def test_powers_of_two_move_xmin_and_nothing_else(self, seed: int, exponent: int) -> None:
        values = heavy_tailed(seed, 60)  # above 1, so that 2^-8 of them stays above the floor
        fit, factor = fit_power_law(values), 2.0**exponent
        moved = dataclasses.replace(fit, xmin=factor * fit.xmin, xmax=factor * fit.xmax)
        assert fit_power_law(factor * values) == moved

    @given(seed=st.integers(0, 10**6))
    def test_order_does_not_matter(self, seed: int) -> None:
        values = spectrum(seed, 40, 30)
        shuffled = np.random.default_rng(seed).permutation(values)
        assert fit_power_law(shuffled) == fit_power_law(values)

    def test_values_at_the_floor_or_below_take_no_part(self) -> None:
        values = heavy_tailed(10, 80)
        padded = np.concatenate([values, [EIGENVALUE_FLOOR, EIGENVALUE_FLOOR / 2, 1e-300, 0.0]])
        assert fit_power_law(padded) == fit_power_law(values)
        above, at = EIGENVALUE_FLOOR * (1 + 1e-12), EIGENVALUE_FLOOR
        assert fit_power_law(np.array([1.0, above])).xmin == above
        assert fit_power_law(np.array([1.0, at])).status != "ok"

    @pytest.mark.parametrize(
        ("eigenvalues", "reason"),
        [
            (np.array([]), "too few eigenvalues"),
            (np.full(50, 1e-6), "too few eigenvalues"),
            (np.append(np.zeros(49), 3.0), "too few eigenvalues"),
            (np.full(50, 3.0), "all eigenvalues equal"),
            (3.0 + 1e-13 * np.arange(50), "all eigenvalues equal"),
            (np.append(np.full(999, 3.0), 3.0 + 1e-8), "ok"),  # the last pair does spread
        ],
    )
    def test_a_failed_fit_is_nan_with_its_reason(self, eigenvalues: Array, reason: str) -> None:
        fit = fit_power_law(eigenvalues)
        if reason == "ok":
            assert fit.status == "ok"
            return
        assert fit.status == reason
        numbers = (fit.alpha, fit.xmin, fit.xmax, fit.D, fit.sigma)
        assert all(math.isnan(number) for number in numbers)
        assert fit.num_pl_spikes == 0

    @pytest.mark.parametrize("scale", [1.0, 3.0, 1e6])
    def test_rounding_of_equal_eigenvalues_is_no_tail_at_any_scale(self, scale: float) -> None:
        # Orthogonal but for one direction. In units where λ = 1 the rounding of the Gram matrix,
        # 1e-15, once passed for a tail of alpha 1e15.
        rng = np.random.default_rng(0)
        left, _ = np.linalg.qr(rng.normal(size=(300, 100)))
        right, _ = np.linalg.qr(rng.normal(size=(100, 100)))
        weights = (left * np.append(0.5, np.ones(99))) @ right
        fit = fit_power_law(np.linalg.eigvalsh(scale * weights.T @ weights))
        assert fit.num_pl_spikes == 100
        assert fit.alpha == pytest.approx(1.0 + 100 / (99 * math.log(4.0)), rel=1e-9)

    def test_results_are_frozen(self) -> None:
        fit = fit_power_law(heavy_tailed(0, 20))
        assert isinstance(fit, PowerLawFit)
        with pytest.raises(dataclasses.FrozenInstanceError):
            fit.alpha = 2.0  # type: ignore[misc]


class TestAveragedHill:
    @pytest.mark.parametrize("alpha", [1.5, 2.0, 4.0, 6.0])
    def test_recovers_the_exponent_of_pareto_quantiles(self, alpha: float) -> None:
        assert averaged_hill(pareto_quantiles(alpha, 5000)) == pytest.approx(alpha, rel=1e-3)

    @pytest.mark.parametrize("size", [17, 18, 50, 99, 100, 101, 333])
    def test_agrees_with_a_loop_over_tails(self, size: int) -> None:
        values = heavy_tailed(size, size)
        assert averaged_hill(values) == pytest.approx(naive_hill(values), rel=1e-12)

    def test_tells_heavier_tails_from_lighter_ones(self) -> None:
        hills = [averaged_hill(spectrum(0, 300, 150, freedom=nu)) for nu in (1.5, 2.0, 3.0, 5.0)]
        assert hills == sorted(hills)

    @given(seed=st.integers(0, 10**6), exponent=st.integers(-200, 200))
    def test_scale_and_order_do_not_matter(self, seed: int, exponent: int) -> None:
        values = spectrum(seed, 60, 40)
        scaled = 2.0**exponent * np.random.default_rng(seed).permutation(values)
        assert averaged_hill(scaled) == pytest.approx(averaged_hill(values), rel=1e-11)

    def test_noise_on_the_weights_hardly_moves_it(self) -> None:
        # A trained-like layer: a random bulk and forty directions with Pareto strengths. 1 % noise
        # moves the estimate by at most .006 in design/objective.md.
        rng = np.random.default_rng(0)
        left, _ = np.linalg.qr(rng.normal(size=(300, 40)))
        right, _ = np.linalg.qr(rng.normal(size=(200, 40)))
        strengths = 25.0 * np.sqrt(pareto_quantiles(2.0, 40))
        weights = rng.normal(size=(300, 200)) + (left * strengths) @ right.T
        hills, alphas = [], []
        for _ in range(20):
            noise = 0.01 * weights.std() * rng.normal(size=weights.shape)
            values = np.linalg.svd(weights + noise, compute_uv=False) ** 2
            hills.append(averaged_hill(values))
            alphas.append(fit_power_law(values).alpha)
        assert np.ptp(hills) < 0.01
        assert np.ptp(alphas) > 10 * np.ptp(hills)

    @pytest.mark.parametrize(
        "eigenvalues",
        [
            pytest.param(heavy_tailed(0, 16), id="16 values: 6n/10 is below 10"),
            pytest.param(np.zeros(100), id="zeros"),
            pytest.param(np.full(100, 2.0), id="equal"),
            pytest.param(np.append(np.zeros(60), heavy_tailed(0, 40)), id="six of ten are zero"),
            pytest.param(np.array([]), id="none"),
        ],
    )
    def test_is_nan_where_there_is_no_tail_to_speak_of(self, eigenvalues: Array) -> None:
        assert math.isnan(averaged_hill(eigenvalues))

    def test_is_nan_for_a_low_rank_matrix_whose_zeros_are_rounding(self) -> None:
        rng = np.random.default_rng(0)
        weights = rng.normal(size=(300, 20)) @ rng.normal(size=(20, 100))
        gram = np.linalg.eigvalsh(weights.T @ weights)
        assert (np.abs(gram[:80]) > 0).any()  # rounding, not zeros: the case that matters
        assert math.isnan(averaged_hill(np.maximum(gram, 0.0)))
