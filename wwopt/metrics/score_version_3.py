"""Version 3 of the score, frozen: studies begun with it resume under it; nothing else uses it.

Not to be mended. What it gets wrong, and version 4 does not: one collapsed layer of many fails the
network, `excess` is unbounded (to 5.9 in CREPE, nine times a good score), and the cutoff is that of
the first layer that counts, whichever it is. docs/when-to-trust-alpha.md has both versions'
figures.
"""

import math
from collections.abc import Mapping

from wwopt.metrics.model_metrics import COLLAPSED, DEGENERATE, OK, LayerMetrics, ModelMetrics
from wwopt.wording import write_names

_LAYER_TERMS = ("tail", "excess", "traps", "mean", "rank", "failure")
_TERMS = (*_LAYER_TERMS, "cutoff", "loss")

Terms = dict[str, float]


def score_model(
    metrics: ModelMetrics, options: Mapping[str, float], train_loss: float | None
) -> tuple[float, Terms, dict[str, Terms], str]:
    """Score a model as version 3 did.

    Args:
        metrics: of all layers.
        options: the weights of the terms and the penalty, by the names of their fields.
        train_loss: nats; None for the weights-only score.

    Returns:
        The value, its terms, layer → term → part, and the status.
    """
    loss, penalty = train_loss, options["penalty"]
    counted = metrics.counted
    scores = {layer.name: _score_layer(layer, options) for layer in counted}
    fatal = DEGENERATE if loss is None else DEGENERATE - {COLLAPSED}
    broken = [layer for layer in metrics.layers if layer.status in fatal]
    if broken or (loss is not None and not math.isfinite(loss)):
        names = write_names([f"{layer.name} {layer.status}" for layer in broken], 3)
        status = f"broken: {names}" if broken else f"training loss is {loss}"
        return penalty, dict.fromkeys(_TERMS, 0.0) | {"failure": penalty}, scores, status
    unknown = [layer.name for layer in counted if not _is_known(layer)]
    if unknown or not counted:
        status = f"no spectrum of {unknown[0]}" if unknown else "no countable layer"
        return math.nan, dict.fromkeys(_TERMS, math.nan), {}, status
    share = 1.0 if loss is None else 0.1
    terms = {
        term: share * math.fsum(score[term] for score in scores.values()) / len(scores)
        for term in _LAYER_TERMS
    }
    terms["cutoff"] = options["cutoff_weight"] * _cutoff(counted[0])
    terms["cutoff"] *= 1.0 if loss is None else 1.5
    terms["loss"] = 0.0 if loss is None else math.log(loss + 0.01)
    return math.fsum(terms.values()), terms, scores, OK


def _score_layer(layer: LayerMetrics, options: Mapping[str, float]) -> Terms:
    penalty = options["penalty"]
    if layer.status != OK or not _is_known(layer):
        return dict.fromkeys(_LAYER_TERMS, 0.0) | {"failure": penalty}
    collapse = _softplus(math.log(3.0 / layer.stable_rank) / 0.25)
    trap_z = -1.2 if math.isnan(layer.trap_z) else layer.trap_z
    score = {
        "tail": math.log((layer.hill - 1.0) / (layer.hill_random - 1.0)),
        "excess": options["excess_weight"] * 0.2 * _softplus((_log_signal(layer) - 1.0) / 0.2),
        "traps": options["trap_weight"] * math.log1p(_softplus((trap_z - 4.0) / 2.0)),
        "mean": options["mean_weight"] * math.log1p(_softplus(layer.mean_spike - 2.0)),
        "rank": options["rank_weight"] * 0.25 * collapse,
        "failure": 0.0,
    }
    total = math.fsum(score.values())
    clipped = min(max(total, -penalty), penalty)
    return score if total == clipped else {t: v * clipped / total for t, v in score.items()}


def _cutoff(layer: LayerMetrics) -> float:
    plain = layer.num_slices == 1 and layer.kind != "embedding"
    if layer.status != OK or not plain or math.isnan(layer.tail_cutoff):
        return 0.0
    has_tail = 1.0 / (1.0 + math.exp(-(_log_signal(layer) + 1.0) / 0.3))
    return has_tail * 0.1 * _softplus((min(layer.tail_cutoff, 3.0) - 1.3) / 0.1)


def _log_signal(layer: LayerMetrics) -> float:
    return math.log(min(max(layer.signal_to_bulk, 0.003), 1000.0))


def _is_known(layer: LayerMetrics) -> bool:
    return layer.status != OK or not math.isnan(layer.hill * layer.signal_to_bulk)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
