"""A model's spectral metrics → one number, lower is better, and the terms that it is made of.

The mean alpha must not be minimised: too large a learning rate makes alpha small until the network
collapses, and on a zoo of MNIST networks the lowest mean alpha is a network 84 points of accuracy
below the best. Both scores here are two-sided and measured against random matrices. With s the
softplus, "weights-only" reads nothing but the weights:

    tail     log((h - 1)/(h_random - 1)): averaged Hill estimate h against that of a random matrix
             of the layer's shape; 0 for an untrained layer, lower with a heavier tail
    excess   .2·[s((log q - 1)/.2) - s((log q - 2.4)/.2)]: signal-to-bulk ratio q beyond e, up to
             11; training took over the layer
    traps    .3·log(1 + s((z - 4)/2)): correlation traps, z in Tracy-Widom units
    mean     .25·log(1 + s(mean spike - 2)): the entries' mean sticks out of the bulk
    rank     .5·.25·s(log(3/stable rank)/.25): one direction swallows the layer
    cutoff   of the model's first matrix alone, if it counts and is a plain one (no convolution, no
             embedding), .1·s((Λλmax - 1.3)/.1) where q > e⁻¹: its tail ends in an exponential, as
             where inputs are told apart one by one: labels were memorised

The first five are means over the counted layers. Each is bounded, so that no layer of many decides:
tail within ±2, excess by 1.4, traps and mean by 1, rank by .55, cutoff by 1.7. "validation-free"
reads the training loss too:

    loss     log(training loss + .01)

plus a tenth of the first five terms plus 1.5 times the cutoff's. The constants were chosen on zoos
of MNIST MLPs and CNNs, label noise and a small transformer on text, at half and at the end of
training; the bounds on these and on published checkpoints (`studies/published_checkpoints.py`).
docs/when-to-trust-alpha.md says what the scores are worth there and elsewhere.
"""

import math
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from wwopt.metrics import score_version_3
from wwopt.metrics.model_metrics import COLLAPSED, OK, LayerMetrics, ModelMetrics
from wwopt.wording import write_names

Preset = Literal["weights-only", "validation-free"]
VERSION = 4  # of the formulas; stored with a study, since values of two versions do not mix
PRESETS: tuple[Preset, ...] = get_args(Preset)
READS: dict[Preset, str] = {
    "weights-only": "the weights alone",
    "validation-free": "the weights and the training loss",
}
LAYER_TERMS = ("tail", "excess", "traps", "mean", "rank", "failure")
TERMS = (*LAYER_TERMS, "cutoff", "loss")
NO_COUNTABLE_LAYER = "no countable layer"
NO_SPECTRUM = "no spectrum"
NAMED = 3  # broken layers in a status; the rest is counted

_FORMER_NAMES = {"default": "weights-only"}
_LARGEST_TAIL = 2.0  # h of 1.25 where a random matrix has 2.8; the furthest in CREPE is -2.1
_LARGEST_EXCESS = 1.4  # q of 11; convolutions of CREPE, published and good, reach 685
_LARGEST_TRAPS = 1.0  # z of 57
_LARGEST_MEAN = 1.0  # a mean spike of 55
_NO_FIT = 4.0  # of a layer without a fit: excess, traps, mean and rank at their bounds
_LOSS_FLOOR = 0.01  # nats; below it a lower training loss says nothing
_SHAPE_SHARE = 0.1  # of the spectral terms beside the loss
_CUTOFF_SHARE = 1.5  # of the cutoff beside the loss: it says where the loss is wrong


@dataclass(frozen=True)
class ObjectiveValue:
    """Value of the objective and what it is made of."""

    value: float  # lower is better; NaN only where no layer counts or a spectrum is unknown
    terms: dict[str, float]  # they sum to the value
    layers: dict[str, dict[str, float]]  # layer → term → its part of that layer's score
    status: str  # "ok", or what is wrong with the network
    collapsed: tuple[str, ...] = ()  # layers that are, too few of them to fail the network


@dataclass(frozen=True)
class SpectralObjective:
    """Score a model's spectral metrics; see the module's docstring for the formulas.

    Presets:
        weights-only: right for choosing learning rates, dropout and momentum of a fixed
            architecture, among networks trained equally long that were not made to please it; half
            of training suffices for pruning. Not for comparing sizes or architectures (see
            `wwopt.rank`). Its former name, "default", is taken too.
        validation-free: reads the training loss. Right wherever that is known; where labels are
            noisy it corrects the loss, elsewhere it seldom differs from it.
    """

    preset: Preset = "weights-only"
    excess_weight: float = 1.0  # score per unit of log q beyond 1
    trap_weight: float = 0.3  # score per unit of log(1 + softplus((z - 4)/2))
    mean_weight: float = 0.25  # score per unit of log(1 + softplus(mean spike - 2))
    rank_weight: float = 0.5  # score per e-fold of stable rank below 3
    cutoff_weight: float = 1.0  # score per unit of Λλmax beyond 1.3, up to 3
    penalty: float = 10.0  # of a broken network
    version: int = VERSION  # 3 for the frozen one, under which old studies resume

    def __post_init__(self) -> None:
        preset = _FORMER_NAMES.get(self.preset, self.preset)
        if preset not in get_args(Preset):
            known = ", ".join(get_args(Preset))
            raise ValueError(f"unknown objective preset {self.preset!r}; known: {known}")
        object.__setattr__(self, "preset", preset)
        if not (math.isfinite(self.penalty) and self.penalty > 0.0):
            raise ValueError(f"penalty must be finite and positive, got {self.penalty}")
        if self.version not in (3, VERSION):
            raise ValueError(
                f"version {self.version} of the score cannot be computed; known: 3, {VERSION}"
            )

    @property
    def reads_train_loss(self) -> bool:
        """Whether the score needs the training loss: validation-free, but not weights-only."""
        return self.preset == "validation-free"

    def __call__(self, metrics: ModelMetrics, *, train_loss: float | None = None) -> ObjectiveValue:
        """Score a model.

        A network that training broke (`ModelMetrics.broken`: a layer not finite or zero, or a
        quarter of the layers collapsed) gets the penalty itself, whatever its other layers say,
        under those layers' status. Fewer collapsed layers count with their terms and are named. A
        layer without a fit (no power law, rank deficient, too small) counts with 4. Both stand
        under the term "failure". Validation-free presets do not fail a network for collapsed
        layers: what they cost, the training loss knows.

        Args:
            metrics: of all layers; those with too few eigenvalues count for nothing.
            train_loss: nats, mean of the last epoch, with or without dropout, but the same way for
                all networks. Read by validation-free presets alone.

        Raises:
            ValueError: if the preset needs the training loss and it is missing or negative.
        """
        if self.reads_train_loss and (train_loss is None or train_loss < 0.0):
            raise ValueError(
                f"the preset {self.preset!r} reads the training loss, which must not be negative: "
                f"got {train_loss}; pass train_loss=, or use a weights-only preset"
            )
        loss = train_loss if self.reads_train_loss and train_loss is not None else None
        if self.version == 3:
            options = {k: v for k, v in asdict(self).items() if k not in ("preset", "version")}
            return ObjectiveValue(*score_version_3.score_model(metrics, options, loss))
        counted = metrics.counted
        scores = {layer.name: self._score_layer(layer) for layer in counted}
        broken = [x for x in metrics.broken if loss is None or x.status != COLLAPSED]
        if broken or (loss is not None and not math.isfinite(loss)):
            names = write_names([f"{layer.name} {layer.status}" for layer in broken], NAMED)
            status = f"broken: {names}" if broken else f"training loss is {loss}"
            terms = dict.fromkeys(TERMS, 0.0) | {"failure": self.penalty}
            return ObjectiveValue(self.penalty, terms, scores, status)
        unknown = [layer.name for layer in counted if not _is_known(layer)]
        if unknown or not counted:
            status = f"{NO_SPECTRUM} of {unknown[0]}" if unknown else NO_COUNTABLE_LAYER
            return ObjectiveValue(math.nan, dict.fromkeys(TERMS, math.nan), {}, status)
        share = 1.0 if loss is None else _SHAPE_SHARE
        terms = {
            term: share * math.fsum(score[term] for score in scores.values()) / len(scores)
            for term in LAYER_TERMS
        }
        terms["cutoff"] = self.cutoff_weight * _cutoff(metrics.first_layer)
        terms["cutoff"] *= 1.0 if loss is None else _CUTOFF_SHARE
        terms["loss"] = 0.0 if loss is None else math.log(loss + _LOSS_FLOOR)
        named = tuple(layer.name for layer in metrics.collapsed)
        return ObjectiveValue(math.fsum(terms.values()), terms, scores, OK, named)

    def _score_layer(self, layer: LayerMetrics) -> dict[str, float]:
        has_fit = layer.status in (OK, COLLAPSED) and layer.hill > 1.0 and layer.stable_rank > 0.0
        if not has_fit or not _is_known(layer):
            failure = min(_NO_FIT, self.penalty)
            return dict.fromkeys(LAYER_TERMS, 0.0) | {"failure": failure}
        tail = math.log((layer.hill - 1.0) / (layer.hill_random - 1.0))
        over = _log_signal(layer) - 1.0
        excess = 0.2 * (_softplus(over / 0.2) - _softplus((over - _LARGEST_EXCESS) / 0.2))
        traps = math.log1p(_softplus((_known(layer.trap_z) - 4.0) / 2.0))
        collapse = _softplus(math.log(3.0 / layer.stable_rank) / 0.25)
        return {
            "tail": min(max(tail, -_LARGEST_TAIL), _LARGEST_TAIL),
            "excess": self.excess_weight * excess,
            "traps": min(self.trap_weight * traps, _LARGEST_TRAPS),
            "mean": min(
                self.mean_weight * math.log1p(_softplus(layer.mean_spike - 2.0)), _LARGEST_MEAN
            ),
            "rank": self.rank_weight * 0.25 * collapse,
            "failure": 0.0,
        }


def _cutoff(layer: LayerMetrics | None) -> float:
    """How far the tail bends, where there is a tail; smooth, from 0 to 1.7."""
    if layer is None or layer.status != OK or math.isnan(layer.tail_cutoff):
        return 0.0
    if layer.num_slices != 1 or layer.kind == "embedding":  # they bend in good models too
        return 0.0
    has_tail = 1.0 / (1.0 + math.exp(-(_log_signal(layer) + 1.0) / 0.3))
    return has_tail * 0.1 * _softplus((min(layer.tail_cutoff, 3.0) - 1.3) / 0.1)


def _log_signal(layer: LayerMetrics) -> float:
    """Log of the signal-to-bulk ratio; beyond these bounds it is noise, or a bulk of zeros."""
    return math.log(min(max(layer.signal_to_bulk, 0.003), 1000.0))


def _is_known(layer: LayerMetrics) -> bool:
    """Whether the spectrum was there; a published table has alphas but no Hill estimate."""
    return layer.status != OK or not math.isnan(layer.hill * layer.signal_to_bulk)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _known(trap_z: float) -> float:
    """Tracy-Widom mean where the shuffles were left out: a layer without evidence of traps."""
    return -1.2 if math.isnan(trap_z) else trap_z
