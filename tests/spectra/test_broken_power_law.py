"""Known slopes are found, and one slope gains nothing from a second."""

import numpy as np
import pytest
from fixtures.weights.layers import quantiles
from numpy.typing import NDArray

from wwopt.spectra.broken_power_law import broken_density, fit_broken_power_law


@pytest.mark.parametrize(
    ("low", "high", "turn"), [(1.5, 4.0, 4.0), (4.0, 1.8, 2.0), (0.5, 3.0, 4.0)]
)
def test_recovers_the_slopes_it_was_given(low: float, high: float, turn: float) -> None:
    fit = fit_broken_power_law(quantiles(low, high, turn, size=2000))
    assert fit is not None
    assert fit.alpha_low == pytest.approx(low, abs=0.2)
    assert fit.alpha_high == pytest.approx(high, rel=0.07)
    assert fit.break_at == pytest.approx(turn, rel=0.15)
    assert fit.gain > 100.0
    assert fit.D < 0.02


def test_one_slope_gains_nothing() -> None:
    u = (np.arange(1000) + 0.5) / 1000
    fit = fit_broken_power_law((1.0 - u) ** (-1.0 / 1.5))
    assert fit is not None
    assert 0.0 <= fit.gain < 1.0
    assert fit.alpha_high == pytest.approx(2.5, abs=0.1)


def test_rescaling_moves_the_break_and_nothing_else() -> None:
    tail = np.random.default_rng(0).pareto(1.5, 300) + 1.0
    fit, scaled = fit_broken_power_law(tail), fit_broken_power_law(8.0 * tail)
    assert fit is not None and scaled is not None
    assert scaled.break_at == 8.0 * fit.break_at and scaled.xmin == 8.0 * fit.xmin
    assert scaled.alpha_low == pytest.approx(fit.alpha_low, rel=1e-6)
    assert scaled.gain == pytest.approx(fit.gain, abs=1e-6)


def test_the_density_integrates_to_one() -> None:
    fit = fit_broken_power_law(quantiles(1.5, 4.0, turn=4.0, size=500))
    assert fit is not None
    at = np.geomspace(fit.xmin, 1e5 * fit.xmin, 20_001)
    assert np.trapezoid(broken_density(fit, at), at) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("tail", [np.arange(1.0, 21.0), np.full(100, 2.0), np.empty(0)])
def test_a_short_or_flat_tail_has_no_fit(tail: NDArray[np.float64]) -> None:
    assert fit_broken_power_law(tail) is None
