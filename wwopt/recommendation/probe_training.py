"""Train one probe: a network outside of any study, analysed at its end."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna
import torch

from wwopt.metrics.analysis import analyze
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.recommendation.probes import Probe, ProbeResult, apply_probe, apply_size
from wwopt.study.conditions import Conditions
from wwopt.study.guides import settle_score
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters
from wwopt.study.space.layer_space import LayerSpace
from wwopt.study.spec import StudySpec, derive_seed
from wwopt.study.trial.last_network import LastNetwork
from wwopt.wording import first_line

_SEED_PART = 7  # sets the probes' seeds apart from the trials'
LAYER_SIGNS = (
    "alpha", "sigma", "D", "hill", "num_traps", "trap_z", "mean_spike", "stable_rank",
    "rank_loss", "tail_cutoff", "signal_to_bulk", "N", "M", "num_evals",
)  # fmt: skip  # what a probe keeps of each layer


def run_probe(
    spec: StudySpec, hp: LayerHyperparameters, probe: Probe, *, seed: int = 0
) -> ProbeResult:
    """Train once under the changed conditions.

    Args:
        spec: the study.
        hp: of the best configuration; where the probe has layers that it lacks, all get the values
            of the layer at the same relative depth.
        probe: what to change.
        seed: of the study; a probe's own follows from it and from its replicate.
    """
    seed = derive_seed(seed, _SEED_PART, probe.replicate)
    conditions = apply_probe(apply_size(spec.conditions, hp), probe, seed=seed)
    try:
        spread = _spread(hp, spec.space_at(conditions))
    except Exception as error:  # half a width may be too narrow for the study's model
        return ProbeResult(probe, f"raised {first_line(error, named=True)}", True)
    return train_once(spec, _scale_rates(spread, probe.lr_factor), conditions, probe=probe)


def train_once(
    spec: StudySpec,
    hp: LayerHyperparameters,
    conditions: Conditions,
    *,
    probe: Probe,
) -> ProbeResult:
    """Train one network outside of any study, and analyse it at its end.

    A training that raises gives a result whose status says why; it never takes others with it.
    """
    last = LastNetwork()
    start = time.perf_counter()
    status, raised, metrics, score, layers = "ok", False, {}, math.nan, {}
    try:
        with torch.random.fork_rng():
            torch.manual_seed(conditions.seed)
            spec.train(hp, conditions, last)
        if last.model is None:
            raise ValueError("the study's train never called recorder.step(model)")
        metrics = dict(last.numbers)
        spectra = analyze(last.model, seed=conditions.seed)
        # As a study's first trial decides, where it names no score (wwopt.study.guides).
        objective = spec.objective or settle_score(
            optuna.trial.FixedTrial({}), train_loss=metrics.get("train_loss")
        )
        score = objective(spectra, train_loss=metrics.get("train_loss")).value
        layers = _summarize(spectra)
    except optuna.TrialPruned as pruned:
        status = str(pruned) or "pruned"
    except Exception as error:
        status, raised = f"raised {first_line(error, named=True)}", True
    seconds = time.perf_counter() - start
    course = {name: tuple(values) for name, values in last.course.items()}
    return ProbeResult(probe, status, raised, metrics, score, layers, seconds, course)


def _scale_rates(hp: LayerHyperparameters, factor: float) -> LayerHyperparameters:
    return replace(hp, lr={layer: rate * factor for layer, rate in hp.lr.items()})


def _spread(hp: LayerHyperparameters, space: LayerSpace) -> LayerHyperparameters:
    """Values for a space's layers: their own, or all by relative depth where some have none."""
    changed: dict[str, Any] = {}
    for kind in ("lr", "dropout", "momentum", "weight_decay"):
        values: Mapping[str, float] = getattr(hp, kind)
        wanted = space.dropout_layers if kind == "dropout" else space.layers
        if not values or all(layer in values for layer in wanted):
            continue
        known = list(values.values())
        last = max(len(wanted) - 1, 1)
        changed[kind] = {
            layer: known[round(index * (len(known) - 1) / last)]
            for index, layer in enumerate(wanted)
        }
    return replace(hp, **changed)


def _summarize(spectra: ModelMetrics) -> dict[str, dict[str, float]]:
    return {
        layer.name: {sign: float(getattr(layer, sign)) for sign in LAYER_SIGNS}
        for layer in spectra.layers
    }
