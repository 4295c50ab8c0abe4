"""The metrics of a layer and of a model: what people read, and what scores are made of.

Where WeightWatcher 0.7.7 has a column for a quantity and we compute the same quantity, the field
has its name. Eigenvalues are those of the Gram matrix. WeightWatcher halves those of 2-D
convolutions, which changes no alpha: `to_frame` does so in its columns, and the published
statistics that are no plain multiple of λ (`log_norm`, `alpha_weighted`, …) are of the halved ones
here too. Where its value is wrong or the search must go on, the field is NaN and `status` says why.
`wwopt.metrics.analysis` computes them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from wwopt.metrics.layer_tables import read_layer_table
from wwopt.plain_data import make_plain

if TYPE_CHECKING:  # with torch, which reading a table of metrics does not need
    from wwopt.spectra.spectrum import LayerSpectrum

MIN_EIGENVALUES = 50  # pooled over slices; below it alpha says nothing (an output layer of 10)
MIN_TAIL = 10  # eigenvalues; a shorter tail fits noise
MAX_D = 0.15  # Gaussian matrices have .13 to .16, clean Pareto samples below .01
COLLAPSED_STABLE_RANK = 1.5  # Σλ/λmax below it: one direction holds two thirds of the energy
MIN_COLUMNS = 8  # of a slice, for its largest eigenvalue to say something of that slice
OVER_TRAINED, UNDER_TRAINED = 2.0, 6.0  # alpha; WeightWatcher's labels

OK = "ok"
TOO_FEW = "too few eigenvalues"
NOT_FINITE = "not finite"
ZERO = "zero"
COLLAPSED = "collapsed"
TOO_SMALL = "eigenvalues below 1e-5"
NO_POWER_LAW = "no power law"
RANK_DEFICIENT = "rank deficient"
LOW_RANK = "low rank by construction"
DIFFERENCE = "a difference"  # of two networks, which is none, and is not judged as one

RELIABLE = "reliable"  # in the column `reliability`, where there is no doubt
Doubt = Literal["no alpha", "few eigenvalues", "short tail", "high D", "within its own null"]

# Fields in units of λ: columns of a layer table hold them divided by `LayerMetrics.unit`.
IN_UNITS = ("xmin", "xmax", "norm", "spectral_norm", "bulk_min", "bulk_max")

NOT_COUNTED = frozenset({TOO_FEW, LOW_RANK, DIFFERENCE})  # count neither for nor against a network
DEGENERATE = frozenset({NOT_FINITE, ZERO, COLLAPSED})  # training broke this layer

# Of the counted layers, from which on what they show is the network's: of the collapsed networks of
# the zoos, with two to four counted layers, many have one such layer, and CHGNet 0.3.0, published
# and good, has one of 46, a narrow read-out. Rounded up, it is one layer of up to four.
SHARE_OF_NETWORK = 0.25


@dataclass(frozen=True, kw_only=True)
class LayerMetrics:
    """Metrics of one layer; NaN where unknown, `status` says why."""

    name: str
    kind: str = "linear"
    N: int  # larger dimension of a slice
    M: int  # smaller dimension of a slice
    num_slices: int = 1  # WeightWatcher's rf
    num_evals: int  # M * num_slices
    status: str = OK

    # power law
    alpha: float = math.nan  # exponent of the tail
    sigma: float = math.nan  # standard error of alpha
    D: float = math.nan  # KS distance between tail and fit
    xmin: float = math.nan  # start of the tail
    xmax: float = math.nan  # largest eigenvalue
    num_pl_spikes: float = math.nan  # eigenvalues in the tail
    hill: float = math.nan  # averaged Hill estimate of alpha
    hill_random: float = math.nan  # the same for a random matrix of this shape
    hill_shuffled: float = math.nan  # the same for the layer's own first shuffle, where it differs
    alpha_truncated: float = math.nan  # exponent under an exponential cutoff
    Lambda: float = math.nan  # rate of that cutoff, per unit of the eigenvalues
    p_pure: float = math.nan  # p-value of the pure power law against the truncated one
    tail_cutoff: float = math.nan  # rate of the cutoff of the top quarter, times λmax
    signal_to_bulk: float = math.nan  # energy beyond a random bulk, in units of the bulk's

    # traps and mean
    trap_z: float = math.nan  # largest shuffled eigenvalue, Tracy-Widom units
    num_traps: float = math.nan  # shuffled eigenvalues from 4 units on
    mean_spike: float = math.nan  # the entries' mean as a spike; leaves the bulk from 1 on

    # norms and ranks
    norm: float = math.nan  # Σλ
    log_norm: float = math.nan  # log10 of WeightWatcher's Σλ; the other logarithms likewise
    spectral_norm: float = math.nan  # λmax
    log_spectral_norm: float = math.nan
    stable_rank: float = math.nan  # Σλ/λmax
    alpha_weighted: float = math.nan  # alpha · log10 λmax, WeightWatcher's λmax
    log_alpha_norm: float = math.nan  # log10 Σ λ^alpha, WeightWatcher's λ
    entropy: float = math.nan  # of λ/Σλ, in units of ln(rank)
    matrix_rank: float = math.nan
    rank_loss: float = math.nan
    weak_rank_loss: float = math.nan  # of WeightWatcher's eigenvalues, those below 1e-6

    # Marchenko-Pastur bulk (rectangular layers)
    sigma_mp: float = math.nan
    bulk_min: float = math.nan
    bulk_max: float = math.nan
    num_spikes: float = math.nan
    mp_softrank: float = math.nan
    W_scale: float = math.nan  # factor on WeightWatcher's W that makes the mean eigenvalue 1

    # trace-log (ERG) condition of SETOL
    detX_num: float = math.nan  # noqa: N815 - WeightWatcher's name
    ERG_gap: float = math.nan  # detX_num - num_pl_spikes; near 0 in an ideal layer

    # element moments
    element_mean: float = math.nan
    element_variance: float = math.nan
    kurtosis: float = math.nan
    max_abs: float = math.nan

    method: str = "exact"  # how the eigenvalues were found
    tied: tuple[str, ...] = ()  # other names of the same weights
    spectrum: "LayerSpectrum | None" = field(default=None, repr=False, compare=False)

    @property
    def unit(self) -> float:
        """WeightWatcher's λ is ours divided by it; it divides 2-D convolutions by √2."""
        return 2.0 if self.kind == "conv2d" else 1.0

    @property
    def counted(self) -> bool:
        """Whether the layer speaks for or against the network."""
        return self.status not in NOT_COUNTED

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """What speaks against believing alpha; empty where nothing does."""
        if not math.isfinite(self.alpha):
            return ("no alpha",)
        null = self.hill_random if math.isnan(self.hill_shuffled) else self.hill_shuffled
        holds: dict[Doubt, bool] = {
            "few eigenvalues": 0 < self.num_evals < MIN_EIGENVALUES,  # 0: a table did not say
            "short tail": self.num_pl_spikes < MIN_TAIL,
            "high D": self.D > MAX_D,
            # Averaged Hill estimates of random matrices scatter by about 2/n in log(h - 1).
            "within its own null": math.isfinite(self.hill)
            and math.log((self.hill - 1.0) / (null - 1.0)) > -6.0 / self.num_evals,
        }
        return tuple(doubt for doubt, held in holds.items() if held)

    @property
    def reliability(self) -> str:
        """The doubts in words, as the column of that name has them; "reliable" without any."""
        return "; ".join(self.doubts) or RELIABLE

    @property
    def warning(self) -> str:
        """WeightWatcher's label: over-trained, under-trained or nothing."""
        if self.alpha < OVER_TRAINED:
            return "over-trained"
        return "under-trained" if self.alpha > UNDER_TRAINED else ""


@dataclass(frozen=True)
class ModelMetrics:
    """Metrics of all layers of a model, in its order, and what was not analysed."""

    layers: tuple[LayerMetrics, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)  # why
    first: str | None = None  # the model's first matrix, analysed or not; None: that of `layers`
    notes: Mapping[str, str] = field(default_factory=dict)  # layer -> what to know of its weights

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> "ModelMetrics":
        """Read a layer table: of `to_frame`, of WeightWatcher or of an old version of it.

        Raises:
            ValueError: if the table has no row or no column that is known.
        """
        numbers = [f.name for f in fields(LayerMetrics) if f.type is float]
        rows, skipped = read_layer_table(frame, numbers=numbers)
        layers = (LayerMetrics(**row) for row in rows)
        return cls(tuple(replace(x, **_in_units(x, x.unit)) for x in layers), skipped)

    def __getitem__(self, name: str) -> LayerMetrics:
        """The layer of that name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(layer.name for layer in self.layers)
        raise KeyError(f"no layer {name!r}; the layers are {known}")

    @property
    def counted(self) -> tuple[LayerMetrics, ...]:
        """The layers that speak for or against the network."""
        return tuple(layer for layer in self.layers if layer.counted)

    @property
    def broken(self) -> tuple[LayerMetrics, ...]:
        """The layers for which the network counts as broken by training; empty where it does not.

        One layer that is zero or not finite is enough. Collapsed ones, with most of their energy in
        one direction, are the network's from a quarter of the counted layers on.
        """
        needed = max(1, math.ceil(SHARE_OF_NETWORK * len(self.counted)))
        is_all = len(self.collapsed) >= needed
        fatal = DEGENERATE if is_all else DEGENERATE - {COLLAPSED}
        return tuple(layer for layer in self.layers if layer.status in fatal)

    @property
    def collapsed(self) -> tuple[LayerMetrics, ...]:
        """The layers with most of their energy in one direction: a warning, or the network's."""
        return tuple(layer for layer in self.layers if layer.status == COLLAPSED)

    @property
    def first_layer(self) -> LayerMetrics | None:
        """The model's first matrix; None where it is not among the layers."""
        wanted = self.first if self.first is not None or not self.layers else self.layers[0].name
        return next((layer for layer in self.layers if layer.name == wanted), None)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, one column a quantity; in WeightWatcher's names and units."""
        hidden = {"spectrum", "tied"}
        names = [f.name for f in fields(LayerMetrics) if f.name not in hidden]
        rows = [
            {n: getattr(layer, n) for n in names} | _in_units(layer, 1.0 / layer.unit)
            for layer in self.layers
        ]
        frame = pd.DataFrame(rows, columns=names)
        frame = frame.rename(columns={"name": "longname", "num_slices": "rf", "kind": "layer_type"})
        frame.insert(5, "Q", frame["N"] / frame["M"])
        frame["lambda_max"] = frame["spectral_norm"]
        frame["warning"] = [layer.warning for layer in self.layers]
        frame["reliability"] = [layer.reliability for layer in self.layers]
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: layers, summary and what was skipped; what is unknown is None."""
        rows = self.to_frame().to_dict(orient="records")
        return {
            "layers": make_plain(rows),
            "summary": make_plain(self.summary()),
            "skipped": dict(self.skipped),
            "notes": dict(self.notes),
        }

    def summary(self) -> dict[str, float]:
        """Means over the counted layers that have a value, under WeightWatcher's names."""
        names = (
            "log_norm",
            "alpha",
            "alpha_weighted",
            "log_alpha_norm",
            "log_spectral_norm",
            "stable_rank",
            "mp_softrank",
        )
        return {name: _mean(getattr(layer, name) for layer in self.counted) for name in names}


def _in_units(layer: LayerMetrics, unit: float) -> dict[str, Any]:
    """The fields in units of λ, times this; powers of two change no digit."""
    scaled: dict[str, Any] = {name: getattr(layer, name) * unit for name in IN_UNITS}
    return scaled | {"Lambda": layer.Lambda / unit}


def _mean(values: Iterable[float]) -> float:
    known: Iterator[float] = (value for value in values if math.isfinite(value))
    listed = list(known)
    return sum(listed) / len(listed) if listed else math.nan
