"""Spectral metrics of every layer of a model: what people read, and what scores are made of.

Where WeightWatcher 0.7.7 has a column for a quantity and we compute the same quantity, the field
has its name and its scale (it halves the eigenvalues of 2-D convolutions; so do these fields, alpha
does not change). Where its value is wrong or the search must go on, the field is NaN and `status`
says why. Definitions: Martin & Mahoney 2021 (JMLR 22:165) and Martin, Peng & Mahoney 2021 (Nature
Communications 12:4122).
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from wwopt.layer_tables import read_layer_table
from wwopt.marchenko_pastur import fit_bulk, random_hill, signal_to_bulk
from wwopt.norms import Norms, compute_norms
from wwopt.parallel import map_layers
from wwopt.power_law import averaged_hill, fit_power_law
from wwopt.spectrum import MAX_SIZE, LayerSpectrum, compute_spectrum
from wwopt.traps import find_traps
from wwopt.truncated_power_law import fit_truncated_power_law, tail_cutoff
from wwopt.weights import WeightMatrix, read_weights

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

NOT_COUNTED = frozenset({TOO_FEW, LOW_RANK})  # count neither for nor against a network
DEGENERATE = frozenset({NOT_FINITE, ZERO, COLLAPSED})  # training broke this layer


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
    log_norm: float = math.nan
    spectral_norm: float = math.nan  # λmax
    log_spectral_norm: float = math.nan
    stable_rank: float = math.nan  # Σλ/λmax
    alpha_weighted: float = math.nan  # alpha · log10 λmax
    log_alpha_norm: float = math.nan  # log10 Σ λ^alpha
    entropy: float = math.nan  # of λ/Σλ, in units of ln(rank)
    matrix_rank: float = math.nan
    rank_loss: float = math.nan
    weak_rank_loss: float = math.nan  # eigenvalues below 1e-6

    # Marchenko-Pastur bulk (rectangular layers)
    sigma_mp: float = math.nan
    bulk_min: float = math.nan
    bulk_max: float = math.nan
    num_spikes: float = math.nan
    mp_softrank: float = math.nan
    W_scale: float = math.nan

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
    spectrum: LayerSpectrum | None = field(default=None, repr=False, compare=False)

    @property
    def counted(self) -> bool:
        """Whether the layer speaks for or against the network."""
        return self.status not in NOT_COUNTED

    @property
    def reliability(self) -> str:
        """Whether alpha can be believed: "reliable", or the reasons against it."""
        if not math.isfinite(self.alpha):
            return "no alpha"
        null = self.hill_random if math.isnan(self.hill_shuffled) else self.hill_shuffled
        reasons = {
            "few eigenvalues": 0 < self.num_evals < MIN_EIGENVALUES,  # 0: a table did not say
            "short tail": self.num_pl_spikes < MIN_TAIL,
            "high D": self.D > MAX_D,
            # Averaged Hill estimates of random matrices scatter by about 2/n in log(h - 1).
            "within its own null": math.isfinite(self.hill)
            and math.log((self.hill - 1.0) / (null - 1.0)) > -6.0 / self.num_evals,
        }
        return "; ".join(reason for reason, holds in reasons.items() if holds) or "reliable"

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

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> "ModelMetrics":
        """Read a layer table: of `to_frame`, of WeightWatcher or of an old version of it.

        Raises:
            ValueError: if the table has no row or no column that is known.
        """
        numbers = [f.name for f in fields(LayerMetrics) if f.type is float]
        rows, skipped = read_layer_table(frame, numbers=numbers)
        return cls(tuple(LayerMetrics(**row) for row in rows), skipped)

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

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, one column a quantity, WeightWatcher's names where it has one."""
        hidden = {"spectrum", "tied"}
        names = [f.name for f in fields(LayerMetrics) if f.name not in hidden]
        rows = [{n: getattr(layer, n) for n in names} for layer in self.layers]
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
            "layers": [{str(k): _plain(v) for k, v in row.items()} for row in rows],
            "summary": {key: _plain(value) for key, value in self.summary().items()},
            "skipped": dict(self.skipped),
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


def analyze(
    source: Any,
    *,
    base: Any = None,
    seed: int = 0,
    shuffles: int = 3,
    layers: Iterable[str] | None = None,
    executor: Executor | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    max_size: int = MAX_SIZE,
    full_shuffle: bool | None = None,
    progress: bool = False,
) -> ModelMetrics:
    """Compute the spectral metrics of every layer of a model or checkpoint.

    Args:
        source: a module, a state dict, or the path of a checkpoint (see `wwopt.weights`).
        base: analyse the difference to this source instead, layer by layer.
        seed: of the shuffles behind the traps.
        shuffles: of every layer; 0 leaves the traps unknown.
        layers: names to analyse; None for all.
        executor: computes the layers, in other processes or on other machines; None for here.
        device: where to compute; None for where the weights lie.
        dtype: of the computation; None for float64.
        max_size: smaller dimension up to which a layer is decomposed; the spectra of larger ones
            are estimated (see `wwopt.large_layers`), as `LayerMetrics.method` says.
        full_shuffle: whether to keep the whole spectrum of every layer's first shuffle (smaller
            dimension up to 1,024), as pictures show it; None for the layers where it tells more
            than `hill_random`: entries with heavy tails or many zeros, and small layers.
        progress: show a bar, from two seconds on.

    Raises:
        WeightsError: if the source cannot be read or a named layer does not exist.
        LostWorkerError: if the executor lost the workers of one layer again and again.
    """
    files = all(isinstance(s, str | os.PathLike) for s in (source, base) if s is not None)
    if executor is not None and files:  # workers may have another working directory
        source, base = os.path.abspath(source), base and os.path.abspath(base)
    weights = read_weights(source, base=base, layers=None if layers is None else list(layers))
    measure = partial(
        _measure,
        seed=seed,
        shuffles=shuffles,
        device=device,
        dtype=dtype or torch.float64,
        max_size=max_size,
        full_shuffle=full_shuffle,
    )
    if executor is None:
        measured: Iterator[LayerMetrics] = map(measure, weights.matrices)
    else:
        measured = map_layers(measure, weights.matrices, executor=executor, from_files=files)
    total = len(weights.matrices)
    found = tuple(tqdm(measured, desc="layers", total=total, delay=2, disable=not progress))
    return ModelMetrics(found, skipped=weights.skipped)


def _measure(matrix: WeightMatrix, **options: Any) -> LayerMetrics:
    return _layer_metrics(compute_spectrum(matrix, **options))


def metrics_from_spectra(spectra: Iterable[LayerSpectrum]) -> ModelMetrics:
    """Compute the metrics of layers whose spectra are already known."""
    return ModelMetrics(tuple(_layer_metrics(spectrum) for spectrum in spectra))


def _layer_metrics(spectrum: LayerSpectrum) -> LayerMetrics:
    N, M = spectrum.shape
    raw = spectrum.eigenvalues
    known = LayerMetrics(
        name=spectrum.name,
        kind=spectrum.kind,
        N=N,
        M=M,
        num_slices=spectrum.num_slices,
        num_evals=raw.size,
        element_mean=spectrum.element_mean,
        element_variance=spectrum.element_variance,
        kurtosis=math.nan if spectrum.kurtosis is None else spectrum.kurtosis,
        max_abs=math.nan if spectrum.max_abs is None else spectrum.max_abs,
        method=spectrum.method,
        tied=spectrum.tied,
        spectrum=spectrum,
    )
    if not math.isfinite(float(raw[-1]) * raw.size):  # NaN sorts last; their sum must not overflow
        return replace(known, status=NOT_FINITE)
    if not raw[-1] > 0.0:
        return replace(known, status=ZERO if raw.size >= MIN_EIGENVALUES else TOO_FEW)
    # WeightWatcher divides 2-D convolutions by √2 before it takes singular values.
    eigenvalues = raw / 2.0 if spectrum.kind == "conv2d" else raw
    fit = fit_power_law(eigenvalues)
    traps = find_traps(spectrum)
    bulk = fit_bulk(eigenvalues, N=N, M=M)
    norms = compute_norms(eigenvalues, N=N, alpha=fit.alpha)
    truncated = fit_truncated_power_law(eigenvalues[eigenvalues >= fit.xmin], alpha=fit.alpha)
    hill = averaged_hill(raw)
    shuffled = spectrum.shuffled_eigenvalues
    return replace(
        known,
        **asdict(norms),
        alpha=fit.alpha,
        sigma=fit.sigma,
        D=fit.D,
        xmin=fit.xmin,
        xmax=fit.xmax,
        num_pl_spikes=fit.num_pl_spikes,
        hill=hill,
        hill_random=random_hill(N, M, spectrum.num_slices),
        hill_shuffled=math.nan if shuffled is None else averaged_hill(shuffled),
        alpha_truncated=truncated.alpha,
        Lambda=truncated.Lambda,
        p_pure=truncated.p_value,
        tail_cutoff=tail_cutoff(raw),
        signal_to_bulk=signal_to_bulk(raw, N=N, M=M, num_slices=spectrum.num_slices),
        trap_z=traps.trap_z,
        num_traps=math.nan if traps.num_traps is None else traps.num_traps,
        mean_spike=traps.mean_spike,
        **({} if bulk is None else asdict(bulk)),
        ERG_gap=norms.detX_num - fit.num_pl_spikes if fit.status == "ok" else math.nan,
        status=_status(spectrum, fit.status, hill, norms),
    )


def _status(spectrum: LayerSpectrum, fit_status: str, hill: float, norms: Norms) -> str:
    if spectrum.rank_bound is not None and spectrum.rank_bound < spectrum.eigenvalues.size:
        return LOW_RANK
    if spectrum.eigenvalues.size < MIN_EIGENVALUES:
        return TOO_FEW
    # Pooled slices each have a largest eigenvalue; with a few columns it always holds most.
    num_tops = spectrum.num_slices if spectrum.shape[1] >= MIN_COLUMNS else 1
    tops = spectrum.eigenvalues[-num_tops:]
    if spectrum.eigenvalues.sum() < COLLAPSED_STABLE_RANK * tops.sum():
        return COLLAPSED
    if fit_status != "ok":
        return NO_POWER_LAW if "equal" in fit_status else TOO_SMALL
    if math.isnan(hill):
        # Four of ten eigenvalues are zero to rounding, or the largest tenth are equal.
        return RANK_DEFICIENT if norms.rank_loss > 0 else NO_POWER_LAW
    return OK


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Iterable[float]) -> float:
    known: Iterator[float] = (value for value in values if math.isfinite(value))
    listed = list(known)
    return sum(listed) / len(listed) if listed else math.nan
