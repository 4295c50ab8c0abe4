"""What each action would bring: evidence by hand, closed forms, what is missing, invariances."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from wwopt.recommendation.evidence import Evidence
from wwopt.recommendation.gains import ACTIONS, Gains, estimate_gains
from wwopt.recommendation.probes import Kind, Probe, plan_probes

TRIALS = (0.31, 0.25, 0.22, 0.40, 0.27, 0.35, 0.24, 0.29)
ALL: tuple[Kind, ...] = ("data", "width", "epochs")


def losses(
    *,
    data: float = 0.5,
    bigger: float = 1.0,
    longer: float = 1.0,
    kinds: Iterable[Kind] = ALL,
    noise: float = 0.02,
    unit: float = 1.0,
    seed: int = 0,
) -> dict[Probe, float]:
    """Probes of a loss .05 + .15·share^-data, times each step's factor a doubling."""
    rng = np.random.default_rng(seed)
    found = {}
    for probe in plan_probes(kinds):
        share = probe.factor if probe.kind == "data" else 1.0
        doubling = {"data": 1.0, "epochs": longer}.get(probe.kind, bigger)
        factor = doubling ** (0.0 if probe.kind == "data" else math.log2(probe.factor))
        worse = 1.0 + 0.3 * abs(math.log(probe.lr_factor))
        loss = (0.05 + 0.15 * share**-data) * factor * worse
        found[probe] = unit * loss * (1.0 + noise * rng.standard_normal())
    return found


def mean(gains: Gains, action: str) -> float:
    return float(gains.draws[action].mean())  # type: ignore[index]


def without(probes: Mapping[Probe, float], *kinds: str) -> dict[Probe, float]:
    return {p: v for p, v in probes.items() if p.kind not in kinds}


def test_all_evidence_gives_draws_of_all_actions() -> None:
    gains = estimate_gains(Evidence(TRIALS, losses()), more_trials=8)
    assert set(gains.draws) == set(ACTIONS) and not gains.missing
    sizes = {draws.shape for draws in gains.draws.values()}
    assert len(sizes) == 1
    assert all(np.isfinite(draws).all() for draws in gains.draws.values())
    assert gains.now == pytest.approx(0.2, rel=0.05)  # of the retrained, not the best trial's .22


@pytest.mark.parametrize("unit", [1e-3, 100.0])
def test_the_unit_of_a_loss_does_not_matter(unit: float) -> None:
    one = estimate_gains(Evidence(TRIALS, losses()), more_trials=8)
    trials = tuple(unit * v for v in TRIALS)
    other = estimate_gains(Evidence(trials, losses(unit=unit)), more_trials=8)
    for action in ACTIONS:
        low, high = (np.quantile(g.draws[action], (0.1, 0.9)) for g in (one, other))
        assert high == pytest.approx(unit * low, rel=0.02, abs=unit * 1e-4)
    assert other.noise == pytest.approx(unit * one.noise)


def test_the_same_seed_gives_the_same_draws() -> None:
    one, same, other = (
        estimate_gains(Evidence(TRIALS, losses()), more_trials=8, seed=seed) for seed in (1, 1, 2)
    )
    for action in ACTIONS:
        assert (one.draws[action] == same.draws[action]).all()
        assert (one.draws[action] != other.draws[action]).any()
        assert mean(one, action) == pytest.approx(mean(other, action), abs=0.01)


def test_without_probes_the_mean_gain_does_not_depend_on_the_draws() -> None:
    means = [
        mean(estimate_gains(Evidence(TRIALS), more_trials=8, seed=seed), "tune")
        for seed in range(12)
    ]
    assert max(means) < 2.0 * min(means)
    assert max(means) < min(TRIALS)  # there is no more to gain


def test_too_few_trials_say_how_many_there_are() -> None:
    gains = estimate_gains(Evidence((0.3, 0.2), without(losses(), "data")), more_trials=2)
    assert gains.missing["tune"] == "2 finished trials; 3 are needed"
    failed = estimate_gains(Evidence((0.3, 0.2, math.inf)), more_trials=2)
    assert failed.missing["tune"] == "2 finished trials; 3 are needed"


def test_one_failed_seed_of_the_best_configuration_spoils_nothing() -> None:
    found = losses()
    found[Probe("data", 1.0, 1.0, 1)] = math.inf
    gains = estimate_gains(Evidence(TRIALS, found), more_trials=8)
    assert gains.now == found[Probe("data", 1.0, 1.0, 0)]
    assert all(np.isfinite(draws).all() for draws in gains.draws.values())


def test_scores_may_be_negative_and_then_noise_is_in_their_own_units() -> None:
    found = {p: v - 3.0 for p, v in losses(noise=0.0).items()}
    found = {p: v + (0.01 if p.replicate else 0.0) for p, v in found.items()}
    gains = estimate_gains(Evidence(tuple(v - 3.0 for v in TRIALS), found), more_trials=8)
    assert gains.noise == pytest.approx(0.01 / math.sqrt(2.0))
    assert gains.now == pytest.approx(0.2 - 3.0 + 0.005)
    assert all(np.isfinite(draws).all() for draws in gains.draws.values())


def test_nothing_finite_is_refused() -> None:
    evidence = Evidence((math.inf, math.nan), {Probe("data", 1.0): math.inf})
    with pytest.raises(ValueError, match="no trial and no probe has a finite value"):
        estimate_gains(evidence, more_trials=4)


def test_the_gain_of_data_is_that_of_the_law() -> None:
    """Of .05 + .15·x^-½ the next doubling brings .15·(1 - 2^-½) = .044."""
    true = 0.15 * (1.0 - 2.0**-0.5)
    for errors in (False, True):
        gains = estimate_gains(Evidence(TRIALS, losses(), errors=errors), more_trials=8)
        low, high = np.quantile(gains.draws["data"], (0.1, 0.9))
        assert low <= true <= high
    flat = estimate_gains(Evidence(TRIALS, losses(data=0.0)), more_trials=8)
    assert mean(flat, "data") < 0.25 * mean(gains, "data")


@pytest.mark.parametrize("action", ["bigger", "longer"])
def test_a_step_that_helped_so_far_gains_more_than_one_that_did_not(action: str) -> None:
    better, same, worse = (
        estimate_gains(Evidence(TRIALS, losses(**{action: factor})), more_trials=8)  # type: ignore[arg-type]
        for factor in (0.7, 1.0, 1.3)
    )
    assert 0.02 < mean(better, action) < 0.3 * 0.2
    assert 0.0 <= max(mean(worse, action), mean(same, action)) < 0.5 * mean(better, action)
    assert (worse.draws[action] >= 0.0).all()  # type: ignore[index]  # what was better is kept
    for other in {"data", "bigger", "longer"} - {action}:
        assert mean(better, other) == pytest.approx(mean(same, other), abs=0.02)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_better_rate_is_a_gain_of_tuning_and_of_nothing_else(share: float) -> None:
    found = losses()
    own = found[Probe("data", share)]
    rates = {Probe("data", share, 3.0): 0.5 * own}
    one, other = (
        estimate_gains(Evidence(TRIALS, e), more_trials=8) for e in (found, found | rates)
    )
    assert mean(other, "tune") > mean(one, "tune") + 0.02
    assert mean(other, "longer") == pytest.approx(mean(one, "longer"), abs=0.01)
    low, high = (np.quantile(other.draws["tune"], q) for q in (0.1, 0.9))
    assert high - low > (0.05 if share < 1.0 else 0.0)  # on a part of the data it is less sure


def test_without_probes_only_tuning_is_judged() -> None:
    gains = estimate_gains(Evidence(TRIALS), more_trials=8)
    assert set(gains.draws) == {"tune"} and gains.now == min(TRIALS) and gains.curve is None
    assert gains.missing == {
        "data": "probes at 0 shares of the data; 3 are needed",
        "bigger": "no probe of width or depth",
        "longer": "no probe of epochs",
    }
    assert gains.unprobed == ("data", "longer")


def test_what_failed_is_told_from_what_was_not_run_and_spoils_nothing_else() -> None:
    failed = {p: math.inf if p.kind == "epochs" else v for p, v in losses().items()}
    gains = estimate_gains(Evidence(TRIALS, failed), more_trials=8)
    assert gains.missing == {"longer": "the probes of epochs failed"} and not gains.unprobed
    gains = estimate_gains(Evidence(TRIALS, without(failed, "width")), more_trials=8)
    assert gains.missing["bigger"] == "no probe of width or depth"
    again = {p: math.inf if p.factor == 1.0 else v for p, v in losses().items()}
    gains = estimate_gains(Evidence(TRIALS, again), more_trials=8)
    assert gains.now == min(TRIALS) and {"data", "tune"} <= set(gains.draws)


def test_a_curve_that_rises_has_no_gain_and_says_why() -> None:
    found = losses(noise=0.001)
    risen = {p: v * (4.0 if (p.kind, p.factor) == ("data", 0.5) else 1.0) for p, v in found.items()}
    gains = estimate_gains(Evidence(TRIALS, risen), more_trials=8)
    assert "data" not in gains.draws and gains.curve is not None
    assert gains.missing["data"].startswith("its curve is not to be extrapolated: it rises")


def test_scores_without_two_seeds_have_no_noise_and_so_no_gains() -> None:
    found = {p: v - 3.0 for p, v in losses().items() if p.replicate == 0}
    gains = estimate_gains(Evidence(tuple(v - 3.0 for v in TRIALS), found), more_trials=8)
    assert not gains.draws and set(gains.missing.values()) == {
        "no two probes that differ by their seed alone tell the noise"
    }
