"""Eigenvalues against singular values, moments against scipy, shuffles against their invariants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import stats

from wwopt.cli import main
from wwopt.spectra.spectrum import NUM_TOPS, LayerSpectrum, compute_spectrum
from wwopt.weights.matrices import WeightMatrix

if TYPE_CHECKING:
    from fixtures.weights.layers import SpectrumOf

Array = NDArray[np.float64]


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


class TestEigenvalues:
    @pytest.mark.parametrize("shape", [(90, 40), (40, 90), (64, 64), (1, 30), (30, 1), (1, 1)])
    def test_are_the_squared_singular_values(
        self, spectrum_of: SpectrumOf, shape: tuple[int, int]
    ) -> None:
        weights = gaussian(*shape)
        spectrum = spectrum_of(weights)
        singular = np.linalg.svd(weights, compute_uv=False)
        assert spectrum.shape == (max(shape), min(shape))
        assert spectrum.eigenvalues == pytest.approx(np.sort(singular**2), rel=1e-9, abs=1e-11)
        assert spectrum.eigenvalues.dtype == np.float64

    def test_of_slices_are_pooled_and_not_halved(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(9, 32, 20)
        spectrum = spectrum_of(weights, kind="conv2d")
        singular = np.linalg.svd(weights, compute_uv=False)
        assert spectrum.shape == (32, 20)
        assert spectrum.num_slices == 9
        assert spectrum.eigenvalues == pytest.approx(np.sort(singular.ravel() ** 2), rel=1e-9)

    @given(seed=st.integers(0, 10**6))
    def test_do_not_change_under_transposition_permutation_and_rotation(
        self, spectrum_of: SpectrumOf, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        weights = rng.standard_t(3, size=(40, 30))
        rotation, _ = np.linalg.qr(rng.normal(size=(40, 40)))
        expected = spectrum_of(weights, shuffles=0).eigenvalues
        tolerance = 1e-12 * expected[-1]
        for same in (
            weights.T,
            weights[rng.permutation(40)][:, rng.permutation(30)],
            rotation @ weights,
        ):
            found = spectrum_of(same, shuffles=0).eigenvalues
            assert found == pytest.approx(expected, rel=0, abs=tolerance)

    def test_are_never_negative_where_the_rank_is_deficient(self, spectrum_of: SpectrumOf) -> None:
        spectrum = spectrum_of(gaussian(60, 5) @ gaussian(5, 50))
        assert spectrum.eigenvalues[0] >= 0.0
        assert np.count_nonzero(spectrum.eigenvalues > 1e-10) == 5

    def test_in_float32_are_close(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(200, 100)
        expected = spectrum_of(weights, shuffles=0).eigenvalues
        found = spectrum_of(weights, shuffles=0, dtype=torch.float32).eigenvalues
        assert found == pytest.approx(expected, rel=0, abs=1e-5 * expected[-1])

    def test_on_a_named_device_are_the_same(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(200, 160)
        expected, found = spectrum_of(weights), spectrum_of(weights, device="cpu")
        assert np.array_equal(found.eigenvalues, expected.eigenvalues)
        assert np.array_equal(found.shuffled_tops, expected.shuffled_tops)

    def test_float32_weights_are_promoted_before_they_are_squared(
        self, spectrum_of: SpectrumOf
    ) -> None:
        weights = gaussian(80, 60).astype(np.float32)
        singular = np.linalg.svd(weights.astype(np.float64), compute_uv=False)
        spectrum = spectrum_of(weights, shuffles=0)
        assert spectrum.eigenvalues == pytest.approx(np.sort(singular**2), rel=1e-11)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_are_nan_where_a_weight_is_not_finite(
        self, spectrum_of: SpectrumOf, bad: float
    ) -> None:
        weights = gaussian(3, 30, 20)
        weights[1, 7, 3] = bad
        spectrum = spectrum_of(weights)
        assert np.isnan(spectrum.eigenvalues).all()
        assert spectrum.eigenvalues.shape == (60,)
        assert spectrum.shuffled_tops is None

    @pytest.mark.parametrize("size", [1e154, 1e200, 1e308])
    def test_are_nan_where_a_sum_of_squares_overflows(
        self, spectrum_of: SpectrumOf, size: float
    ) -> None:
        assert np.isnan(spectrum_of(np.full((60, 60), size)).eigenvalues).all()


class TestMoments:
    def test_agree_with_scipy_over_all_slices(self, spectrum_of: SpectrumOf) -> None:
        weights = np.random.default_rng(0).standard_t(5, size=(4, 30, 20)) + 0.3
        spectrum = spectrum_of(weights)
        assert spectrum.element_mean == pytest.approx(weights.mean(), rel=1e-12)
        assert spectrum.element_variance == pytest.approx(weights.var(ddof=1), rel=1e-12)
        kurtosis = stats.kurtosis(weights.ravel(), fisher=False)
        assert spectrum.kurtosis == pytest.approx(kurtosis, rel=1e-12)
        assert spectrum.max_abs == np.abs(weights).max()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("scale", [1e-16, 1e-12, 1e12, 1e16])
    def test_kurtosis_has_no_scale(
        self, spectrum_of: SpectrumOf, scale: float, dtype: torch.dtype
    ) -> None:
        # Fourth powers of 1e12 leave float32: finite weights were called not finite.
        weights = gaussian(60, 40)
        spectrum = spectrum_of(scale * weights, dtype=dtype, shuffles=0)
        kurtosis = stats.kurtosis(weights.ravel(), fisher=False)
        assert spectrum.kurtosis == pytest.approx(kurtosis, rel=1e-5)
        assert spectrum.element_variance == pytest.approx(scale**2 * weights.var(ddof=1), rel=1e-5)

    @pytest.mark.parametrize("value", [0.0, 0.1, 0.3, -7.7, 1e-30, 1e30])
    def test_a_constant_layer_has_no_variance_and_counts_as_gaussian(
        self, spectrum_of: SpectrumOf, value: float
    ) -> None:
        spectrum = spectrum_of(np.full((70, 60), value))
        assert spectrum.element_mean == pytest.approx(value, rel=1e-12)
        assert (spectrum.element_variance, spectrum.kurtosis) == (0.0, 3.0)
        assert spectrum.max_abs == abs(value)

    def test_of_a_single_weight(self, spectrum_of: SpectrumOf) -> None:
        spectrum = spectrum_of([[2.0]])
        assert (spectrum.element_mean, spectrum.element_variance) == (2.0, 0.0)


class TestShuffles:
    def test_same_seed_same_numbers(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(50, 30)
        first, again = spectrum_of(weights, seed=3), spectrum_of(weights, seed=3)
        assert np.array_equal(first.shuffled_eigenvalues, again.shuffled_eigenvalues)
        assert np.array_equal(first.shuffled_tops, again.shuffled_tops)

    def test_other_seeds_and_other_shuffles_differ(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(50, 30)
        tops = np.vstack([spectrum_of(weights, seed=seed).shuffled_tops for seed in range(4)])
        assert len(np.unique(tops[:, 0])) == 12

    def test_more_shuffles_keep_the_first_ones(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(50, 30)
        few, many = spectrum_of(weights, shuffles=2), spectrum_of(weights, shuffles=5)
        assert many.shuffled_tops is not None
        assert np.array_equal(few.shuffled_tops, many.shuffled_tops[:2])

    @pytest.mark.parametrize("shape", [(50, 30), (4, 30, 20)])
    def test_permute_the_centred_entries_of_the_whole_layer(
        self, spectrum_of: SpectrumOf, shape: tuple[int, ...]
    ) -> None:
        weights = gaussian(*shape) + 5.0
        spectrum = spectrum_of(weights)
        assert spectrum.shuffled_eigenvalues is not None
        # Σλ is the sum of squared entries, whatever their order; the mean of 5 is gone.
        assert spectrum.shuffled_eigenvalues.sum() == pytest.approx(
            ((weights - weights.mean()) ** 2).sum(), rel=1e-6
        )
        assert spectrum.shuffled_eigenvalues[-1] < spectrum.eigenvalues[-1] / 10

    def test_destroy_what_was_planted(self, spectrum_of: SpectrumOf) -> None:
        weights = gaussian(100, 80) + 3.0 * np.outer(gaussian(100), gaussian(80, seed=1))
        spectrum = spectrum_of(weights)
        assert spectrum.shuffled_tops is not None
        edge = spectrum.element_variance * (math.sqrt(100) + math.sqrt(80)) ** 2
        assert spectrum.eigenvalues[-1] > 10 * edge
        assert spectrum.shuffled_tops.max() < 1.5 * edge

    def test_keep_the_largest_eigenvalues_of_each(self, spectrum_of: SpectrumOf) -> None:
        spectrum = spectrum_of(gaussian(50, 30), shuffles=4)
        tops, first = spectrum.shuffled_tops, spectrum.shuffled_eigenvalues
        assert tops is not None
        assert first is not None
        assert tops.shape == (4, NUM_TOPS)
        assert (np.diff(tops, axis=1) <= 0).all()
        assert np.array_equal(tops[0], first[::-1][:NUM_TOPS])

    def test_keep_all_where_there_are_fewer(self, spectrum_of: SpectrumOf) -> None:
        tops = spectrum_of(gaussian(50, 3)).shuffled_tops
        assert tops is not None
        assert tops.shape == (3, 3)

    def test_none_asked_for_is_none(self, spectrum_of: SpectrumOf) -> None:
        spectrum = spectrum_of(gaussian(50, 30), shuffles=0)
        assert spectrum.shuffled_eigenvalues is None
        assert spectrum.shuffled_tops is None

    @pytest.mark.parametrize(
        ("kind", "shape", "kept"),
        [
            ("Gaussian", (200, 160), False),
            ("signs", (400, 300), False),
            ("pruned", (200, 160), True),
            ("heavy", (200, 160), True),
            ("Gaussian", (200, 100), True),  # LAPACK finds all anyway
            ("heavy", (1100, 1100), False),
        ],
    )
    def test_keep_the_whole_spectrum_where_it_tells_something(
        self, spectrum_of: SpectrumOf, kind: str, shape: tuple[int, int], kept: bool
    ) -> None:
        weights = gaussian(*shape)
        if kind == "signs":
            weights = np.sign(weights)
        elif kind == "pruned":
            weights = weights * (gaussian(*shape, seed=1) > 1.3)
        elif kind == "heavy":
            weights = np.random.default_rng(0).standard_t(3, size=shape)
        spectrum = spectrum_of(weights, full_shuffle=None, shuffles=1)
        assert (spectrum.shuffled_eigenvalues is not None) is kept
        assert spectrum.shuffled_tops is not None

    def test_keep_no_whole_spectrum_where_told_so(self, spectrum_of: SpectrumOf) -> None:
        kept, dropped = (spectrum_of(gaussian(90, 60), full_shuffle=full) for full in (True, False))
        assert dropped.shuffled_eigenvalues is None
        assert kept.shuffled_tops == pytest.approx(dropped.shuffled_tops, rel=1e-5)

    def test_leave_every_global_generator_alone(self, spectrum_of: SpectrumOf) -> None:
        before, old = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
        spectrum_of(gaussian(50, 30))
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(np.random.get_state()[1], old)  # noqa: NPY002


def test_reads_the_weights_once_and_leaves_them_as_they_were() -> None:
    weights = torch.nn.Parameter(torch.randn(1, 40, 20, generator=torch.Generator().manual_seed(0)))
    before, reads = weights.detach().clone(), []

    def read() -> torch.Tensor:
        reads.append(1)
        return weights

    compute_spectrum(WeightMatrix("fc", "linear", (40, 20), 1, "float32", read))
    assert len(reads) == 1
    assert torch.equal(weights, before)
    assert weights.grad is None


def record(**changes: Any) -> LayerSpectrum:
    fields: dict[str, Any] = {
        "name": "fc",
        "shape": (30, 4),
        "num_slices": 1,
        "eigenvalues": np.array([3.0, 1.0, 2.0, 4.0]),
        "element_mean": 0.0,
        "element_variance": 1.0,
    }
    return LayerSpectrum(**{**fields, **changes})


class TestRecords:
    def test_eigenvalues_are_sorted_whatever_their_order(self) -> None:
        spectrum = record(shuffled_tops=[[1.0, 5.0, 3.0], [2.0, 9.0, 1.0]])
        assert spectrum.eigenvalues.tolist() == [1.0, 2.0, 3.0, 4.0]
        assert spectrum.shuffled_tops is not None
        assert spectrum.shuffled_tops.tolist() == [[5.0, 3.0, 1.0], [9.0, 2.0, 1.0]]

    def test_the_array_passed_in_is_not_touched(self) -> None:
        values = np.array([3.0, 1.0, 2.0, 4.0])
        record(eigenvalues=values)
        assert values.tolist() == [3.0, 1.0, 2.0, 4.0]

    def test_zeros_that_a_solver_left_negative_become_zeros(self) -> None:
        spectrum = record(eigenvalues=[-1e-7, -0.0, 2.0, 4.0])
        assert spectrum.eigenvalues.tolist() == [0.0, 0.0, 2.0, 4.0]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"shape": (4, 30)}, r"fc: shape must be \(N, M\) with N >= M >= 1 .* got \(4, 30\)"),
            ({"shape": (30, 0)}, r"at least one slice, got \(30, 0\) with 1 slices"),
            ({"num_slices": 0}, r"with 0 slices"),
            ({"num_slices": 2}, r"eigenvalues must hold M \* num_slices = 8 values, got .*\(4,\)"),
            (
                {"shuffled_eigenvalues": [1.0]},
                r"shuffled_eigenvalues must hold M \* num_slices = 4 values",
            ),
            (
                {"eigenvalues": [-2.0, -1.0, 0.5, 1.0]},
                "fc: eigenvalues .* no negative ones, got -2; pass squared singular values",
            ),
        ],
    )
    def test_say_what_does_not_fit(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            record(**changes)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_told_in_one_line(tmp_path: Path, device: str) -> None:
    save_file({"fc.weight": torch.ones(8, 8)}, tmp_path / "model.safetensors")
    path = str(tmp_path / "model.safetensors")
    result = CliRunner().invoke(main, ["analyze", path, "--device", device])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"wwopt: cannot compute on device '{device}': ")
    assert len(result.stderr.splitlines()) == 1
