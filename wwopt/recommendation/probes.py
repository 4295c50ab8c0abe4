"""Probes: trainings that show what more data, a bigger model or longer training would bring.

A probe trains the best known configuration with one thing changed: a part of the data, twice the
width, depth or epochs. Only parts of today's are needed, which cost less than a training each; the
next doubling is forecast from them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from wwopt.study.conditions import Conditions

if TYPE_CHECKING:  # with torch, which reading what probes gave does not need
    from wwopt.study.space.layer_hyperparameters import LayerHyperparameters
    from wwopt.study.spec import StudySpec

Kind = Literal["data", "width", "depth", "epochs"]

TRAININGS = 5.0  # full ones that all probes may take as long as, unless more is asked for
PARTS = (0.125, 0.25, 0.5)  # of the data; of the width the larger two, of the epochs the half
RATED = 0.25  # share of the data on which other learning rates are tried
MIN_TRIALS = 3  # configurations below which tuning needs probes of other learning rates
MAX_SEEDS = 8  # of each, however much may be spent
LR_STEP = 3.0  # between neighbouring learning rates
MAX_LR_STEPS = 3  # away from the configuration's own; further out it is no longer the same
STEP = 2.0  # on width, depth and epochs


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

        Twice the width counts four times, as a layer between two others has width² weights; half of
        it counts a half, as the first layer has half of its weights.
        """
        return self.factor**2 if self.kind == "width" and self.factor > 1.0 else self.factor


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
    trainings: float = TRAININGS,
    epochs: int = 2,
    trials: int = MIN_TRIALS,
) -> tuple[Probe, ...]:
    """The probes that answer the question, in the order of their worth, as far as they fit.

    First what nothing can be said without: the best configuration again (what it reached in its
    trial is the best of many draws, and so too good), on parts of the data, at parts of its width
    and for half of its epochs; where there are few trials, other learning rates on a quarter of
    the data. Then second seeds; then the steps themselves, twice the epochs and twice the width,
    rates on all of the data, and further seeds of all that.

    Args:
        kinds: what may change; see `find_kinds`.
        trainings: of the best configuration on all of the data that they may take as long as.
        epochs: of the study; one cannot be halved, and is doubled instead.
        trials: finished ones.

    Raises:
        ValueError: if a kind is unknown.
    """
    planned: list[Probe] = []
    left = trainings
    for probe in rank_probes(tuple(kinds), epochs=epochs, trials=trials):
        if probe not in planned and probe.cost <= left + 1e-9:
            planned.append(probe)
            left -= probe.cost
    return tuple(planned)


def need_probes(
    kinds: Iterable[Kind], *, epochs: int = 2, trials: int = MIN_TRIALS
) -> tuple[Probe, ...]:
    """The probes without which there is no verdict; arguments as of `plan_probes`."""
    kinds = tuple(kinds)
    for kind in kinds:
        if kind not in get_args(Kind):
            raise ValueError(f"unknown kind of probe {kind!r}; known: {', '.join(get_args(Kind))}")
    needed = [Probe("data", 1.0)]
    if "data" in kinds:
        needed += [Probe("data", part) for part in PARTS]
        if trials < MIN_TRIALS:
            needed.append(Probe("data", RATED, LR_STEP))
    if "epochs" in kinds:
        needed.append(Probe("epochs", 0.5 if epochs > 1 else STEP))
    size = find_size(kinds)
    needed += [] if size is None else [Probe(size, part) for part in PARTS[1:]]
    return tuple(needed)


def find_size(kinds: Iterable[Kind]) -> Literal["width", "depth"] | None:
    """What "bigger" is measured by: the width where it can change, else the depth."""
    known = tuple(kinds)
    return "width" if "width" in known else "depth" if "depth" in known else None


def rank_probes(kinds: tuple[Kind, ...], *, epochs: int, trials: int) -> Iterator[Probe]:
    """All probes in the order of their worth, some more than once; arguments as of `plan_probes`.

    The needed ones, then for seed after seed: the data's again, the steps themselves, what else
    was needed, and other rates on all of the data.
    """
    needed = need_probes(kinds, epochs=epochs, trials=trials)
    data = [p for p in needed if p.kind == "data" and p.lr_factor == 1.0]
    steps = [Probe(kind, STEP) for kind in ("epochs", find_size(kinds)) if kind in kinds]
    rates = [Probe("data", 1.0, rate) for rate in (LR_STEP**-1, LR_STEP)]
    yield from needed
    for seed in range(MAX_SEEDS):
        yield from (replace(probe, replicate=seed + 1) for probe in data)
        yield from (replace(probe, replicate=seed) for probe in steps)
        yield from (replace(p, replicate=seed + 1) for p in needed if p not in data)
        yield from (replace(probe, replicate=seed) for probe in rates)


def extend_probes(losses: Mapping[Probe, float]) -> tuple[Probe, ...]:
    """Probes one step further, where the best learning rate is at the edge of those tried.

    Where it is not, and was found on a part of the data, it is tried on all of them.

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
        if len(means) < 2 or not math.isfinite(means[best]):
            continue
        if min(means) < best < max(means) and best != 1.0 and (kind, factor) == ("data", RATED):
            further.append(Probe("data", 1.0, best))
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
