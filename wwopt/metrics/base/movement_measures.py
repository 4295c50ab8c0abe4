"""Measure what became of a layer since its base; `movements` says what the numbers are.

The kernel positions of a convolution stand side by side in one matrix, as LoRA sees them; slices of
other layers, such as experts, are looked at one by one, and their shares weighted by ‖Δ‖².
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.metrics.base.movements import LayerMovement
from wwopt.metrics.base.rounding_grids import FORMATS, Grid, find_grid
from wwopt.spectra.inner_products import frobenius_norm, inner_product
from wwopt.spectra.one_thread import one_thread
from wwopt.spectra.singular_vectors import (
    EXACT_SIDE,
    WHOLE_SIDE,
    SingularVectors,
    find_beyond_noise,
    find_singular_vectors,
    match_vectors,
    principal_angles,
    squared_singular_values,
)
from wwopt.weights.matrices import WeightMatrix

TOP = 10  # leading singular vectors that are looked at
COSINE = 0.5  # with a vector of the base, below which one is an intruder
KNOWN = 128  # leading vectors of the base that intruders are looked for in, where M is large
ROUNDED_TWICE = 2.0  # times the energy of rounding at random, up to which it is rounding
EXACT = 1e-12  # share of ‖Δ‖² beyond the rank; products of float32 have 1e-14
ESTIMATED = 1e-6  # the same where the spectrum is estimated: its largest values are that exact
HALF_STEP = 0.75  # of a step; half of one, and what int8 that is stored as bfloat16 is off
ON_GRID = 0.1  # of ‖Δ‖², that weights may be off a grid; int8 stored as bfloat16 has .03
CHANCE = 1.75  # over √n: overlap of ten independent vectors with ten others, best pairs, drawn
CLEAR = 0.7  # slope above which a layer is made of the other without a look beneath
BENEATH = 8  # of the directions of Δ one in so many is taken out
FLOAT32 = 2.0**-46 / 12.0  # share of ‖W₁‖² that rounding to float32 costs, at most


def measure_movement(
    tuned: WeightMatrix,
    base: WeightMatrix,
    *,
    top: int = TOP,
    cosine: float = COSINE,
    device: torch.device | str | None = None,
) -> LayerMovement:
    """Compare a layer with what it was made of.

    Args:
        tuned: the layer.
        base: of the same shape and orientation.
        top: leading singular vectors to compare.
        cosine: below which a vector is an intruder.
        device: where to compute; None for where the base's weights lie.
    """
    with torch.no_grad(), one_thread():
        before = base.read().detach().to(device=device)
        now = tuned.read().detach().to(device=before.device)
        dtype = torch.float64 if torch.float64 in (before.dtype, now.dtype) else torch.float32
        return measure_tensors(
            tuned.name, tuned.kind, now.to(dtype), before.to(dtype), top=top, cosine=cosine
        )


def measure_tensors(
    name: str,
    kind: str,
    now: torch.Tensor,
    before: torch.Tensor,
    *,
    top: int = TOP,
    cosine: float = COSINE,
) -> LayerMovement:
    """The same of weights that are read: shape (slices, rows, columns) each."""
    rows, columns = before.shape[1:]
    known: dict[str, Any] = {
        "name": name,
        "N": max(rows, columns),
        "M": min(rows, columns),
        "parameters": before.numel(),
    }
    delta = now - before
    norm, size, new_size = frobenius_norm(delta), frobenius_norm(before), frobenius_norm(now)
    if norm == 0.0:
        return LayerMovement(**known, **_STILL)
    if not (math.isfinite(norm) and 0.0 < size < math.inf and new_size > 0.0):
        return LayerMovement(**known)
    slope = inner_product(now, before) / size**2
    known |= {"movement": norm / size, "slope": slope, "delta_norm": norm}
    pruned = int(now.count_nonzero()) < now.numel()
    known["zeroed"] = (frobenius_norm(delta[now == 0]) / norm) ** 2 if pruned else 0.0
    left = torch.sub(now, before, alpha=slope)
    known["scaled"] = max(0.0, 1.0 - (frobenius_norm(left) / norm) ** 2)
    del left
    if kind.startswith("conv"):
        now, before, delta = (x.permute(1, 0, 2).flatten(1)[None] for x in (now, before, delta))
    known |= _find_rounding(now.flatten(0, 1), before.flatten(0, 1), norm)
    noise = known.pop("noise")
    parts = [
        _compare_slice(*matrices, noise=noise / len(now), top=top, cosine=cosine)
        for matrices in zip(now, before, delta, strict=True)
    ]
    spectral = max(part.spectral for part in parts)
    weights = np.array([part.energy for part in parts])
    return LayerMovement(
        **known,
        delta_spectral_norm=spectral,
        delta_stable_rank=(norm / spectral) ** 2,
        directions=float(sum(part.directions for part in parts)),
        signal=_weigh([part.signal for part in parts], weights),
        delta_rank=float(max(part.rank for part in parts)),
        full_rank=max(part.full_rank for part in parts),
        gap=min((part.gap for part in parts if not math.isnan(part.gap)), default=math.nan),
        kept=_weigh([part.kept for part in parts], weights),
        chance=min(CHANCE / math.sqrt(max(delta.shape[1:])), 1.0),
        overlap=float(np.mean([part.overlap for part in parts])),
        overlap_right=float(np.mean([part.overlap_right for part in parts])),
        values_moved=max(part.values_moved for part in parts),
        angle=float(np.mean([part.angle for part in parts])),
        largest_angle=max(part.largest_angle for part in parts),
        inside=_weigh([part.inside for part in parts], weights),
        outside=_weigh([part.outside for part in parts], weights),
        intruders=float(sum(part.intruders for part in parts)),
    )


_STILL: dict[str, Any] = {
    "movement": 0.0,
    "slope": 1.0,
    "delta_norm": 0.0,
    "delta_spectral_norm": 0.0,
    "kept": 1.0,
    "directions": 0.0,
    "delta_rank": 0.0,
    "overlap": 1.0,
    "overlap_right": 1.0,
    "values_moved": 0.0,
    "angle": 0.0,
    "largest_angle": 0.0,
    "intruders": 0.0,
}


def _find_rounding(now: torch.Tensor, before: torch.Tensor, norm: float) -> dict[str, Any]:
    """Which grids the sides lie on, and how much of the change rounding to one of them explains."""
    ours, theirs = _find_grid(now, norm), _find_grid(before, norm)
    found: dict[str, Any] = {
        "grid": ours.name if ours else "",
        "base_grid": theirs.name if theirs else "",
        "rounded": 0.0,
        "within": 0.0,
        "nearest": 0.0,
        "noise": FLOAT32 * frobenius_norm(now) ** 2,
    }
    if ours is not None:
        found["noise"] = max(found["noise"], ROUNDED_TWICE * ours.energy)
    # A format that both were stored in explains nothing.
    one_format = ours is not None and theirs is not None and ours.name == theirs.name in FORMATS
    sides = [] if one_format else [(ours, before, now, False), (theirs, now, before, True)]
    for grid, fine, coarse, backwards in sides:
        if grid is None:
            continue
        there = grid.project(fine)
        if frobenius_norm(there - fine) == 0.0:  # both lie on it, and it explains nothing
            continue
        rounded = max(0.0, 1.0 - (frobenius_norm(coarse - there) / norm) ** 2)
        if rounded > found["rounded"] or "at_random" not in found:
            found["rounded"] = rounded
            found["within"] = _share_within(grid, fine, coarse, 1.0)
            found["nearest"] = _share_within(grid, fine, coarse, HALF_STEP)
            found["grid_floating"] = grid.kind == "cast"
            found["at_random"] = norm**2 / grid.energy
            found["backwards"] = backwards
    return found


def _find_grid(weights: torch.Tensor, norm: float) -> Grid | None:
    """The grid that weights lie on, seen as closely as the change is large."""
    grid = find_grid(weights)
    return None if grid is None or grid.away > ON_GRID * norm**2 else grid


def _share_within(grid: Grid, fine: torch.Tensor, coarse: torch.Tensor, most: float) -> float:
    """Share of the weights that are no further from their rounded value than so many steps."""
    steps = grid.steps.reshape(fine.shape)
    return int(((coarse - fine).abs() <= most * steps).count_nonzero()) / fine.numel()


@dataclass(frozen=True)
class _Part:
    """What one slice tells."""

    energy: float
    spectral: float
    directions: int
    signal: float
    rank: int
    full_rank: int
    gap: float
    kept: float
    overlap: float
    overlap_right: float
    values_moved: float
    angle: float
    largest_angle: float
    inside: float
    outside: float
    intruders: int


def _compare_slice(
    now: torch.Tensor,
    before: torch.Tensor,
    delta: torch.Tensor,
    *,
    noise: float,
    top: int,
    cosine: float,
) -> _Part:
    side, long = sorted(delta.shape)
    eigenvalues = squared_singular_values(delta)
    energy = float(eigenvalues.sum())
    if side > EXACT_SIDE:
        noise = max(noise, ESTIMATED * energy)
    beyond = find_beyond_noise(eigenvalues, N=long, M=side, least=noise / delta.numel())
    rank, gap = _find_rank(eigenvalues, noise=noise, directions=beyond.directions)
    whole = side <= WHOLE_SIDE
    top = min(top, max(1, side // 2))  # all directions of a small side lie in one space
    theirs = find_singular_vectors(before, side if whole else max(KNOWN, top))
    ours = find_singular_vectors(now, top)
    lead = SingularVectors(theirs.left[:, :top], theirs.values[:top], theirs.right[:, :top])
    nearest = (theirs.left.mT @ ours.left).abs().amax(0)  # (top,)
    angles = principal_angles(lead.left, ours.left)
    cut = delta.to(lead.left.dtype)
    rows, columns = lead.left.mT @ cut, cut @ lead.right
    both = frobenius_norm(lead.left.mT @ columns) ** 2
    total = frobenius_norm(delta) ** 2 or 1.0
    either = frobenius_norm(rows) ** 2 + frobenius_norm(columns) ** 2 - both
    return _Part(
        energy=energy,
        spectral=math.sqrt(float(eigenvalues[-1])),
        directions=beyond.directions,
        signal=beyond.share,
        rank=rank,
        full_rank=min(int(delta.any(dim).sum()) for dim in (0, 1)),
        gap=gap,
        kept=_find_kept(now, before, delta),
        overlap=match_vectors(lead.left, ours.left),
        overlap_right=match_vectors(lead.right, ours.right),
        values_moved=_find_largest_ratio(ours.values, lead.values),
        angle=float(angles.mean()),
        largest_angle=float(angles.max()),
        inside=min(both / total, 1.0),
        outside=min(max(1.0 - either / total, 0.0), 1.0),
        intruders=int((nearest < cosine).sum()),
    )


def _find_largest_ratio(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest |s₁/s₀ - 1| of values that stand in the same place."""
    return float((ours / theirs.clamp_min(1e-30) - 1.0).abs().max())


def _find_rank(
    eigenvalues: NDArray[np.float64], *, noise: float, directions: int
) -> tuple[int, float]:
    """How many directions the change has, and how far the last stands above the next.

    Two counts bound it, since rounding is no white noise: by energy, as many as leave no more than
    the rounding's, and by the Marchenko-Pastur edge. Between them it is where the largest gap is.
    """
    side = eigenvalues.size
    left = np.cumsum(eigenvalues)[::-1]  # energy beyond the first r directions, r = 0, 1, …
    noise = max(noise, EXACT * float(left[0]))
    rank = int((left > noise).sum())
    low, high = sorted((rank, directions))
    low, high = max(low, 1), min(high, side - 1)
    if rank == side or low > high:
        return rank, math.nan
    falling = eigenvalues[::-1]
    places = np.arange(low, high + 1)
    following = np.maximum(falling[places], max(noise / side, 1e-300))
    gaps = np.sqrt(falling[places - 1] / following)
    best = int(gaps.argmax())
    return int(places[best]), float(gaps[best])


def _find_kept(now: torch.Tensor, before: torch.Tensor, delta: torch.Tensor) -> float:
    """The slope beneath the change: without the directions of Δ that hold most of it."""
    slope = inner_product(now, before) / (frobenius_norm(before) ** 2 or math.nan)
    if slope > CLEAR:
        return slope
    count = min(max(1, min(delta.shape) // BENEATH), KNOWN)
    lead = find_singular_vectors(delta, count)
    now, before = (
        x - lead.left @ (lead.left.mT @ x) for x in (now.to(lead.left), before.to(lead.left))
    )
    now, before = (x - (x @ lead.right) @ lead.right.mT for x in (now, before))
    return inner_product(now, before) / (frobenius_norm(before) ** 2 or math.nan)


def _weigh(values: list[float], weights: NDArray[np.float64]) -> float:
    total = float(weights.sum())
    return float(np.dot(values, weights) / total) if total > 0.0 else math.nan
