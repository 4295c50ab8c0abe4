"""Guards in an Optuna study: the constraints of a trial, and whether it keeps to them.

Every guard is a constraint `guards/<name>` of the trial, and stands in its user attribute
"constraints". TPE and NSGA-II sample by them, and a Gaussian process can. CMA-ES cannot and warns
of each trial that carries any: under it only the user attribute is set, and the best trial is
chosen by that all the same (`wwopt.study.choice`).
"""

from collections.abc import Iterable, Mapping

import optuna
from optuna.trial import FrozenTrial

from wwopt.metrics.guards import MEMORISING, violation
from wwopt.tracking.keys import GUARDS

CONSTRAINTS_ATTR = "constraints"  # user attribute: guard → value


def set_constraints(trial: optuna.trial.BaseTrial, values: Mapping[str, float]) -> None:
    """Store guards with a trial; once, at its end."""
    trial.set_user_attr(CONSTRAINTS_ATTR, dict(values))
    if _sampled_by_cma(trial):
        return
    inherited = trial.constraints
    for guard, value in values.items():
        name = f"{GUARDS}/{guard}"
        if name not in inherited:
            trial.set_constraint(name, value)
        elif isinstance(trial, optuna.Trial):
            # Optuna's retry of a trial whose process died copies the constraints of the dead one,
            # and `set_constraint` keeps the first value for ever. The new network has its own.
            trial.storage.set_trial_system_attr(trial._trial_id, f"constraints:{name}", value)


def constraints_of(trial: FrozenTrial) -> dict[str, float]:
    """All constraints of a trial, those of the study's owner among them."""
    guards = trial.user_attrs.get(CONSTRAINTS_ATTR, {})
    return {f"{GUARDS}/{guard}": value for guard, value in guards.items()} | trial.constraints


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether no constraint is violated; a trial without constraints is feasible."""
    return violation(constraints_of(trial)) == 0.0


def memorises(trial: FrozenTrial) -> bool:
    """Whether that guard alone refuses a trial: all else about it is fine."""
    violated = [name for name, value in constraints_of(trial).items() if value > 0.0]
    return violated == [f"{GUARDS}/{MEMORISING}"]


def find_least_infeasible(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The trial that violates its constraints least; None without any."""
    return min(trials, key=lambda t: (violation(constraints_of(t)), t.number), default=None)


def _sampled_by_cma(trial: optuna.trial.BaseTrial) -> bool:
    study = getattr(trial, "study", None)
    sampler = None if study is None else study.sampler
    while (
        inner := getattr(sampler, "sampler", None)
    ) is not None:  # of wwopt.tuning.samplers.trials_view
        sampler = inner
    return isinstance(sampler, optuna.samplers.CmaEsSampler)
