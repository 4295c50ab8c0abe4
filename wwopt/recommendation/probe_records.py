"""What probes gave, as MLflow keeps it: logged one by one, found again by what they probed."""

import hashlib
import json

from wwopt.plain_data import make_plain
from wwopt.recommendation.probes import Probe, ProbeResult
from wwopt.tracking import log_probe, read_probes
from wwopt.tracking.hyperparameters import read_hyperparameters
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial


def log_result(
    study: TrackedStudy, trial: TrackedTrial, result: ProbeResult, *, seed: int
) -> ProbeResult:
    """Log a probe of a trial's configuration as a run of its own.

    Returns:
        The result as it will be read back, where what is not finite is NaN.

    Raises:
        TrackingError: if the tracking store does not accept the run.
    """
    probe = result.probe
    document = make_plain(result.to_dict())
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
        document=document,
        failed=result.status != "ok",
    )
    return ProbeResult.from_dict(document)


def find_probes(
    study: TrackedStudy, trial: TrackedTrial, *, seed: int = 0
) -> dict[Probe, ProbeResult]:
    """The probes of a trial's configuration that were run under a seed, the last of each."""
    if study.run_id is None:
        return {}
    configuration = digest(trial, seed=seed)
    documents = read_probes(study.uri, study.experiment_id, study.run_id, configuration)
    return {result.probe: result for result in map(ProbeResult.from_dict, documents)}


def digest(trial: TrackedTrial, *, seed: int = 0) -> str:
    """Names a configuration: its hyperparameters, and the seed that its probes follow from."""
    text = json.dumps([seed, sorted(read_hyperparameters(trial).items())], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _name_metrics(result: ProbeResult) -> dict[str, float]:
    metrics = {f"metrics/{k}": v for k, v in result.metrics.items() if k != "train_loss"}
    if "train_loss" in result.metrics:
        metrics["train/loss"] = result.metrics["train_loss"]
    return {"probe/score": result.score, "probe/seconds": result.seconds} | metrics
