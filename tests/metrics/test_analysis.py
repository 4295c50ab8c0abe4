"""Closed forms, plain-Python witnesses, named statuses, and invariances of every quantity."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from fixtures.networks.small_networks import small_model
from fixtures.weights.layers import trained_like
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import ArrayLike, NDArray

from wwopt.metrics.analysis import analyze, metrics_from_spectra
from wwopt.metrics.model_metrics import (
    COLLAPSED,
    LOW_RANK,
    MIN_EIGENVALUES,
    NO_POWER_LAW,
    NOT_FINITE,
    OK,
    RANK_DEFICIENT,
    TOO_FEW,
    TOO_SMALL,
    ZERO,
    LayerMetrics,
    ModelMetrics,
)
from wwopt.spectra.marchenko_pastur import marchenko_pastur_quantiles
from wwopt.spectra.spectrum import LayerSpectrum

if TYPE_CHECKING:
    from fixtures.weights.layers import SpectrumOf

Array = NDArray[np.float64]
STATUSES = {
    *(OK, TOO_FEW, NOT_FINITE, ZERO, COLLAPSED),
    *(TOO_SMALL, NO_POWER_LAW, RANK_DEFICIENT, LOW_RANK),
}


def of_eigenvalues(values: ArrayLike, N: int | None = None, **changes: Any) -> LayerMetrics:
    """Metrics of a layer that is known by its eigenvalues only."""
    eigenvalues = np.asarray(values, dtype=float)
    spectrum = LayerSpectrum(
        name="fc",
        shape=(N or eigenvalues.size, eigenvalues.size),
        num_slices=1,
        eigenvalues=eigenvalues,
        element_mean=0.0,
        element_variance=1.0,
    )
    return metrics_from_spectra([dataclasses.replace(spectrum, **changes)]).layers[0]


def numbers(layer: LayerMetrics, *leave_out: str) -> dict[str, float]:
    """All numeric fields but those named, and but the truncated law's: an iterative fit."""
    leave_out = (*leave_out, "alpha_truncated", "Lambda", "p_pure")
    return {
        name: value
        for name, value in dataclasses.asdict(dataclasses.replace(layer, spectrum=None)).items()
        if isinstance(value, float | int) and name not in leave_out
    }


class TestNorms:
    def test_of_powers_of_two_by_hand(self) -> None:
        layer = of_eigenvalues([1.0, 2.0, 4.0, 8.0], N=10)
        assert (layer.norm, layer.spectral_norm, layer.stable_rank) == (15.0, 8.0, 1.875)
        assert layer.log_norm == pytest.approx(math.log10(15.0))
        assert layer.log_spectral_norm == pytest.approx(math.log10(8.0))
        alpha = 1.0 + 4.0 / (6.0 * math.log(2.0))  # test_power_law.py
        assert layer.alpha == pytest.approx(alpha)
        assert layer.alpha_weighted == pytest.approx(alpha * math.log10(8.0))
        powers = 1.0 + 2.0**alpha + 4.0**alpha + 8.0**alpha
        assert layer.log_alpha_norm == pytest.approx(math.log10(powers))
        shares = [1 / 15, 2 / 15, 4 / 15, 8 / 15]
        entropy = -sum(p * math.log(p) for p in shares) / math.log(4.0)
        assert layer.entropy == pytest.approx(entropy)
        assert (layer.matrix_rank, layer.rank_loss, layer.weak_rank_loss) == (4, 0, 0)

    def test_of_the_identity_entropy_and_rank_are_full(self, spectrum_of: SpectrumOf) -> None:
        (layer,) = metrics_from_spectra([spectrum_of(np.eye(80))]).layers
        assert layer.entropy == pytest.approx(1.0)
        assert (layer.stable_rank, layer.matrix_rank, layer.norm) == (80.0, 80, 80.0)

    def test_rounding_of_a_gram_matrix_is_no_rank(self, spectrum_of: SpectrumOf) -> None:
        # σ > σmax·N·eps, on the roots of these eigenvalues, reports 96 for a true rank of 40.
        rng = np.random.default_rng(0)
        weights = rng.normal(size=(200, 40)) @ rng.normal(size=(40, 100))
        (layer,) = metrics_from_spectra([spectrum_of(weights)]).layers
        assert (layer.matrix_rank, layer.rank_loss) == (40, 60)
        assert layer.weak_rank_loss == 60

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e12, 1e40])
    def test_log_alpha_norm_neither_overflows_nor_underflows(self, scale: float) -> None:
        layer = of_eigenvalues(scale * np.linspace(1.0, 1.5, 60))  # alpha = 8: λ^alpha leaves 1e308
        powers = [Decimal(float(value)) ** Decimal(layer.alpha) for value in layer_values(layer)]
        assert layer.alpha > 5
        assert layer.log_alpha_norm == pytest.approx(float(sum(powers).log10()), rel=1e-12)

    def test_a_weak_eigenvalue_is_one_below_a_millionth(self) -> None:
        values = [9e-7, 1.1e-6, 1e-5, *np.linspace(1.0, 2.0, 57)]
        assert of_eigenvalues(values).weak_rank_loss == 1

    def test_zeros_among_the_eigenvalues_do_no_harm(self) -> None:
        values = np.append(np.zeros(10), np.random.default_rng(0).pareto(1.5, 90) + 1)
        layer, without = of_eigenvalues(values, N=100), of_eigenvalues(values[10:], N=100)
        for name in ("norm", "stable_rank", "entropy", "log_alpha_norm", "alpha", "matrix_rank"):
            assert getattr(layer, name) == pytest.approx(getattr(without, name), rel=1e-12)
        assert (layer.rank_loss, layer.weak_rank_loss) == (10, 10)


def layer_values(layer: LayerMetrics) -> Array:
    assert layer.spectrum is not None
    return layer.spectrum.eigenvalues


class TestERG:
    @staticmethod
    def by_exact_products(values: Array) -> int:
        """WeightWatcher's loop, in decimal numbers of unlimited exponent."""
        rescaled = [Decimal(float(v)) for v in np.sort(values) * (values.size / values.sum())]
        product = Decimal(1)
        for index in range(len(rescaled) - 1, 0, -1):
            product *= rescaled[index]
            if product < 1:
                return len(rescaled) - index
        return len(rescaled)

    @pytest.mark.parametrize("seed", range(5))
    def test_counts_up_to_the_value_at_which_the_product_falls_below_one(self, seed: int) -> None:
        values = np.linalg.svd(trained_like(120, 80, seed), compute_uv=False) ** 2
        layer = of_eigenvalues(values, N=120)
        assert layer.detX_num == self.by_exact_products(values)
        assert 1 < layer.detX_num < 80
        assert layer.ERG_gap == layer.detX_num - layer.num_pl_spikes

    def test_by_hand(self) -> None:
        # Mean 1: 2 · 1.5 = 3, · .4 = 1.2, · .1 = .12 would be the last and is not looked at.
        assert of_eigenvalues([0.1, 0.4, 1.5, 2.0]).detX_num == 4
        # 3 · .5 = 1.5, · .3 = .45: three.
        assert of_eigenvalues([0.2, 0.3, 0.5, 3.0]).detX_num == 3

    def test_neither_overflows_nor_underflows_at_4096(self) -> None:
        tail = (1.0 - (np.arange(1500) + 0.5) / 1500) ** -0.8
        for values in (
            marchenko_pastur_quantiles(2.0, 4096),
            np.concatenate([1e-3 * marchenko_pastur_quantiles(2.0, 2596), tail]),
        ):
            with np.errstate(over="ignore", under="ignore"):
                products = np.cumprod(np.sort(values)[::-1] / values.mean())
            assert np.isinf(products).any() or (products == 0.0).any()  # what is avoided
            assert of_eigenvalues(values, N=8192).detX_num == self.by_exact_products(values)

    def test_equal_eigenvalues_have_none(self) -> None:
        assert of_eigenvalues(np.full(60, 2.0)).detX_num == 0


class TestConvolutions:
    def test_columns_of_conv2d_are_halved_and_only_those(self, spectrum_of: SpectrumOf) -> None:
        weights = np.stack([trained_like(48, 32, seed) for seed in range(9)])
        plain, conv1d, conv2d = (
            metrics_from_spectra([spectrum_of(weights, kind=kind)]).layers[0]
            for kind in ("linear", "conv1d", "conv2d")
        )
        assert numbers(conv1d) == numbers(plain)
        # In the units of the spectrum inside, in WeightWatcher's in the table and back.
        tables = {x: ModelMetrics((x,)).to_frame().iloc[0] for x in (plain, conv2d)}
        for name in ("norm", "spectral_norm", "xmin", "xmax", "bulk_min", "bulk_max"):
            assert getattr(conv2d, name) == getattr(plain, name)
            assert tables[conv2d][name] == getattr(plain, name) / 2
            assert tables[plain][name] == getattr(plain, name)
        assert tables[conv2d]["lambda_max"] == plain.spectral_norm / 2
        assert tables[conv2d]["Lambda"] == plain.Lambda * 2
        again = ModelMetrics.from_frame(ModelMetrics((conv2d,)).to_frame()).layers[0]
        assert numbers(again) == numbers(conv2d)
        assert conv2d.W_scale == pytest.approx(plain.W_scale * math.sqrt(2.0), rel=1e-12)
        log2 = math.log10(2.0)
        for name, shift in (
            ("log_norm", log2),
            ("log_spectral_norm", log2),
            ("alpha_weighted", plain.alpha * log2),
            ("log_alpha_norm", plain.alpha * log2),
        ):
            found = getattr(plain, name) - getattr(conv2d, name)
            assert found == pytest.approx(shift, rel=1e-9)
        moved = ("W_scale", "log_norm", "log_spectral_norm", "alpha_weighted", "log_alpha_norm")
        assert numbers(conv2d, *moved) == pytest.approx(numbers(plain, *moved), rel=1e-12)
        assert conv2d.num_evals == 9 * 32

    def test_the_spectrum_itself_is_not_halved(self, spectrum_of: SpectrumOf) -> None:
        weights = np.stack([trained_like(48, 32, seed) for seed in range(4)])
        (layer,) = metrics_from_spectra([spectrum_of(weights, kind="conv2d")]).layers
        assert layer_values(layer).sum() == pytest.approx((weights**2).sum())


class TestStatus:
    @pytest.mark.parametrize(
        ("weights", "status"),
        [
            pytest.param(trained_like(120, 80), OK, id="trained"),
            pytest.param(np.zeros((80, 60)), ZERO, id="zero"),
            pytest.param(np.full((80, 60), math.nan), NOT_FINITE, id="NaN"),
            pytest.param(np.where(np.eye(80, 60) > 0, math.inf, 1.0), NOT_FINITE, id="infinite"),
            pytest.param(np.full((80, 60), 1e200), NOT_FINITE, id="squares overflow"),
            pytest.param(np.full((80, 60), 0.3), COLLAPSED, id="constant"),
            pytest.param(np.outer(np.arange(80.0), np.arange(60.0)), COLLAPSED, id="rank 1"),
            pytest.param(np.eye(80, 60), NO_POWER_LAW, id="identity"),
            pytest.param(np.eye(80)[::-1].copy(), NO_POWER_LAW, id="permutation"),
            pytest.param(1e-9 * trained_like(120, 80), TOO_SMALL, id="tiny"),
            pytest.param(1e-120 * trained_like(120, 80), TOO_SMALL, id="tinier than float32"),
            pytest.param(trained_like(80, 80)[:, :40] @ np.eye(40, 80), RANK_DEFICIENT, id="rank"),
            pytest.param(trained_like(80, 49), TOO_FEW, id="49 columns"),
            pytest.param(np.zeros((80, 49)), TOO_FEW, id="49 zero columns"),
            pytest.param(np.full((80, 10), math.nan), NOT_FINITE, id="NaN in an output layer"),
            pytest.param(np.ones((1, 500)), TOO_FEW, id="one row"),
        ],
    )
    def test_is_named(self, spectrum_of: SpectrumOf, weights: Array, status: str) -> None:
        (layer,) = metrics_from_spectra([spectrum_of(weights)]).layers
        assert layer.status == status
        assert layer.counted is (status != TOO_FEW)

    def test_orthogonal_but_for_a_few_directions_is_not_called_rank_deficient(
        self, spectrum_of: SpectrumOf
    ) -> None:
        rng = np.random.default_rng(0)
        left, _ = np.linalg.qr(rng.normal(size=(120, 100)))
        right, _ = np.linalg.qr(rng.normal(size=(100, 100)))
        weights = (left * np.append(np.full(5, 0.5), np.ones(95))) @ right
        (layer,) = metrics_from_spectra([spectrum_of(weights)]).layers
        assert (layer.matrix_rank, layer.status) == (100, NO_POWER_LAW)

    def test_slices_are_pooled_before_they_are_counted(self, spectrum_of: SpectrumOf) -> None:
        few = spectrum_of(np.random.default_rng(0).normal(size=(16, 20, 3)))
        enough = spectrum_of(np.random.default_rng(0).normal(size=(17, 20, 3)))
        assert MIN_EIGENVALUES == 50
        metrics = metrics_from_spectra([few, enough])
        assert [layer.status for layer in metrics.layers] == [TOO_FEW, OK]

    def test_a_low_rank_delta_is_said_to_be_one(self, spectrum_of: SpectrumOf) -> None:
        rng = np.random.default_rng(0)
        delta = rng.normal(size=(120, 8)) @ rng.normal(size=(8, 100))
        (layer,) = metrics_from_spectra([spectrum_of(delta, rank_bound=8)]).layers
        assert (layer.status, layer.counted) == (LOW_RANK, False)
        assert layer.matrix_rank == 8
        assert math.isfinite(layer.stable_rank)

    @pytest.mark.parametrize("status_of", [np.zeros((80, 60)), np.full((80, 60), math.nan)])
    def test_without_a_spectrum_no_number_is_made_up(
        self, spectrum_of: SpectrumOf, status_of: Array
    ) -> None:
        (layer,) = metrics_from_spectra([spectrum_of(status_of)]).layers
        known = {"N", "M", "num_slices", "num_evals", "element_mean", "element_variance"}
        rest = numbers(layer, *known, "kurtosis", "max_abs")
        assert all(math.isnan(value) for value in rest.values()), rest
        assert layer.warning == ""

    def test_square_layers_have_no_bulk(self, spectrum_of: SpectrumOf) -> None:
        # WeightWatcher's quarter-circle fit says 2013 on such a layer, the truth is 1200.
        (layer,) = metrics_from_spectra([spectrum_of(trained_like(300, 300))]).layers
        assert layer.status == OK
        bulk = ("sigma_mp", "bulk_min", "bulk_max", "num_spikes", "mp_softrank", "W_scale")
        assert all(math.isnan(getattr(layer, name)) for name in bulk)

    def test_a_strong_mean_does_not_end_the_analysis(self) -> None:
        N, M = 50_000, 2048
        values = N * marchenko_pastur_quantiles(N / M, M)
        values[-1] = 2.0 * N * M
        layer = of_eigenvalues(values, N=N)
        assert math.isnan(layer.bulk_max)
        assert math.isfinite(layer.alpha)

    @settings(max_examples=100)
    @given(
        weights=hnp.arrays(
            np.float64,
            st.tuples(st.integers(1, 60), st.integers(1, 60)),
            elements=st.floats(width=64),
            fill=st.sampled_from([0.0, 1.0, 1e-3]),
        )
    )
    @example(weights=np.full((60, 60), 1e154))
    @example(weights=1e152 * np.random.default_rng(0).normal(size=(60, 55)))
    @example(weights=1e-160 * np.random.default_rng(0).normal(size=(60, 55)))
    @example(weights=np.full((60, 60), 5e-324))
    @example(weights=np.full((60, 55), 1e100))
    @example(weights=np.diag([*[1e-160] * 50, *[1e-3] * 10]))  # λ from 1e-320 to 1e-6
    def test_no_matrix_of_numbers_raises_or_goes_unnamed(
        self, spectrum_of: SpectrumOf, weights: Array
    ) -> None:
        (layer,) = metrics_from_spectra([spectrum_of(weights)]).layers
        assert layer.status in STATUSES
        if layer.status == OK:
            assert math.isfinite(layer.hill)
            assert math.isfinite(layer.alpha)


class TestInvariances:
    # Shuffles act on positions: what is read off them changes with the order of the entries.
    traps = ("trap_z", "num_traps", "hill_shuffled")

    @given(seed=st.integers(0, 10**6), exponent=st.integers(-3, 30))
    def test_scaling_moves_norms_and_nothing_else(
        self, spectrum_of: SpectrumOf, seed: int, exponent: int
    ) -> None:
        weights = trained_like(70, 55, seed)  # λ from .5 on: 4^-3 of it is above the cut
        factor = 2.0**exponent
        plain, scaled = metrics_from_spectra(
            [spectrum_of(weights, name="fc"), spectrum_of(factor * weights, name="fc")]
        ).layers
        scales = {"norm": 2, "spectral_norm": 2, "xmin": 2, "xmax": 2, "bulk_min": 2}
        scales |= {
            "bulk_max": 2,
            "W_scale": -1,
            "element_mean": 1,
            "element_variance": 2,
        }
        scales |= {"max_abs": 1}
        logs = ("log_norm", "log_spectral_norm", "alpha_weighted", "log_alpha_norm")
        for name, power in scales.items():
            expected = factor**power * getattr(plain, name)
            assert getattr(scaled, name) == pytest.approx(expected, rel=1e-9)
        shift = 2 * exponent * math.log10(2.0)
        assert scaled.log_norm == pytest.approx(plain.log_norm + shift, abs=1e-10)
        moved = (*scales, *logs)
        shuffled = {name: getattr(plain, name) for name in self.traps}
        assert numbers(scaled, *moved, *self.traps) == pytest.approx(
            numbers(plain, *moved, *self.traps), rel=1e-9
        )
        # Shuffles may be multiplied in float32.
        assert {name: getattr(scaled, name) for name in self.traps} == pytest.approx(
            shuffled, rel=1e-4, abs=1e-4
        )
        assert scaled.status == plain.status == OK

    @given(seed=st.integers(0, 10**6), shape=st.sampled_from([(70, 55), (60, 60), (52, 90)]))
    def test_transposition_changes_nothing_but_the_draw_of_the_shuffles(
        self, spectrum_of: SpectrumOf, seed: int, shape: tuple[int, int]
    ) -> None:
        weights = trained_like(*shape, seed)
        self.assert_same(spectrum_of(weights), spectrum_of(weights.T), *self.traps)

    @given(seed=st.integers(0, 10**6))
    def test_permutation_changes_nothing_but_the_draw_of_the_shuffles(
        self, spectrum_of: SpectrumOf, seed: int
    ) -> None:
        weights, rng = trained_like(70, 55, seed), np.random.default_rng(seed)
        permuted = weights[rng.permutation(70)][:, rng.permutation(55)]
        self.assert_same(spectrum_of(weights), spectrum_of(permuted), *self.traps)

    @given(seed=st.integers(0, 10**6))
    def test_rotation_changes_nothing_but_traps_and_element_moments(
        self, spectrum_of: SpectrumOf, seed: int
    ) -> None:
        weights, rng = trained_like(70, 55, seed), np.random.default_rng(seed)
        left, _ = np.linalg.qr(rng.normal(size=(70, 70)))
        right, _ = np.linalg.qr(rng.normal(size=(55, 55)))
        moments = ("element_mean", "element_variance", "kurtosis", "max_abs", "mean_spike")
        rotated = spectrum_of(left @ weights @ right)
        self.assert_same(spectrum_of(weights), rotated, *self.traps, *moments)

    @given(seed=st.integers(0, 10**6))
    def test_the_order_of_slices_does_not_matter(self, spectrum_of: SpectrumOf, seed: int) -> None:
        weights = np.stack([trained_like(40, 20, seed + index) for index in range(4)])
        kind = "conv2d"
        self.assert_same(
            spectrum_of(weights, kind=kind),
            spectrum_of(weights[[2, 0, 3, 1]], kind=kind),
            *self.traps,
        )

    @staticmethod
    def assert_same(one: LayerSpectrum, other: LayerSpectrum, *leave_out: str) -> None:
        first, second = metrics_from_spectra([one, other]).layers
        assert first.status == second.status == OK
        expected = numbers(first, *leave_out)
        assert numbers(second, *leave_out) == pytest.approx(
            expected, rel=1e-8, abs=1e-12, nan_ok=True
        )


class TestModels:
    def test_layers_keep_their_order_and_names(self) -> None:
        metrics = analyze(small_model())
        assert [layer.name for layer in metrics.layers] == ["0", "2", "3"]
        assert [layer.status for layer in metrics.layers] == [OK, OK, TOO_FEW]
        assert [layer.name for layer in metrics.counted] == ["0", "2"]
        assert metrics["2"] is metrics.layers[1]

    def test_a_layer_has_the_same_numbers_alone_and_among_others(self) -> None:
        model = small_model()
        alone, together = analyze(model, layers=["2"]), analyze(model)
        assert alone.layers == (together["2"],)

    def test_the_first_matrix_is_the_models_whatever_was_selected(self) -> None:
        model = small_model()
        whole, part = analyze(model), analyze(model, layers=["2"])
        assert whole.first_layer is whole["0"]
        assert (part.first, part.first_layer) == ("0", None)

    def test_the_seed_decides_about_traps_and_nothing_else(self) -> None:
        model = small_model()
        first, again, other = (analyze(model, seed=seed)["2"] for seed in (1, 1, 2))
        assert first == again
        assert first.trap_z != other.trap_z
        traps = ("trap_z", "num_traps", "hill_shuffled")
        assert numbers(first, *traps) == pytest.approx(numbers(other, *traps), nan_ok=True)

    def test_without_shuffles_traps_are_unknown_and_the_rest_is_not(self) -> None:
        model = small_model()
        bare, full = analyze(model, shuffles=0)["2"], analyze(model)["2"]
        assert math.isnan(bare.trap_z)
        assert math.isnan(bare.num_traps)
        traps = ("trap_z", "num_traps", "hill_shuffled")
        assert numbers(bare, *traps) == pytest.approx(numbers(full, *traps), nan_ok=True)

    def test_a_broken_layer_does_not_end_the_run(self) -> None:
        model = small_model()
        whole = analyze(model)
        with torch.no_grad():
            model[0].weight[3, 5] = math.nan
        broken = analyze(model)
        assert broken["0"].status == NOT_FINITE
        assert broken["2"] == whole["2"]
