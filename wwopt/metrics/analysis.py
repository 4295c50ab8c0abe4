"""Compute the spectral metrics of every layer of a model.

Definitions: Martin & Mahoney 2021 (JMLR 22:165) and Martin, Peng & Mahoney 2021 (Nature
Communications 12:4122). What the fields mean: `wwopt.metrics.model_metrics`.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from wwopt.metrics.kept_layers import identify, keep_layer, read_kept
from wwopt.metrics.model_metrics import (
    COLLAPSED,
    COLLAPSED_STABLE_RANK,
    DIFFERENCE,
    LOW_RANK,
    MIN_COLUMNS,
    MIN_EIGENVALUES,
    NO_POWER_LAW,
    NOT_FINITE,
    OK,
    RANK_DEFICIENT,
    TOO_FEW,
    TOO_SMALL,
    ZERO,
    LayerMetrics,
    ModelMetrics,
)
from wwopt.metrics.parallel import map_layers
from wwopt.metrics.side_by_side import (
    QUICK_BYTES,
    SPARE_BYTES,
    bytes_needed,
    choose_workers,
    map_side_by_side,
)
from wwopt.spectra.large_layers import QUICK_METHOD
from wwopt.spectra.marchenko_pastur import fit_bulk, random_hill, signal_to_bulk
from wwopt.spectra.norms import Norms, compute_norms
from wwopt.spectra.one_thread import one_thread
from wwopt.spectra.power_law import EIGENVALUE_FLOOR, FitStatus, averaged_hill, fit_power_law
from wwopt.spectra.spectrum import MAX_SIZE, QUICK_SIDE, LayerSpectrum, compute_spectrum
from wwopt.spectra.traps import find_traps
from wwopt.spectra.truncated_power_law import fit_truncated_power_law, tail_cutoff
from wwopt.weights.matrices import WeightMatrix, Weights, locate, read_weights

# What a quick estimate adds to alpha's standard error, relative to alpha.
QUICK_ALPHA_ERROR = 0.08
NOT_JUDGED = frozenset({NOT_FINITE, TOO_FEW, LOW_RANK})  # statuses that a difference may have
IN_BYTES: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1000}


def analyze(
    source: Any,
    *,
    base: Any = None,
    seed: int = 0,
    shuffles: int = 3,
    layers: Iterable[str] | None = None,
    key: str | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    max_size: int = MAX_SIZE,
    full_shuffle: bool | None = None,
    quick: bool = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> ModelMetrics:
    """Compute the spectral metrics of every layer of a model or checkpoint.

    Args:
        source: a module, a state dict, or the path of a checkpoint (see `wwopt.weights`); or what
            `read_weights` made of one, which `base`, `layers` and `key` belong to then.
        base: analyse the difference to this source instead, layer by layer. It is no network, so
            its layers are measured and not judged; what became of the base says
            `wwopt.metrics.compare_with_base`.
        seed: of the shuffles behind the traps.
        shuffles: of every layer; 0 leaves the traps unknown.
        layers: names to analyse; None for all.
        key: dotted path of the model in a checkpoint that holds several, such as "ema".
        executor: computes the layers, in other processes or on other machines; None for here.
        workers: layers computed at once, here, each by a thread, with the same numbers whatever it
            is; as many, whatever memory they need. None for as many as torch has threads and as
            need no more memory than the largest layer alone and 64 MB; one on a GPU.
        device: where to compute; None for where the weights lie.
        dtype: of the computation; None for float64.
        max_size: smaller dimension up to which a layer is decomposed; the spectra of larger ones
            are estimated (see `wwopt.spectra.large_layers`), as `LayerMetrics.method` says.
        full_shuffle: whether to keep the whole spectrum of every layer's first shuffle (smaller
            dimension up to 1,024), as pictures show it; None for the layers where it tells more
            than `hill_random`: entries with heavy tails or many zeros, and small layers.
        quick: estimate the spectra of layers from 1,536 columns on quickly, and shuffle only those
            whose entries could have traps (docs/large-models.md holds the errors).
        resume: file that keeps each layer when it is done, and from which the layers are taken
            that were measured before, of the same files in the same way; of a path alone.
        progress: show a bar, from two seconds on.

    Raises:
        ValueError: if `workers` is below 1, or given beside an executor; if `resume` is given for
            what is in memory.
        KeptLayersError: if the file to resume from holds something else, or cannot be written.
        WeightsError: if the source cannot be read, a named layer or key does not exist, or it
            holds several models and no key chooses one.
        LostWorkerError: if the executor lost the workers of one layer again and again.
    """
    if workers is not None and (workers < 1 or executor is not None):
        raise ValueError(
            f"workers must be at least 1, got {workers}"
            if executor is None
            else f"an executor has workers of its own; pass it without workers={workers}"
        )
    if isinstance(source, Weights):
        weights = source
    else:
        if executor is not None:  # its workers may have another working directory
            source, base = locate(source), locate(base)
        wanted = None if layers is None else list(layers)
        weights = read_weights(source, base=base, layers=wanted, key=key)
    quick_from = QUICK_SIDE if quick else None
    options: dict[str, Any] = {"seed": seed, "shuffles": shuffles, "max_size": max_size}
    options |= {"dtype": dtype or torch.float64, "full_shuffle": full_shuffle, "device": device}
    measure = partial(
        _measure,
        quick_from=quick_from,
        **options,
    )
    identity, known = "", {}
    if resume is not None:
        if not weights.in_files or not isinstance(source, str | os.PathLike):
            raise ValueError("only the analysis of a path can be resumed: pass the path itself")
        parts = {"key": key, "base": None if base is None else identify(base, {}), "quick": quick}
        identity = identify(source, options | parts)
        known = read_kept(Path(resume), identity)
    waiting = tuple(matrix for matrix in weights.matrices if matrix.name not in known)
    if executor is None:
        measured: Iterator[LayerMetrics] = _map_here(
            measure,
            replace(weights, matrices=waiting),
            workers=workers,
            device=device,
            max_size=max_size,
            quick_from=quick_from,
        )
    else:
        measured = map_layers(measure, waiting, executor=executor, from_files=weights.in_files)
    found = dict(zip(known, metrics_from_records(known.values()).layers, strict=True))
    sizes = [_count_bytes(matrix) for matrix in weights.matrices]
    bar = tqdm(desc="layers", total=sum(sizes), delay=2, disable=not progress, **IN_BYTES)
    bar.update(sum(_count_bytes(x) for x in weights.matrices if x.name in known))
    with bar:
        for matrix, layer in zip(waiting, measured, strict=True):
            found[matrix.name] = layer
            if resume is not None and layer.spectrum is not None:
                keep_layer(Path(resume), identity, layer.spectrum)
            bar.set_postfix_str(f"{len(found)} of {len(weights.matrices)}", refresh=False)
            bar.update(_count_bytes(matrix))
    layers_found = tuple(found[matrix.name] for matrix in weights.matrices)
    if weights.is_difference:
        judged = (
            x if x.status in NOT_JUDGED else replace(x, status=DIFFERENCE) for x in layers_found
        )
        layers_found = tuple(judged)
    notes = {matrix.name: matrix.note for matrix in weights.matrices if matrix.note}
    return ModelMetrics(layers_found, skipped=weights.skipped, first=weights.first, notes=notes)


def _count_bytes(matrix: WeightMatrix) -> int:
    """Of a layer as it is stored; four an entry where its dtype is none of torch's."""
    dtype = getattr(torch, matrix.dtype, None)
    each = dtype.itemsize if isinstance(dtype, torch.dtype) else 4
    return math.prod(matrix.shape) * matrix.num_slices * each


def _map_here(
    function: Callable[[WeightMatrix], LayerMetrics],
    weights: Weights,
    *,
    workers: int | None,
    device: torch.device | str | None,
    max_size: int,
    quick_from: int | None,
) -> Iterator[LayerMetrics]:
    needs = [
        bytes_needed(matrix, max_size=max_size, quick_from=quick_from)
        for matrix in weights.matrices
    ]
    if workers is None:
        here = weights.on_cpu if device is None else torch.device(device).type == "cpu"
        workers = choose_workers(weights.matrices, on_cpu=here)
        budget = max(needs, default=0) + SPARE_BYTES
        if quick_from is not None:
            budget = max(budget, QUICK_BYTES)
    else:
        budget = sum(needs)
    if workers == 1:
        return map(function, weights.matrices)
    return map_side_by_side(function, weights.matrices, workers=workers, needs=needs, budget=budget)


def _measure(matrix: WeightMatrix, **options: Any) -> LayerMetrics:
    with one_thread():  # the fits, too, give the same numbers whatever runs beside them
        return _layer_metrics(compute_spectrum(matrix, **options))


def metrics_from_spectra(spectra: Iterable[LayerSpectrum]) -> ModelMetrics:
    """Compute the metrics of layers whose spectra are already known."""
    with one_thread():  # as `analyze` fits them
        return ModelMetrics(tuple(_layer_metrics(spectrum) for spectrum in spectra))


def metrics_from_records(records: Iterable[Mapping[str, Any]]) -> ModelMetrics:
    """Compute the metrics of layers whose spectra were stored as plain fields.

    Args:
        records: the fields of a `LayerSpectrum` each, as `wwopt.tracking.read_layer_spectra`
            gives them.
    """
    tuples = ("shape", "tied")  # JSON has lists
    return metrics_from_spectra(
        LayerSpectrum(**{**record, **{name: tuple(record[name]) for name in tuples}})
        for record in records
    )


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
    fit = fit_power_law(raw, floor=EIGENVALUE_FLOOR * known.unit)
    traps = find_traps(spectrum)
    bulk = fit_bulk(raw, N=N, M=M, unit=known.unit)
    norms = compute_norms(raw, N=N, alpha=fit.alpha, unit=known.unit)
    truncated = fit_truncated_power_law(raw[raw >= fit.xmin], alpha=fit.alpha)
    hill = averaged_hill(raw)
    shuffled = spectrum.shuffled_eigenvalues
    return replace(
        known,
        **asdict(norms),
        alpha=fit.alpha,
        sigma=_widen(fit.sigma, fit.alpha, spectrum.method),
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


def _widen(sigma: float, alpha: float, method: str) -> float:
    """Standard error of alpha, with what a quick estimate of the spectrum adds."""
    return math.hypot(sigma, QUICK_ALPHA_ERROR * alpha) if method == QUICK_METHOD else sigma


def _status(spectrum: LayerSpectrum, fit: FitStatus, hill: float, norms: Norms) -> str:
    if spectrum.rank_bound is not None and spectrum.rank_bound < spectrum.eigenvalues.size:
        return LOW_RANK
    if spectrum.eigenvalues.size < MIN_EIGENVALUES:
        return TOO_FEW
    # Pooled slices each have a largest eigenvalue; with a few columns it always holds most.
    num_tops = spectrum.num_slices if spectrum.shape[1] >= MIN_COLUMNS else 1
    tops = spectrum.eigenvalues[-num_tops:]
    if spectrum.eigenvalues.sum() < COLLAPSED_STABLE_RANK * tops.sum():
        return COLLAPSED
    if fit != "ok":
        return NO_POWER_LAW if fit == "all eigenvalues equal" else TOO_SMALL
    if math.isnan(hill):
        # Four of ten eigenvalues are zero to rounding, or the largest tenth are equal.
        return RANK_DEFICIENT if norms.rank_loss > 0 else NO_POWER_LAW
    return OK
