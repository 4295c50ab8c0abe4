"""Which sampler and pruner a study gets where it names none: by score, dimensions, budget, pruning.

    random  under the weights-only score. A search that minimises it learns to please it, and gained
         nothing on the score's own choice among as many random networks: -.05 points of test error
         [-.66, +.65] on one set of seeds, +.19 on another (docs/studies.md)
    gp   a Gaussian process, at most 30 dimensions and 300 trials, and no pruner asked for: on 9
         depth knots and 45 trials its best point is 3 times nearer than TPE's (.018 against .055),
         but fitting costs the cube of the trials, and it learns nothing from pruned ones
    cma  CMA-ES, more than 10 trials a dimension and beyond the Gaussian process, without
         constraints (it ignores them) and where the package `cmaes` is installed
    tpe  else: multivariate TPE, which learns from pruned trials

Figures: one synthetic problem, 3 to 5 seeds. Under a sampler that ignores pruned trials there is no
pruner: what it stops, the search forgets. Otherwise it is the median of the trials before, from
half of the epochs on: earlier, alpha means nothing.

The choice is made at a study's first trial and kept with it. A sampler or pruner of the study's own
replaces it.
"""

import copy
import importlib.util
from typing import Literal, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState

from wwopt.study.constraints import is_feasible
from wwopt.tuning.samplers.trials_view import ViewingSampler

SamplerKind = Literal["gp", "tpe", "cma", "random"]

GP_DIMENSIONS, GP_TRIALS = 30, 300  # its fit is O(trials³); Optuna's own advice is up to 500
CMA_TRIALS_PER_DIMENSION = 10  # below, its covariance is not learned


def choose_sampler(
    dimensions: int,
    trials: int,
    *,
    pruning: bool = False,
    constrained: bool = False,
    weights_only: bool = False,
) -> SamplerKind:
    """Choose by the rules in the module's docstring.

    Args:
        dimensions: hyperparameters that a trial samples.
        trials: that the study shall have.
        pruning: whether a pruner was asked for.
        constrained: whether trials carry constraints.
        weights_only: whether that score is the objective.
    """
    if weights_only:
        return "random"
    if dimensions <= GP_DIMENSIONS and trials <= GP_TRIALS and not pruning:
        return "gp"
    enough = trials > CMA_TRIALS_PER_DIMENSION * dimensions
    installed = importlib.util.find_spec("cmaes") is not None
    return "cma" if enough and installed and not (pruning or constrained) else "tpe"


def make_sampler(kind: SamplerKind, seed: int) -> optuna.samplers.BaseSampler:
    """Make a sampler.

    Raises:
        ValueError: if the kind is unknown.
    """
    if kind == "gp":
        gp = optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        return ViewingSampler(gp, rewrite=count_rejected)
    if kind == "cma":
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if kind == "tpe":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)
    raise ValueError(f"unknown sampler {kind!r}; known: {', '.join(get_args(SamplerKind))}")


def make_pruner(sampler: optuna.samplers.BaseSampler, *, epochs: int) -> optuna.pruners.BasePruner:
    """The pruner that suits a sampler: none under one that ignores pruned trials."""
    while isinstance(sampler, ViewingSampler):
        sampler = sampler.sampler
    if isinstance(sampler, optuna.samplers.GPSampler | optuna.samplers.CmaEsSampler):
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=epochs // 2)


def count_rejected(trials: list[FrozenTrial], trial: FrozenTrial) -> list[FrozenTrial]:
    """Show rejected trials as complete ones just worse than the worst, without constraints.

    A trial with a broken layer is pruned by name, and one may violate a constraint. A Gaussian
    process that ignored them would go on sampling where training collapses; one that saw the
    penalty of 10 among values that differ by .1 would see little else; and one that fitted every
    constraint by a process of its own would cost several times as much.
    """
    finished = [t for t in trials if len(t.values or ()) == 1]
    feasible = [t for t in finished if t.state == TrialState.COMPLETE and is_feasible(t)]
    values = [t.values[0] for t in feasible] or [0.0]
    worst, spread = max(values), max(values) - min(values)
    rejected = worst + (0.1 * spread if spread > 0.0 else 1.0)
    return [_show(t, rejected) if t.state.is_finished() else t for t in trials]


def _show(trial: FrozenTrial, value: float) -> FrozenTrial:
    rejected = trial.state == TrialState.PRUNED or not is_feasible(trial)
    if not trial.params or len(trial.values or ()) != 1:
        return trial
    if not rejected and not trial.constraints:
        return trial
    shown = copy.copy(trial)
    shown.system_attrs = {}
    if rejected:
        shown.state, shown.value = TrialState.COMPLETE, value
    return shown
