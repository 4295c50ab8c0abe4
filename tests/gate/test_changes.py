"""What changed in a layer, against closed forms and a known amount of noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from fixtures.weights.damaged_models import edited, model, pushed, trained

import wwopt
from wwopt.gate.changes import LayerChange, compare_spectra, compare_weights
from wwopt.weights.matrices import read_weights


def test_the_same_model_has_no_differences() -> None:
    result = wwopt.check(model(), model())
    assert result.passed
    for layer in result.layers:
        known = {k: v for k, v in vars(layer.change).items() if k != "levels"}
        assert known.pop("scale") == 1.0
        assert known.pop("cosine") == pytest.approx(1.0, abs=1e-6)  # of float32 products
        expected_nan = {"hill"} if layer.name == "head" else set()  # 10 eigenvalues have no Hill
        assert {k for k, v in known.items() if math.isnan(v)} == expected_nan
        assert all(v == 0.0 for v in known.values() if not math.isnan(v))


def test_units_do_not_matter() -> None:
    small = wwopt.check(model(), edited(lambda w: pushed(w, 0.2))).to_frame()
    scaled = {name: 64.0 * w for name, w in model().items()}
    large = wwopt.check(scaled, {n: 64.0 * w for n, w in edited(lambda w: pushed(w, 0.2)).items()})
    columns = ["scale", "ks", "hill", "spectral_norm", "stable_rank", "kurtosis", "noise", "mean"]
    np.testing.assert_allclose(
        large.to_frame()[columns].to_numpy(), small[columns].to_numpy(), rtol=1e-4, atol=1e-6
    )


def test_the_noise_is_what_was_added(spectrum_of: Callable[..., object]) -> None:
    """A known amount of Gaussian noise beside a large low-rank step is found to a tenth."""
    before = trained(200, 120, 0)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(200, 120, generator=generator) * before.std() * 0.2
    matrices = [
        read_weights({"fc.weight": w}).matrices[0]
        for w in (before, before + noise, pushed(before, 0.5) + noise, pushed(before, 0.5))
    ]
    change = LayerChange(scale=1.0)
    found = [compare_weights(change, matrices[0], other).noise for other in matrices[1:]]
    assert found[0] == pytest.approx(0.2, rel=0.05)
    assert found[1] == pytest.approx(0.2, rel=0.05)  # the step adds nothing
    assert found[2] < 1e-6


def test_scale_and_shape_in_closed_form() -> None:
    """Diagonal matrices: eigenvalues 1, 4, …, 64²; then all × 9, and the largest × 16 more."""
    sizes = torch.arange(1.0, 65.0)
    before = wwopt.analyze({"fc.weight": torch.diag(sizes)})["fc"]
    after = 3.0 * sizes
    after[-1] *= 4.0
    change = compare_spectra(before, wwopt.analyze({"fc.weight": torch.diag(after)})["fc"])
    assert change.scale == pytest.approx(3.0)
    assert change.spectral_norm == pytest.approx(math.log(16.0))
    assert change.ks == pytest.approx(1 / 64)  # one of 64 lies beyond all of before's
    total = 64 * 65 * 129 / 6
    norm = math.log((total + 15 * 64**2) / total)
    assert change.norm == pytest.approx(norm)
    assert change.stable_rank == pytest.approx(norm - math.log(16.0))
    half = torch.cat([0.01 * sizes[:16], sizes[16:]])
    moved = compare_spectra(before, wwopt.analyze({"fc.weight": torch.diag(half)})["fc"])
    assert moved.ks == pytest.approx(16 / 64)  # .16² < 1: sixteen fell below the smallest
