"""Guards: what a network must not do, told without held-out data; Optuna's constraints.

A score orders networks, and a broken network can win it: too large a learning rate makes spectra
heavy-tailed until training collapses. Guards refuse such networks by name. Each is one number, at
most 0 where the network is fine:

    train_loss   (loss - first)/|first| + 1 - loss_ratio: the training loss did not fall
    memorising   ln(octave ratio / memorising): the loss fell, slowed, and no longer slows, since
                 labels are being memorised (`wwopt.metrics.memorisation`)
    lambda_max   ln(growth of λmax since the start / lambda_growth): a layer blew up
    stable_rank  ln(limit / stable rank), limit = max(rank_floor, start / rank_drop): one direction
                 swallows a layer; a layer that is zero, not finite or collapsed has the cap
    mean_spike   ln((1 + mean spike)/(1 + limit)): the entries' mean took over
    traps        ln((1 + trap z)/(1 + limit)): a few huge entries, seen in the shuffled layer

λmax is that of the worst layer. The last three are the network's: stable rank and mean spike judge
the ⌈n/4⌉th worst of n counted layers, traps the ⌈n/2⌉th. A published, good network may have one
narrow read-out beyond them, or an embedding, or traps in a third of its layers. "Start" is the
untrained network. Where a layer started nearer to a limit than half-way (a pretrained one, say),
the limit is twice, or half, of what it started with: nothing is held against a layer that it came
with. What is unknown is 0: a network is not refused for what was not shown. All values lie in [-10,
10], since Optuna accepts no NaN and a Gaussian process no infinity.

All limits but `memorising` were chosen on six zoos, of MLPs, CNNs and a small transformer, so that
no network of the better half is refused and every collapsed one is; docs/guards.md has the table,
and three more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from wwopt.metrics.memorisation import octave_ratio
from wwopt.metrics.model_metrics import (
    COLLAPSED,
    DEGENERATE,
    SHARE_OF_NETWORK,
    LayerMetrics,
    ModelMetrics,
)

CAP = 10.0  # e-folds beyond a limit, or times the first loss
UNKNOWN = 0.0
MEMORISING = "memorising"
SPECTRAL = ("lambda_max", "stable_rank", "mean_spike", "traps")
# Of the layers, that must be beyond a limit; of λmax one that blows up is enough. Of six layers of
# CREPE tiny, published and good, two have traps beyond 10.
SHARES = {"stable_rank": SHARE_OF_NETWORK, "mean_spike": SHARE_OF_NETWORK, "traps": 0.5}
SLACK = 2.0  # factor on what a layer started with, before it is held against it


@dataclass(frozen=True, kw_only=True)
class Guards:
    """Limits; infinity turns a guard off (0 for `rank_floor`).

    In brackets: the most extreme value of a network in the better half of its zoo, by test error,
    at half or at the end of training, over all nine zoos (`studies/calibrate_guards.py`).
    """

    loss_ratio: float = 0.95  # last training loss over the first (.93, half-way)
    # Fall of the last octave over that of one before. Infinity where no example is seen twice.
    memorising: float = 1.0
    lambda_growth: float = 2000.0  # λmax over λmax at the start (1028, an MLP taught by another)
    rank_floor: float = 1.8  # Σλ/λmax (2.1, in a small transformer)
    rank_drop: float = 30.0  # Σλ/λmax at the start over that of now
    mean_spike: float = 100.0  # mean²·√(NM)/variance (64, an MLP taught by another)
    trap_z: float = 10.0  # largest shuffled eigenvalue, Tracy-Widom units (8.1, the transformer)

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not (value > 0.0 or (value == 0.0 and limit.name == "rank_floor")):
                raise ValueError(f"the limit {limit.name} must be positive, got {value}")


def check_guards(
    metrics: ModelMetrics | None,
    *,
    initial: ModelMetrics | None = None,
    train_loss: float | None = None,
    first_train_loss: float | None = None,
    losses: Mapping[int, float] | None = None,
    guards: Guards | None = None,
) -> dict[str, float]:
    """Judge a network; see the module's docstring for the formulas.

    Args:
        metrics: of the network; None if it was not analysed.
        initial: of the untrained network. Without it λmax is unknown, and the others keep their
            absolute limits.
        train_loss: the last one; None if there is none. If it is not finite, it violates.
        first_train_loss: an earlier one to compare with; None if there is none.
        losses: number of the step → its training loss; None if they are not known.
        guards: the limits; None for the defaults.

    Returns:
        Guard → value in [-10, 10]; positive where it is violated, 0 where it is unknown.
    """
    limits = guards or Guards()
    start = {} if initial is None else {layer.name: layer for layer in initial.layers}
    counted = () if metrics is None else metrics.counted
    judged = [_judge_layer(layer, start.get(layer.name), limits) for layer in counted]
    found = {
        guard: _judge_network(guard, [layer[guard] for layer in judged if guard in layer])
        for guard in SPECTRAL
    }
    if metrics is not None and any(layer.status != COLLAPSED for layer in metrics.broken):
        found["stable_rank"] = CAP  # one layer that is zero or not finite is enough
    return {
        "train_loss": _judge_loss(train_loss, first_train_loss, limits.loss_ratio),
        MEMORISING: _judge_fall(losses or {}, limits.memorising),
        **found,
    }


def violation(constraints: Mapping[str, float]) -> float:
    """How much is wrong: the sum of the positive values, as Optuna's TPE orders the infeasible."""
    return math.fsum(value for value in constraints.values() if value > 0.0)


def _judge_loss(last: float | None, first: float | None, ratio: float) -> float:
    if last is not None and not math.isfinite(last):
        return CAP
    if last is None or first is None or not math.isfinite(first):
        return UNKNOWN
    # The change, not the quotient, so that losses may be negative, as log-likelihoods are.
    return _clip((last - first) / max(abs(first), 1e-12) + 1.0 - ratio)


def _judge_fall(losses: Mapping[int, float], limit: float) -> float:
    ratio = octave_ratio(losses)
    return UNKNOWN if math.isnan(ratio) else _clip(_beyond(max(ratio, 0.0), limit))


def _judge_network(guard: str, layers: list[float]) -> float:
    """A guard's value of the network, from those of the layers that it is known of."""
    if not layers:
        return UNKNOWN
    needed = max(1, math.ceil(SHARES.get(guard, 0.0) * len(layers)))
    return sorted(layers, reverse=True)[needed - 1]


def _judge_layer(now: LayerMetrics, start: LayerMetrics | None, limits: Guards) -> dict[str, float]:
    """Guard → value of one layer; guards that nothing is known of are left out."""
    # A layer that was not seen started as one that never moves a limit.
    was = LayerMetrics(name=now.name, N=0, M=0, num_evals=0) if start is None else start
    rank_floor = _smaller(limits.rank_floor, was.stable_rank / SLACK)
    rank_limit = _larger(rank_floor, was.stable_rank / limits.rank_drop)
    mean_limit = _larger(limits.mean_spike, SLACK * was.mean_spike)
    trap_limit = _larger(limits.trap_z, SLACK * was.trap_z)
    values = {
        # A layer that starts at zero, as some adapters do, grows infinitely and means no harm.
        "lambda_max": _beyond(now.spectral_norm, was.spectral_norm * limits.lambda_growth)
        if was.spectral_norm > 0.0
        else math.nan,
        "stable_rank": CAP if now.status in DEGENERATE else _beyond(rank_limit, now.stable_rank),
        "mean_spike": _beyond(1.0 + now.mean_spike, 1.0 + mean_limit),
        "traps": _beyond(1.0 + max(now.trap_z, 0.0), 1.0 + trap_limit),
    }
    return {guard: _clip(value) for guard, value in values.items() if not math.isnan(value)}


def _larger(limit: float, start: float) -> float:
    return limit if math.isnan(start) else max(limit, start)


def _smaller(limit: float, start: float) -> float:
    return limit if math.isnan(start) else min(limit, start)


def _beyond(value: float, limit: float) -> float:
    """e-folds by which a value is beyond its limit; NaN where the two cannot be compared."""
    return _log(value) - _log(limit)


def _log(value: float) -> float:
    return math.log(value) if value > 0.0 else (math.nan if math.isnan(value) else -math.inf)


def _clip(value: float) -> float:
    return min(max(value, -CAP), CAP)
