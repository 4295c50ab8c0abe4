"""The pressure of a search, in nats: closed forms, and a study that contracts."""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from wwopt.tuning.pressure import FEWEST, pressure_of_choosing, pressure_of_search

LR = FloatDistribution(1e-4, 1.0, log=True)
DROPOUT = FloatDistribution(0.0, 0.5)


def trial(lr: float, dropout: float) -> FrozenTrial:
    params = {"lr": lr, "dropout": dropout, "kind": "a"}
    kinds = {"lr": LR, "dropout": DROPOUT, "kind": CategoricalDistribution(("a", "b"))}
    return create_trial(value=0.0, params=params, distributions=kinds)


def trials(count: int, share: float) -> list[FrozenTrial]:
    """Evenly spread over that share of both ranges, in an order that the last third spans too."""
    places = np.random.default_rng(0).permuted(np.linspace(0.5 - share / 2, 0.5 + share / 2, count))
    return [trial(10.0 ** (-4.0 + 4.0 * place), 0.5 * place) for place in places]


@pytest.mark.parametrize(("count", "nats"), [(1, 0.0), (5, 0.81), (20, 2.05), (200, 4.30)])
def test_choosing_costs_what_the_formula_says(count: int, nats: float) -> None:
    assert pressure_of_choosing(count) == pytest.approx(nats, abs=5e-3)


def test_a_search_that_fills_its_ranges_has_not_moved() -> None:
    assert pressure_of_search(trials(3000, 1.0)) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("share", [1 / 3, 0.1])
def test_each_dimension_counts_its_contraction_on_its_own_scale(share: float) -> None:
    expected = 2.0 * math.log(1.0 / share)  # the categorical one counts for nothing
    assert pressure_of_search(trials(3000, share)) == pytest.approx(expected, abs=0.1)


def test_the_last_third_speaks() -> None:
    late = trials(600, 1.0)[:400] + trials(200, 0.1)
    assert pressure_of_search(late) == pytest.approx(2.0 * math.log(10.0), abs=0.2)


def test_equal_values_have_an_end() -> None:
    assert pressure_of_search([trial(0.01, 0.25)] * 30) == pytest.approx(2.0 * math.log(1000.0))


def test_of_few_trials_nothing_is_said() -> None:
    assert math.isnan(pressure_of_search(trials(FEWEST - 1, 0.1)))


def test_a_sampler_that_exploits_presses_harder_than_a_random_one() -> None:
    found = {}
    for name, sampler in (
        ("random", optuna.samplers.RandomSampler(seed=0)),
        ("tpe", optuna.samplers.TPESampler(seed=0, n_startup_trials=5)),
    ):
        study = optuna.create_study(sampler=sampler)
        study.optimize(
            lambda t: (math.log10(t.suggest_float("lr", 1e-4, 1.0, log=True)) + 2.0) ** 2,
            n_trials=45,
        )
        found[name] = pressure_of_search(study.trials)
    assert found["tpe"] > found["random"] + 0.5
