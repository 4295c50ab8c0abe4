"""The truncated power law: its normaliser in closed form, its fit against other witnesses."""

import math

import numpy as np
import pytest
from scipy import integrate, special

from wwopt.spectra.truncated_power_law import _moments, fit_truncated_power_law, tail_cutoff


def sample(alpha: float, rate: float, size: int, seed: int = 0) -> np.ndarray:
    """Rejection from a pure power law on [1, ∞)."""
    rng = np.random.default_rng(seed)
    pure = (1.0 - rng.random(50 * size)) ** (-1.0 / (alpha - 1.0))
    return pure[rng.random(pure.size) < np.exp(-rate * (pure - 1.0))][:size]


def pure_alpha(tail: np.ndarray) -> float:
    return float(1.0 + tail.size / np.log(tail / tail.min()).sum())


@pytest.mark.parametrize("order", [1, 2, 3, 7])
@pytest.mark.parametrize("rate", [1e-3, 0.1, 1.0, 5.0])
def test_the_normaliser_is_the_exponential_integral(order: int, rate: float) -> None:
    assert _moments(order, rate)[0] == pytest.approx(math.log(special.expn(order, rate)))


@pytest.mark.parametrize(("alpha", "rate"), [(0.5, 0.2), (2.3, 0.05), (1.0, 1e-4)])
def test_the_normaliser_is_the_integral(alpha: float, rate: float) -> None:
    value, _ = integrate.quad(
        lambda u: math.exp((1 - alpha) * u - rate * math.exp(u)), 0, 40, limit=500
    )
    assert _moments(alpha, rate)[0] == pytest.approx(math.log(value), rel=1e-8)


def test_a_pure_tail_normalises_to_its_closed_form() -> None:
    assert _moments(3.5, 1e-12)[0] == pytest.approx(-math.log(2.5), abs=1e-9)


def test_recovers_what_was_planted() -> None:
    tail = sample(2.0, 0.05, 4000)
    fit = fit_truncated_power_law(tail, alpha=pure_alpha(tail))
    assert fit.alpha == pytest.approx(2.0, abs=0.1)
    assert fit.Lambda == pytest.approx(0.05, rel=0.2)
    assert fit.p_value < 1e-6


def test_agrees_with_powerlaw_on_a_given_tail() -> None:
    powerlaw = pytest.importorskip("powerlaw", reason="comes with the extra parity")
    tail = sample(2.0, 0.05, 2000)
    theirs = powerlaw.Fit(tail, xmin=tail.min(), verbose=False).truncated_power_law
    ours = fit_truncated_power_law(tail, alpha=pure_alpha(tail))
    assert ours.alpha == pytest.approx(theirs.parameter1, rel=1e-3)
    assert ours.Lambda == pytest.approx(theirs.parameter2, rel=1e-3)


def test_a_pure_power_law_is_not_rejected_more_often_than_it_should_be() -> None:
    rejected = 0
    for seed in range(100):
        tail = sample(2.5, 0.0, 100, seed)
        rejected += fit_truncated_power_law(tail, alpha=pure_alpha(tail)).p_value < 0.05
    assert rejected <= 11  # a binomial of 100 at .05 exceeds 11 in 0.4 % of cases


def test_rescaling_the_weights_rescales_the_cutoff_and_nothing_else() -> None:
    tail = sample(2.0, 0.05, 500)
    fit = fit_truncated_power_law(tail, alpha=pure_alpha(tail))
    scaled = fit_truncated_power_law(8.0 * tail, alpha=pure_alpha(tail))
    assert scaled.alpha == pytest.approx(fit.alpha, rel=1e-12)
    assert scaled.Lambda == pytest.approx(fit.Lambda / 8.0, rel=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_no_other_parameters_within_the_bounds_are_likelier(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(90, 60)) * rng.gamma(1.0 + 5.0 * rng.random(), size=60)
    tail = np.linalg.eigvalsh(matrix.T @ matrix)[-20:]  # bends, so that some rest on a bound
    t = tail / tail.min()

    def cost(alpha: float, rate: float) -> float:
        return alpha * np.log(t).mean() + rate * t.mean() + _moments(alpha, rate)[0]

    fit = fit_truncated_power_law(tail, alpha=pure_alpha(tail))
    assert 0.0 <= fit.alpha <= 50.0 and 0.0 < fit.Lambda * tail.min() <= 50.0
    found = cost(fit.alpha, fit.Lambda * tail.min())
    for alpha in np.linspace(0.0, 10.0, 21):
        for rate in np.geomspace(1e-3, 50.0, 25):
            assert found <= cost(float(alpha), float(rate)) + 1e-12


def test_where_no_cutoff_gains_the_law_stays_pure() -> None:
    tail = np.append(sample(2.5, 0.0, 200), 1e4)  # one eigenvalue far beyond a pure tail
    fit = fit_truncated_power_law(tail, alpha=pure_alpha(tail))
    assert fit.alpha == pytest.approx(pure_alpha(tail), rel=1e-12)
    assert (fit.Lambda, fit.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("tail", [[1.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
def test_what_cannot_be_fitted_is_not_a_number(tail: list[float]) -> None:
    fit = fit_truncated_power_law(np.array(tail), alpha=2.0)
    assert math.isnan(fit.alpha) and math.isnan(fit.Lambda) and math.isnan(fit.p_value)


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_the_cutoff_of_the_top_quarter_is_the_planted_one(rate: float) -> None:
    found = []
    for seed in range(8):
        tail = np.sort(sample(2.0, rate, 1000, seed))
        found.append(tail_cutoff(np.concatenate([np.linspace(0.1, 0.9, 3000), tail])) / tail[-1])
    assert np.mean(found) == pytest.approx(rate, rel=0.2)


def test_the_tails_of_pure_power_laws_seldom_bend() -> None:
    tails = (np.sort(sample(2.0, 0.0, 1000, seed)) for seed in range(20))
    found = [tail_cutoff(np.concatenate([np.linspace(0.1, 0.9, 3000), t])) for t in tails]
    assert np.mean(np.array(found) > 1.3) <= 0.2


def test_the_cutoff_has_no_unit() -> None:
    spectrum = np.sort(sample(2.0, 0.1, 400))
    assert tail_cutoff(1e-4 * spectrum) == pytest.approx(tail_cutoff(spectrum), rel=1e-6)


@pytest.mark.parametrize(
    "spectrum", [np.arange(1.0, 9.0), np.ones(100), np.concatenate([np.zeros(95), np.arange(5.0)])]
)
def test_a_top_that_does_not_spread_has_no_cutoff(spectrum: np.ndarray) -> None:
    assert math.isnan(tail_cutoff(spectrum))
