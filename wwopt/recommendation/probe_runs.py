"""Run the probes of a study's best configuration that were not run before.

Every finished probe is an MLflow run of its own beside the trials, so probing goes on where it was
interrupted. Probes belong to one configuration: when a better trial is found, they are run anew.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

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
    seed: int = 0,
    progress: bool = True,
) -> dict[Probe, ProbeResult]:
    """Run the probes that were not run before, and further learning rates where they are needed.

    Args:
        spec: how the study trains.
        study: as tracked; its parent run gets the probes as children.
        trial: whose configuration is probed.
        probes: to run.
        loss: of a result, lower is better: what learning rates are compared by.
        known: what is there, as `find_probes` reads it; None to read it.
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

    def extend() -> list[Probe]:
        return list(extend_probes({p: loss(result) for p, result in found.items()}))

    # What was interrupted may have been the extension.
    # What raised may have been mended since; what diverged would diverge again.
    missing = [p for p in probes if p not in found or found[p].raised] or extend()
    silent = not (progress and missing)
    with tqdm(total=len(missing), desc="probes", unit="probe", disable=silent) as bar:
        while missing:
            for probe in missing:
                result = run_probe(spec, hp, probe, seed=seed)
                found[probe] = log_result(study, trial, result, seed=seed)
                bar.update()
            missing = extend()
            bar.total = bar.n + len(missing)
            bar.refresh()
    return found


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
