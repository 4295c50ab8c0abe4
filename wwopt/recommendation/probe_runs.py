"""Run the probes of a study's best configuration, and find those that were run before.

Every finished probe is an MLflow run of its own beside the trials, so probing goes on where it was
interrupted. Probes belong to one configuration: when a better trial is found, they are run anew.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from wwopt.plain_data import make_plain
from wwopt.recommendation.probe_training import run_probe
from wwopt.recommendation.probes import Probe, ProbeResult, apply_size, extend_probes
from wwopt.study.layer_hyperparameters import LayerHyperparameters
from wwopt.study.spec import StudyError, StudySpec
from wwopt.tracking import log_probe, read_probes
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
    known = find_probes(study, trial, seed=seed)

    def extend() -> list[Probe]:
        return list(extend_probes({p: loss(result) for p, result in known.items()}))

    # What was interrupted may have been the extension.
    # What raised may have been mended since; what diverged would diverge again.
    missing = [p for p in probes if p not in known or known[p].raised] or extend()
    silent = not (progress and missing)
    with tqdm(total=len(missing), desc="probes", unit="probe", disable=silent) as bar:
        while missing:
            for probe in missing:
                known[probe] = run_probe(spec, hp, probe, seed=seed)
                _log(study, trial, known[probe], seed)
                bar.update()
            missing = extend()
            bar.total = bar.n + len(missing)
            bar.refresh()
    return known


def _log(study: TrackedStudy, trial: TrackedTrial, result: ProbeResult, seed: int) -> None:
    probe = result.probe
    log_probe(
        study.uri,
        study.experiment_id,
        study.run_id or "",
        name=probe.name,
        configuration=digest(trial, seed=seed),
        seconds=result.seconds,
        hyperparameters={
            "probe/kind": probe.kind,
            "probe/factor": probe.factor,
            "probe/lr_factor": probe.lr_factor,
            "probe/replicate": probe.replicate,
            "probe/trial": trial.number,
        },
        metrics=_name_metrics(result),
        document=make_plain(result.to_dict()),
        failed=result.status != "ok",
    )


def find_probes(
    study: TrackedStudy, trial: TrackedTrial, *, seed: int = 0
) -> dict[Probe, ProbeResult]:
    """The probes of a trial's configuration that were run under a seed, the last of each."""
    if study.run_id is None:
        return {}
    configuration = digest(trial, seed=seed)
    documents = read_probes(study.uri, study.experiment_id, study.run_id)
    found = [
        ProbeResult.from_dict(_revive(document))
        for probed, document in documents
        if probed == configuration
    ]
    return {result.probe: result for result in found}


def digest(trial: TrackedTrial, *, seed: int = 0) -> str:
    """Names a configuration: its hyperparameters, and the seed that its probes follow from."""
    text = json.dumps([seed, sorted(read_hyperparameters(trial).items())], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def _name_metrics(result: ProbeResult) -> dict[str, float]:
    metrics = {f"metrics/{k}": v for k, v in result.metrics.items() if k != "train_loss"}
    if "train_loss" in result.metrics:
        metrics["train/loss"] = result.metrics["train_loss"]
    return {"probe/score": result.score, "probe/seconds": result.seconds} | metrics


def _revive(document: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null stands for it."""

    def number(value: Any) -> float:
        return float("nan") if value is None else float(value)

    return {
        "probe": document["probe"],
        "status": document["status"],
        "metrics": {k: number(v) for k, v in document["metrics"].items()},
        "score": number(document["score"]),
        "layers": {
            layer: {k: number(v) for k, v in signs.items()}
            for layer, signs in document["layers"].items()
        },
        "seconds": number(document["seconds"]),
    }
