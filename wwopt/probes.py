"""Probes: trainings that show what more data, a bigger model or longer training would bring.

A probe trains the best known configuration with one thing changed: a part of the data, twice the
width, depth or epochs. At each of these the learning rate is retuned (a third, the same, three
times, and further where the best is at the edge), because the best rate moves with the data and
the size: holding it fixed bends the learning curve and is the known mistake.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any, Literal, get_args

import optuna
import torch
from torch import nn

from wwopt.advice import Advice
from wwopt.layer_hyperparameters import LayerHyperparameters
from wwopt.layer_metrics import ModelMetrics, analyze
from wwopt.layer_space import LayerSpace
from wwopt.objective import SpectralObjective
from wwopt.recorder import Conditions
from wwopt.study import StudySpec, derive_seed
from wwopt.wording import first_line

Kind = Literal["data", "width", "depth", "epochs"]

FRACTIONS = (0.125, 0.25, 0.5, 1.0)  # three below one: a curve with a floor has three parameters
LR_STEP = 3.0  # between neighbouring learning rates
LR_FACTORS = (LR_STEP**-1, 1.0, LR_STEP)
MAX_LR_STEPS = 3  # away from the configuration's own; further out it is no longer the same
STEP = 2.0  # on width, depth and epochs
SEEDS = 2  # at each learning rate; fewer leave nothing to tell noise by
RAISED = "raised "  # how the status of a training begins that raised an error
_SEED_PART = 7  # sets the probes' seeds apart from the trials'

LAYER_SIGNS = (
    "alpha", "sigma", "D", "hill", "num_traps", "trap_z", "mean_spike", "stable_rank",
    "rank_loss", "tail_cutoff", "signal_to_bulk", "N", "M", "num_evals",
)  # fmt: skip  # what a probe keeps of each layer


@dataclass(frozen=True)
class Probe:
    """One training: what is changed, by which factor, under which learning rate and seed."""

    kind: Kind
    factor: float  # share of the training data; or multiple of widths, depth or epochs
    lr_factor: float = 1.0  # on the learning rate of every layer
    replicate: int = 0  # equal numbers of different probes share their seed

    @property
    def name(self) -> str:
        """As shown, and looked up when probing goes on after an interruption."""
        return f"{self.kind} ×{self.factor:g}, lr ×{self.lr_factor:.3g}, seed {self.replicate}"

    @property
    def cost(self) -> float:
        """In trainings of the best configuration on all of the data.

        Width counts squared: a layer between two others has width² weights.
        """
        return self.factor**2 if self.kind == "width" else self.factor


@dataclass(frozen=True)
class ProbeResult:
    """What a probe gave."""

    probe: Probe
    status: str  # "ok", or why there is no value
    metrics: Mapping[str, float] = field(default_factory=dict)  # the last of each, train_loss too
    score: float = math.nan  # of the study's objective
    layers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # name → LAYER_SIGNS
    seconds: float = math.nan  # wall-clock, with the analysis

    @property
    def raised(self) -> bool:
        """Whether the training raised an error; one that diverged did not."""
        return self.status.startswith(RAISED)

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "ProbeResult":
        """The inverse of `to_dict`."""
        return cls(**{**plain, "probe": Probe(**plain["probe"])})


class ProbeRecorder:
    """Stands where a study's `train` expects its recorder; keeps the last network and numbers."""

    def __init__(self) -> None:
        self.model: nn.Module | None = None
        self.metrics: dict[str, float] = {}

    def step(
        self,
        model: nn.Module,
        *,
        train_loss: float | None = None,
        step: int | None = None,
        **metrics: float,
    ) -> Advice:
        """As `wwopt.Recorder.step`; gives no advice.

        Raises:
            optuna.TrialPruned: if the training loss is not finite.
        """
        self.model = model
        self.metrics |= {name: float(value) for name, value in metrics.items()}
        if train_loss is not None:
            self.metrics["train_loss"] = float(train_loss)
            if not math.isfinite(train_loss):
                raise optuna.TrialPruned(f"training loss is {float(train_loss)}")
        return Advice()


def plan_probes(
    kinds: Iterable[Kind],
    *,
    fractions: Sequence[float] = FRACTIONS,
    lr_factors: Sequence[float] = LR_FACTORS,
    seeds: int = SEEDS,
) -> tuple[Probe, ...]:
    """The probes that answer the question, the cheapest first.

    The best configuration on all of the data is probed too, whatever the kinds: what it reached in
    its trial is the best of many draws, and so too good.

    Args:
        kinds: what may change; see `find_kinds`.
        fractions: of the training data.
        lr_factors: on the learning rate, at each step of each kind.
        seeds: trainings of each.
    """
    steps: list[tuple[Kind, float]] = [("data", 1.0)]
    for kind in kinds:
        if kind not in get_args(Kind):
            raise ValueError(f"unknown kind of probe {kind!r}; known: {', '.join(get_args(Kind))}")
        steps += [(kind, f) for f in (fractions if kind == "data" else (STEP,))]
    planned = {
        Probe(kind, float(factor), float(lr_factor), replicate)
        for (kind, factor), lr_factor, replicate in product(steps, lr_factors, range(seeds))
    }
    return tuple(sorted(planned, key=lambda p: (p.cost, p.kind, p.replicate, p.lr_factor)))


def extend_probes(losses: Mapping[Probe, float]) -> tuple[Probe, ...]:
    """Probes one step further, where the best learning rate is at the edge of those tried.

    Args:
        losses: of the probes so far, lower is better.

    Returns:
        Probes that are not among them; call it again with their results until there are none.
    """
    groups: dict[tuple[Kind, float], dict[float, list[float]]] = {}
    for probe, loss in losses.items():
        rates = groups.setdefault((probe.kind, probe.factor), {})
        rates.setdefault(probe.lr_factor, []).append(loss)
    further = []
    for (kind, factor), rates in groups.items():
        means = {rate: sum(values) / len(values) for rate, values in rates.items()}
        best = min(sorted(means), key=lambda rate: means[rate])
        if len(means) < len(LR_FACTORS) or not math.isfinite(means[best]):
            continue
        for edge, step in ((max(means), 1), (min(means), -1)):
            steps = round(math.log(edge, LR_STEP)) + step
            if best == edge and abs(steps) <= MAX_LR_STEPS:
                count = len(rates[best])
                further += [Probe(kind, factor, LR_STEP**steps, r) for r in range(count)]
    return tuple(probe for probe in further if probe not in losses)


def find_kinds(spec: StudySpec) -> tuple[Kind, ...]:
    """What a study can change: data and epochs always, width and depth where its model follows.

    Whether `train` follows is seen from the space: it must be a function of the conditions that
    finds other layers, or other sizes, when the width or the depth doubles.
    """
    if isinstance(spec.space, LayerSpace):
        return ("data", "epochs")
    now = spec.space_at(spec.conditions)
    found: list[Kind] = ["data", "epochs"]
    for kind in ("width", "depth"):
        there = spec.space_at(_conditions(spec.conditions, Probe(kind, STEP), seed=0))
        if there.eigenvalues != now.eigenvalues:
            found.append(kind)
    return tuple(found)


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
    conditions = _conditions(apply_size(spec.conditions, hp), probe, seed=seed)
    hp = _scale_rates(_spread(hp, spec.space_at(conditions)), probe.lr_factor)
    return train_once(spec, hp, conditions, probe=probe)


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
    recorder = ProbeRecorder()
    start = time.perf_counter()
    status, metrics, score, layers = "ok", {}, math.nan, {}
    try:
        with torch.random.fork_rng():
            torch.manual_seed(conditions.seed)
            spec.train(hp, conditions, recorder)  # type: ignore[arg-type]  # same methods
        if recorder.model is None:
            raise ValueError("the study's train never called recorder.step(model)")
        metrics = dict(recorder.metrics)
        spectra = analyze(recorder.model, seed=conditions.seed)
        objective = spec.objective or SpectralObjective()
        score = objective(spectra, train_loss=metrics.get("train_loss")).value
        layers = _summarize(spectra)
    except optuna.TrialPruned as pruned:
        status = str(pruned) or "pruned"
    except Exception as error:
        status = RAISED + first_line(error, named=True)
    seconds = time.perf_counter() - start
    return ProbeResult(probe, status, metrics, score, layers, seconds)


def apply_size(conditions: Conditions, hp: LayerHyperparameters) -> Conditions:
    """The conditions at the width and depth that a trial sampled, if it did."""
    return replace(
        conditions,
        width=conditions.width * (hp.width or 1.0),
        depth=conditions.depth * (hp.depth or 1.0),
    )


def _conditions(conditions: Conditions, probe: Probe, *, seed: int) -> Conditions:
    changed: dict[str, Any] = {"seed": seed}
    if probe.kind == "data":
        changed["fraction"] = conditions.fraction * probe.factor
    elif probe.kind == "epochs":
        changed["epochs"] = max(1, round(conditions.epochs * probe.factor))
    else:
        changed[probe.kind] = getattr(conditions, probe.kind) * probe.factor
    return replace(conditions, **changed)


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
