"""Traps: planted entries are found, learned structure and mean shifts are not taken for them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from wwopt.spectra.marchenko_pastur import trap_z
from wwopt.spectra.spectrum import LayerSpectrum
from wwopt.spectra.traps import TRAP_THRESHOLD, find_traps

if TYPE_CHECKING:
    from fixtures.weights.layers import SpectrumOf

Array = NDArray[np.float64]


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def with_huge_entries(weights: Array, count: int, *, size: float) -> Array:
    """Return a copy with `count` entries, no two in a row or column, set to `size`."""
    planted = weights.copy()
    for index in range(count):
        planted[..., 3 * index, 2 * index] = size
    return planted


def record(tops: ArrayLike | None, *, mean: float = 0.0, variance: float = 1.0) -> LayerSpectrum:
    """A 101 × 25 layer, whose μ is 225 and whose s is 15 · .3^(1/3)."""
    return LayerSpectrum(
        name="fc",
        shape=(101, 25),
        num_slices=1,
        eigenvalues=np.arange(25.0),
        element_mean=mean,
        element_variance=variance,
        shuffled_tops=None if tops is None else np.asarray(tops),
    )


def top_at(z: float, variance: float = 1.0) -> float:
    return variance * (225.0 + z * 15.0 * 0.3 ** (1.0 / 3.0))


class TestScoresByHand:
    def test_the_score_is_the_mean_over_shuffles_of_the_largest(self) -> None:
        tops = [[top_at(6.0), top_at(5.0)], [top_at(3.0), top_at(0.0)], [top_at(0.0), 0.0]]
        assert find_traps(record(tops)).trap_z == pytest.approx(3.0)

    def test_the_count_is_the_median_over_shuffles_from_the_threshold_on(self) -> None:
        z = [[9.0, 8.0, 7.0], [6.0, 4.001, 3.9], [3.9, 1.0, 0.0]]  # 3, 2 and 0 traps
        tops = [[top_at(value) for value in row] for row in z]
        assert TRAP_THRESHOLD == 4.0
        assert find_traps(record(tops)).num_traps == 2

    def test_the_variance_is_divided_out(self) -> None:
        tops = [[top_at(5.0, variance=1e-4)]]
        assert find_traps(record(tops, variance=1e-4)).trap_z == pytest.approx(5.0)

    def test_the_mean_spike_is_mean_squared_times_the_side_over_the_variance(self) -> None:
        found = find_traps(record([[225.0]], mean=-0.2, variance=0.5))
        assert found.mean_spike == pytest.approx(0.04 * math.sqrt(101 * 25) / 0.5)

    def test_without_shuffles_traps_are_unknown_and_the_mean_is_not(self) -> None:
        found = find_traps(record(None, mean=0.2))
        assert math.isnan(found.trap_z)
        assert found.num_traps is None
        assert found.mean_spike == pytest.approx(0.04 * math.sqrt(101 * 25))

    @pytest.mark.parametrize("variance", [0.0, math.nan, math.inf])
    def test_without_a_variance_everything_is_unknown(self, variance: float) -> None:
        found = find_traps(record([[225.0]], variance=variance))
        assert math.isnan(found.trap_z)
        assert math.isnan(found.mean_spike)
        assert found.num_traps is None


class TestRandomLayers:
    @pytest.mark.parametrize("shape", [(300, 100), (64, 64), (30, 200), (9, 64, 64), (9, 64, 3)])
    def test_have_no_traps(self, spectrum_of: SpectrumOf, shape: tuple[int, ...]) -> None:
        for seed in range(10):
            found = find_traps(spectrum_of(gaussian(*shape, seed=seed), seed=seed))
            assert found.num_traps == 0
            assert found.trap_z < TRAP_THRESHOLD

    def test_score_about_the_mean_of_the_tracy_widom_law(self, spectrum_of: SpectrumOf) -> None:
        scores = [
            find_traps(spectrum_of(gaussian(120, 60, seed=seed))).trap_z for seed in range(40)
        ]
        # The law's standard deviation of 1.27, over 120 shuffles: .12.
        assert np.mean(scores) == pytest.approx(-1.2065, abs=0.36)

    def test_nine_slices_add_about_two_units(self, spectrum_of: SpectrumOf) -> None:
        scores = [
            find_traps(spectrum_of(gaussian(9, 60, 40, seed=seed))).trap_z for seed in range(15)
        ]
        assert np.mean(scores) == pytest.approx(-1.2065 + 2.0, abs=0.5)

    def test_heavy_tailed_entries_pass_the_gaussian_quantile_hence_the_threshold(self) -> None:
        # Student t with 5 degrees of freedom: no outlier anyone planted.
        rng = np.random.default_rng(0)
        scores = []
        for _ in range(200):
            weights = rng.standard_t(5, size=(100, 50))
            top = np.linalg.norm(weights - weights.mean(), 2) ** 2
            scores.append(trap_z(top, 100, 50, weights.var(ddof=1)))
        quantile = np.mean(np.array(scores) > 2.02)
        threshold = np.mean(np.array(scores) > TRAP_THRESHOLD)
        # 1 % for Gaussian entries. The threshold of 4 spares some of them, not all.
        assert 0.1 < quantile < 0.3
        assert threshold < 0.8 * quantile


class TestPlantedEntries:
    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("shape", [(300, 100), (64, 64), (60, 40), (100, 300), (9, 64, 32)])
    def test_are_counted_one_by_one(
        self, spectrum_of: SpectrumOf, shape: tuple[int, ...], count: int
    ) -> None:
        # Also below 100 eigenvalues, where WeightWatcher pools five shuffles and reports 5 and 15.
        weights = gaussian(*shape)
        weights = weights if weights.ndim == 2 else weights[:1]
        found = find_traps(spectrum_of(with_huge_entries(weights, count, size=40.0)))
        assert found.num_traps == count
        assert found.trap_z > 30

    def test_in_any_slice_of_a_convolution_are_found(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(9, 64, 32)
        weights[4, 3, 5] = -60.0
        found = find_traps(spectrum_of(weights))
        assert found.num_traps == 1

    @given(seed=st.integers(0, 10**6), size=st.floats(30, 1e6), sign=st.sampled_from([-1.0, 1.0]))
    def test_are_found_wherever_they_are(
        self, spectrum_of: SpectrumOf, seed: int, size: float, sign: float
    ) -> None:
        weights = gaussian(60, 40, seed=seed)
        weights[seed % 60, seed % 40] = sign * size
        found = find_traps(spectrum_of(weights))
        assert found.num_traps == 1
        assert found.trap_z > TRAP_THRESHOLD


class TestWhatIsNoTrap:
    def test_a_mean_shift_is_reported_apart(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(300, 100) + 0.2
        found = find_traps(spectrum_of(weights))
        assert found.num_traps == 0
        assert found.trap_z < 2.02
        assert found.mean_spike > 1.0

    @pytest.mark.parametrize(("N", "M", "score"), [(300, 100, 58.0), (512, 512, 465.0)])
    def test_uncentred_a_fifth_of_a_deviation_would_be_one(
        self, N: int, M: int, score: float
    ) -> None:
        # design/spectral.md: why the shuffled matrix is centred first.
        weights = gaussian(N, M) + 0.2
        shuffled = np.random.default_rng(1).permutation(weights.ravel()).reshape(N, M)
        z = trap_z(np.linalg.norm(shuffled, 2) ** 2, N, M, weights.var(ddof=1))
        assert z == pytest.approx(score, rel=0.2)

    def test_the_shift_itself_does_not_change_the_score(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(80, 60)
        plain, shifted = find_traps(spectrum_of(weights)), find_traps(spectrum_of(weights + 7.0))
        assert shifted.trap_z == pytest.approx(plain.trap_z, abs=1e-4)

    @pytest.mark.parametrize(("strength", "visible"), [(0.25, False), (4.0, True)])
    def test_a_mean_leaves_the_bulk_where_its_spike_passes_one(
        self, spectrum_of: SpectrumOf, strength: float, visible: bool
    ) -> None:
        # Benaych-Georges & Nadakuditi 2012, with N = 900, M = 400, σ = 1.
        weights = gaussian(900, 400)
        weights += math.sqrt(strength / math.sqrt(900 * 400)) - weights.mean()
        spectrum = spectrum_of(weights)
        assert find_traps(spectrum).mean_spike == pytest.approx(strength, rel=0.02)
        top = float(spectrum.eigenvalues[-1])
        assert (trap_z(top, 900, 400, 1.0) > TRAP_THRESHOLD) is visible

    def test_learned_structure_is_none(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(200, 100) + 0.5 * gaussian(200, 4, seed=1) @ gaussian(4, 100, seed=2)
        spectrum = spectrum_of(weights)
        assert trap_z(spectrum.eigenvalues[-1], 200, 100, spectrum.element_variance) > 100
        assert find_traps(spectrum).num_traps == 0
