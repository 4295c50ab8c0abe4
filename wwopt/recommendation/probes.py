"""Probes: trainings that show what more data, a bigger model or longer training would bring.

A probe trains the best known configuration with one thing changed: a part of the data, twice the
width, depth or epochs. At each of these the learning rate is retuned (a third, the same, three
times, and further where the best is at the edge), because the best rate moves with the data and
the size: holding it fixed bends the learning curve and is the known mistake.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, get_args

from wwopt.study.conditions import Conditions

if TYPE_CHECKING:  # with torch, which reading what probes gave does not need
    from wwopt.study.layer_hyperparameters import LayerHyperparameters
    from wwopt.study.spec import StudySpec

Kind = Literal["data", "width", "depth", "epochs"]

FRACTIONS = (0.125, 0.25, 0.5, 1.0)  # three below one: a curve with a floor has three parameters
LR_STEP = 3.0  # between neighbouring learning rates
LR_FACTORS = (LR_STEP**-1, 1.0, LR_STEP)
MAX_LR_STEPS = 3  # away from the configuration's own; further out it is no longer the same
STEP = 2.0  # on width, depth and epochs
SEEDS = 2  # at each learning rate; fewer leave nothing to tell noise by


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
    raised: bool = False  # whether the training raised an error; one that diverged did not
    metrics: Mapping[str, float] = field(default_factory=dict)  # the last of each, train_loss too
    score: float = math.nan  # of the study's objective
    layers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # name → LAYER_SIGNS
    seconds: float = math.nan  # wall-clock, with the analysis
    course: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # of metrics, by step

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "ProbeResult":
        """The inverse of `to_dict`, also through JSON, which has no NaN: null stands for it."""
        status = str(plain["status"])
        return cls(
            Probe(**plain["probe"]),
            status,
            # wwopt 0.1.0 told it by the first word of the status alone.
            raised=bool(plain.get("raised", status.startswith("raised "))),
            metrics=_revive(plain["metrics"]),
            score=_number(plain["score"]),
            layers={layer: _revive(signs) for layer, signs in plain["layers"].items()},
            seconds=_number(plain["seconds"]),
            course={
                name: tuple(map(_number, values))
                for name, values in plain.get("course", {}).items()  # none before wwopt 0.3
            },
        )


def _revive(plain: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(value) for name, value in plain.items()}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


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


def find_kinds(spec: "StudySpec") -> tuple[Kind, ...]:
    """What a study can change: data and epochs always, width and depth where its model follows.

    Whether `train` follows is seen from the space: it must be a function of the conditions that
    finds other layers, or other sizes, when the width or the depth doubles.
    """
    if not callable(spec.space):
        return ("data", "epochs")
    now = spec.space_at(spec.conditions)
    found: list[Kind] = ["data", "epochs"]
    for kind in ("width", "depth"):
        there = spec.space_at(apply_probe(spec.conditions, Probe(kind, STEP), seed=0))
        if there.eigenvalues != now.eigenvalues:
            found.append(kind)
    return tuple(found)


def apply_size(conditions: Conditions, hp: "LayerHyperparameters") -> Conditions:
    """The conditions at the width and depth that a trial sampled, if it did."""
    return replace(
        conditions,
        width=conditions.width * (hp.width or 1.0),
        depth=conditions.depth * (hp.depth or 1.0),
    )


def apply_probe(conditions: Conditions, probe: Probe, *, seed: int) -> Conditions:
    """The conditions with what a probe changes."""
    changed: dict[str, Any] = {"seed": seed}
    if probe.kind == "data":
        changed["fraction"] = conditions.fraction * probe.factor
    elif probe.kind == "epochs":
        changed["epochs"] = max(1, round(conditions.epochs * probe.factor))
    else:
        changed[probe.kind] = getattr(conditions, probe.kind) * probe.factor
    return replace(conditions, **changed)
