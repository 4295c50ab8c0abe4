"""Coarse to fine: search the depth profile first, then refine one layer at a time.

The first trials sample three knots per hyperparameter, with whatever sampler. Each later trial
starts at every layer's own values in the best complete trial so far and moves the values of one
layer, in turn: a (1+1) evolution strategy on blocks of coordinates. Which phase a trial is in, and
which layer it moves, follows from its number, and its random numbers from the seed and that
number: an interrupted search goes on as it would have, and several workers move different layers.

The step is normal with a deviation of .1 of the range (of its logarithm for learning rates). On the
synthetic profiles of `studies/search_spaces.py` .05, .1 and .2 end about equally far.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from wwopt.study.choice import find_lowest
from wwopt.study.constraints import find_least_infeasible
from wwopt.study.space.layer_space import LayerSpace
from wwopt.study.tries import place_of
from wwopt.tuning.samplers.trials_view import ViewingSampler

STEP = 0.1  # standard deviation of a move, in units of the range


def make_refining_sampler(
    space: LayerSpace, coarse: optuna.samplers.BaseSampler, *, seed: int = 0
) -> optuna.samplers.BaseSampler:
    """Make the sampler of a coarse-to-fine space.

    Args:
        space: with tie="coarse-to-fine".
        coarse: samples the depth profile.
        seed: of the moves.
    """

    def decide(study: optuna.Study, trial: FrozenTrial) -> Mapping[str, Any]:
        place = place_of(trial)
        best = find_start(study) if space.refines(place) else None
        return {} if best is None else move_layer(space, best, number=place, seed=seed)

    return ViewingSampler(coarse, decide=decide)


def find_start(study: optuna.Study) -> FrozenTrial | None:
    """The best complete trial, or the least infeasible one where none is feasible."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    known = [trial for trial in complete if "hyperparameters" in trial.user_attrs]
    return find_lowest(known) or find_least_infeasible(known)


def move_layer(
    space: LayerSpace, start: FrozenTrial, *, number: int, seed: int
) -> dict[str, float | int]:
    """Values of the trial of a number: those of another trial, those of one layer moved."""
    layer = space.layers[(number - space.num_coarse_trials) % len(space.layers)]
    rng = np.random.default_rng([seed, number])
    values = start.user_attrs["hyperparameters"]
    return {
        name: _move(values[name], distribution, rng if name.endswith(f"/{layer}") else None)
        for name, distribution in space.distributions(number).items()
    }


def _move(
    value: float, distribution: BaseDistribution, rng: np.random.Generator | None
) -> float | int:
    """The value, moved where there is a generator, and inside the distribution's range."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if rng is not None:
        a, b, x = (math.log(v) if distribution.log else v for v in (low, high, value))
        x += STEP * (b - a) * float(rng.standard_normal())
        x = a + abs(x - a)  # reflected at the bounds, where clipping would heap up trials
        x = b - abs(b - x)
        value = math.exp(x) if distribution.log else x
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else value
