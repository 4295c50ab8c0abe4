"""Which grid do weights lie on, as a cast or a quantisation leaves them?

A grid has few values near each weight: a floating-point format of 8 or 16 bits, equal steps of a
tensor, a row, a column or a group of a row, or a few levels of a group (NF4). It is told from the
weights alone, also where they were stored as float32 or bfloat16 again:

    a cast      every weight is on it; of a scaled one, up to what storing it as bfloat16 does
    steps       the squared distance is below .15 of what other weights would have, step²/12, and
                below 2e-5 of the weights' own square: int8 per 32 weights, stored as bfloat16, has
                .1 and 3e-6
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from wwopt.spectra.inner_products import frobenius_norm

NEAR = 0.15  # of step²/12
SMALL = 2e-5  # of the weights' square
STORED = 2e-6  # of the weights' square; rounding to bfloat16 costs 7e-7
SAMPLE = 1 << 14  # weights that are looked at before all are, in 4 to 32 rows
FLOATS: tuple[tuple[str, torch.dtype, int, int], ...] = (  # name, dtype, bits of the fraction, e
    ("float8_e5m2", torch.float8_e5m2, 2, -14),  # e: exponent of the smallest normal number
    ("float8_e4m3fn", torch.float8_e4m3fn, 3, -6),
    ("bfloat16", torch.bfloat16, 7, -126),
    ("float16", torch.float16, 10, -14),
    ("float32", torch.float32, 23, -126),
)
FORMATS = frozenset(name for name, *_ in FLOATS)  # without a scale
HALVES = frozenset({"bfloat16", "float16", "float32"})  # which are not scaled before the cast
# Largest value of the integers that symmetric quantisation maps the largest weight to: 2^(b-1) - 1
# of most, 2^(b-1) of GGUF's Q4_0.
TOPS = (1, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128)
STEPS = (3, 7, 15, 31, 63, 255)  # between the smallest and the largest, of asymmetric quantisation
MOST_STEPS = 256
GROUPS = (128, 64, 32)  # entries of a row; GPTQ and AWQ take 128, NF4 64, GGUF 32
LEVELS = 16  # values of a group of four bits
FEWEST = 8  # weights of a group; a few lie on many grids
Kind = Literal["cast", "steps", "levels"]


@dataclass(frozen=True)
class Grid:
    """A grid that a layer's weights lie on."""

    name: str  # "bfloat16", "256 values per row", "16 levels per 64 weights"
    kind: Kind
    steps: torch.Tensor  # from value to value at each weight; as many entries as weights
    energy: float  # Σ step²/12 over the weights: what rounding to it costs at random
    away: float  # squared distance of the weights from it
    project: Callable[[torch.Tensor], torch.Tensor]  # other weights of the shape → nearest on it


def find_grid(weights: torch.Tensor) -> Grid | None:
    """The coarsest grid that weights lie on, or None.

    Args:
        weights: shape (rows, columns), finite, rows are outputs; float32, or float64.
    """
    least, most = weights.aminmax()
    if not (least or most):  # all are zero
        return None
    rows = min(max(4, min(32, SAMPLE // weights.shape[1])), len(weights))
    sample = weights[torch.linspace(0, len(weights) - 1, rows).long()]
    for candidate in _list_candidates(weights, least, most):
        if candidate(sample, True) is not None:
            found = candidate(weights, False)
            if found is not None:
                return found
    return None


# A candidate looks at some rows, or makes the grid of all.
_Candidate = Callable[[torch.Tensor, bool], Grid | None]


def _list_candidates(
    weights: torch.Tensor, least: torch.Tensor, most: torch.Tensor
) -> Iterator[_Candidate]:
    """The coarsest first: int8 that is stored as bfloat16 lies on both.

    Formats of 8 bits that were not scaled are told exactly, and come before the steps, since their
    smallest numbers are equally far apart; integers of 4 bits lie on every scaled one.
    """
    for name, dtype, bits, low in FLOATS:
        if name not in HALVES:
            yield partial(_try_cast, name, dtype, bits, low, 1.0)
    top_all = torch.maximum(-least, most)
    for steps in TOPS:
        yield partial(_try_steps, "tensor", 0, 2 * steps, (top_all / steps, torch.tensor(0.0)))
    for steps in STEPS:
        yield partial(_try_steps, "tensor", 0, steps, ((most - least) / steps, least))
    columns = torch.maximum(-weights.amin(0, keepdim=True), weights.amax(0, keepdim=True))
    sizes = [size for size in GROUPS if weights.shape[1] % size == 0 and size < weights.shape[1]]
    for name, size in [("row", weights.shape[1]), *((f"{size} weights", size) for size in sizes)]:
        if size < FEWEST:
            continue
        # Not a half or a quarter of the step, on whose multiples the weights lie too.
        yield partial(_try_steps, name, size, 0, "gap")
        for steps in TOPS:
            yield partial(_try_steps, name, size, 2 * steps, "top")
        for steps in STEPS:
            yield partial(_try_steps, name, size, steps, "range")
        if size >= 4 * LEVELS:
            yield partial(_try_levels, name, size)
    if len(weights) >= FEWEST:
        for steps in TOPS:
            yield partial(_try_steps, "column", 0, 2 * steps, (columns / steps, torch.tensor(0.0)))
    for name, dtype, bits, low in FLOATS:
        if name in HALVES:
            if name != "float32" or weights.dtype == torch.float64:
                yield partial(_try_cast, name, dtype, bits, low, 1.0)
            continue
        # The largest weight of a part of a tensor, such as q of a fused projection, may be any of
        # the format's fractions.
        power = 2.0 ** math.floor(math.log2(torch.finfo(dtype).max))
        fractions = [1.0 + i / 2**bits for i in range(2**bits)]
        scales = [float(top_all) / (power * fraction) for fraction in fractions]
        for scale in (*scales, None):
            yield partial(_try_cast, name, dtype, bits, low, scale)


def _try_cast(
    name: str,
    dtype: torch.dtype,
    bits: int,
    low: int,
    scale: float | None,
    weights: torch.Tensor,
    sampled: bool,
) -> Grid | None:
    """Of a scale for all, or one for each row (None)."""
    scales: torch.Tensor | float
    if scale is None:
        top = float(torch.finfo(dtype).max)
        scales = (weights.abs().amax(1, keepdim=True) / top).clamp_min(1e-38)
    else:
        scales = scale
    how = "" if scale == 1.0 else ", scaled per row" if scale is None else ", scaled"

    def project(others: torch.Tensor) -> torch.Tensor:
        if scale == 1.0:
            return others.to(dtype).to(others.dtype)
        largest = float(torch.finfo(dtype).max)
        return (others / scales).clamp(-largest, largest).to(dtype).to(others.dtype) * scales

    if scale == 1.0 and not torch.equal(project(weights), weights):
        return None
    steps = _powers_of_two(weights if scale == 1.0 else weights / scales)
    steps = steps.clamp_min_(2.0**low).mul_(2.0**-bits)
    steps = steps if scale == 1.0 else steps * scales
    least = 0.0 if scale == 1.0 else STORED
    return _accept(name + how, "cast", weights, project, steps, small=least)


def _powers_of_two(weights: torch.Tensor) -> torch.Tensor:
    """The power of two at or below each |w|, its exponent's bits alone; 0 where that is none."""
    if weights.dtype == torch.float64:
        return (weights.contiguous().view(torch.int64) & 0x7FF0000000000000).view(torch.float64)
    return (weights.contiguous().view(torch.int32) & 0x7F800000).view(torch.float32)


def _try_steps(
    name: str,
    size: int,
    count: int,
    how: str | tuple[torch.Tensor, torch.Tensor],
    weights: torch.Tensor,
    sampled: bool,
) -> Grid | None:
    """Equal steps: of a tensor or a column, whose step and origin are given, or of groups."""
    if isinstance(how, tuple):
        step, origin = (part.to(weights) for part in how)
        groups = weights
    else:
        groups = weights.reshape(-1, size)
        step, origin, count = _find_steps(groups, count, how)
        if count > MOST_STEPS:
            return None
    step = step.clamp_min(1e-38)

    def project(others: torch.Tensor) -> torch.Tensor:
        lined = others.reshape(groups.shape)
        return (((lined - origin) / step).round() * step + origin).reshape(others.shape)

    label = f"{min(count + 1, MOST_STEPS)} values per {name}"
    return _accept(label, "steps", weights, project, step.expand(groups.shape))


def _find_steps(
    groups: torch.Tensor, count: int, how: str
) -> tuple[torch.Tensor, torch.Tensor, int]:
    if how == "top":
        step = groups.abs().amax(1, keepdim=True) / (count / 2)
        # The largest weight may have been rounded once more, by a 512th: fitted over all of them.
        places = (groups / step.clamp_min(1e-38)).round()
        squares = places.square().sum(1, keepdim=True).clamp_min(1.0)
        return (groups * places).sum(1, keepdim=True) / squares, torch.zeros(()), count
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    if how == "range":
        return (high - low) / count, low, count
    gaps = groups.sort(1).values.diff(dim=1)
    gaps = torch.where(gaps > 1e-4 * (high - low), gaps, torch.inf)
    step = gaps.amin(1, keepdim=True)
    step = torch.where(step.isinf(), high - low, step)
    steps = float(((high - low) / step.clamp_min(1e-38)).max())
    return step, low, round(min(steps, 1e9))


def _try_levels(name: str, size: int, weights: torch.Tensor, sampled: bool) -> Grid | None:
    """At most 16 values of each group, at whatever distances; most of them not zero."""
    if 2 * int(weights.count_nonzero()) < weights.numel():
        return None  # pruned weights have few values too
    ordered = weights.reshape(-1, size).sort(1).values
    new = ordered.diff(dim=1) > 0
    if int(new.sum(1).max()) >= LEVELS:
        return None
    # The values of each group, the largest repeated to 16.
    place = torch.cat([torch.zeros_like(new[:, :1], dtype=torch.long), new.cumsum(1)], 1)
    levels = ordered[:, -1:].expand(-1, LEVELS).clone().scatter_(1, place, ordered)
    middles = ((levels[:, 1:] + levels[:, :-1]) / 2.0).contiguous()

    def project(others: torch.Tensor) -> torch.Tensor:
        lined = others.reshape(-1, size).contiguous()
        return levels.gather(1, torch.searchsorted(middles, lined)).reshape(others.shape)

    most = int(new.sum(1).max()) + 1
    spread = (ordered[:, -1:] - ordered[:, :1]) / max(most - 1, 1)
    return _accept(
        f"{most} levels per {name}", "levels", weights, project, spread.expand(ordered.shape)
    )


def _accept(
    name: str,
    kind: Kind,
    weights: torch.Tensor,
    project: Callable[[torch.Tensor], torch.Tensor],
    steps: torch.Tensor,
    *,
    small: float = SMALL,
) -> Grid | None:
    # Zeros lie on every grid, and prove none.
    energy = frobenius_norm(steps.reshape(weights.shape) * (weights != 0)) ** 2 / 12.0
    away = frobenius_norm(weights - project(weights)) ** 2
    size = frobenius_norm(weights) ** 2
    if not (math.isfinite(away) and away <= NEAR * energy and away <= small * size):
        return None
    return Grid(name, kind, steps, energy, away, project)
