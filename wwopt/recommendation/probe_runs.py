"""Run the probes of a study's best configuration that were not run before.

Every finished probe is an MLflow run of its own beside the trials, so probing goes on where it was
interrupted. Probes belong to one configuration: when a better trial is found, they are run anew.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from tqdm import tqdm

from wwopt.recommendation.probe_plans import Budget
from wwopt.recommendation.probe_records import find_probes, log_result
from wwopt.recommendation.probe_training import run_probe
from wwopt.recommendation.probes import Probe, ProbeResult, apply_size, extend_probes
from wwopt.study.errors import StudyError
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters
from wwopt.study.spec import StudySpec
from wwopt.tracking.hyperparameters import read_hyperparameters
from wwopt.tracking.keys import unique_keys
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial


def run_probes(
    spec: StudySpec,
    study: TrackedStudy,
    trial: TrackedTrial,
    probes: Sequence[Probe],
    loss: Callable[[ProbeResult], float],
    *,
    known: Mapping[Probe, ProbeResult] | None = None,
    budget: Budget | None = None,
    enough: Callable[[Mapping[Probe, ProbeResult]], bool] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[Probe, ProbeResult]:
    """Run the probes that were not run before, and further learning rates where they are needed.

    Those that follow from what others gave, of learning rates, come before further seeds. What is
    beyond the budget is left out, also where trainings take longer than was foreseen.

    Args:
        spec: how the study trains.
        study: as tracked; its parent run gets the probes as children.
        trial: whose configuration is probed.
        probes: to run, in the order of their worth.
        loss: of a result, lower is better: what learning rates are compared by.
        known: what is there, as `find_probes` reads it; None to read it.
        budget: what they may cost; None for as much as they do.
        enough: of all results so far; asked before each further seed, and none follows once it is
            true.
        seed: of initialisation, data order and shuffles.
        progress: show a bar.

    Returns:
        All results of this configuration, failed ones among them.

    Raises:
        StudyError: if the trial's hyperparameters are not those of the study's space.
        TrackingError: if the tracking store does not accept a run.
    """
    if study.run_id is None:
        raise StudyError(f"study {study.name!r} has no parent run; `wwopt tune` makes one")
    hp = read_configuration(spec, trial)
    found = find_probes(study, trial, seed=seed) if known is None else dict(known)
    spent = _Spent(budget or Budget(math.inf), trial.duration)
    tried: set[Probe] = set()

    def list_left() -> tuple[list[Probe], list[Probe]]:
        # What was interrupted may have been the extension.
        # What raised may have been mended since; what diverged would diverge again.
        further = extend_probes({p: loss(result) for p, result in found.items()})
        wanted = [p for p in probes if p not in found or found[p].raised]
        first = list(takewhile(lambda p: p.replicate == 0, wanted))

        def keep(ordered: Iterable[Probe]) -> list[Probe]:
            return [p for p in ordered if p not in tried and spent.allows(p, found)]

        return keep([*first, *further]), keep(wanted[len(first) :])

    needed, rest = list_left()
    total = len(needed) + len(rest)
    with tqdm(total=total, desc="probes", unit="probe", disable=not (progress and total)) as bar:
        while needed or (rest and not (enough is not None and enough(found))):
            probe = (needed or rest)[0]
            result = run_probe(spec, hp, probe, seed=seed)
            tried.add(probe)
            found[probe] = log_result(study, trial, result, seed=seed)
            spent.add(result)
            bar.update()
            needed, rest = list_left()
            bar.total = bar.n + len(needed) + len(rest)
            bar.refresh()
    return found


class _Spent:
    """What probes of this call have cost, and whether one more is within the budget."""

    def __init__(self, budget: Budget, seconds: float) -> None:
        self._budget = budget
        self._training = 0.0 if math.isnan(seconds) else seconds
        self._seconds, self._cost = 0.0, 0.0

    def add(self, result: ProbeResult) -> None:
        self._seconds += result.seconds if math.isfinite(result.seconds) else 0.0
        self._cost += result.probe.cost

    def allows(self, probe: Probe, found: Mapping[Probe, ProbeResult]) -> bool:
        total = sum(p.cost for p in found if p != probe) + probe.cost
        each = self._seconds / self._cost if self._cost else self._training
        seconds = self._seconds + max(each, self._training) * probe.cost
        return total <= self._budget.trainings + 1e-9 and seconds <= self._budget.seconds


def read_configuration(spec: StudySpec, trial: TrackedTrial) -> LayerHyperparameters:
    """A trial's hyperparameters as its study's `train` wants them.

    Raises:
        StudyError: if one that the study's space has is missing.
    """
    logged = read_hyperparameters(trial)
    size: dict[str, Any] = {name: _number(logged.get(name)) for name in ("width", "depth")}
    space = spec.space_at(apply_size(spec.conditions, LayerHyperparameters(lr={}, **size)))

    def read(kind: str, layers: Sequence[str]) -> dict[str, float]:
        values = {}
        keys = unique_keys(f"{kind}/{layer}" for layer in layers)
        for layer, key in zip(layers, keys, strict=True):
            if key not in logged:
                raise StudyError(
                    f"trial {trial.number} has no {key}: it was not made by study {spec.name!r} as "
                    f"it is now; name the study file that it was tuned with"
                )
            values[layer] = float(logged[key])
        return values

    values: dict[str, Any] = {
        kind: read(kind, space.dropout_layers if kind == "dropout" else space.layers)
        for kind in space.ranges
    }
    batch = logged.get("batch_size")
    return LayerHyperparameters(
        **values,
        functional=space.functional,
        batch_size=None if batch is None else int(batch),
        **size,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
