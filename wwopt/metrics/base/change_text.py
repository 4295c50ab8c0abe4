"""What kind of change a model went through, for a reader: two lines, then a table of its layers."""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence

import pandas as pd

from wwopt.metrics.base.base_comparison import BaseComparison
from wwopt.metrics.base.movements import ChangeKind, LayerMovement, summarize_movements
from wwopt.wording import count, number, write_names

LISTED = 4  # groups of layers in a sentence; the rest is counted
SAID: Mapping[ChangeKind, str] = {
    ChangeKind.IDENTICAL: "identical",
    ChangeKind.OTHER_DTYPE: "cast to another dtype",
    ChangeKind.ROUNDING: "quantised",
    ChangeKind.ZEROED: "pruned: weights set to zero, the others kept",
    ChangeKind.SCALED: "scaled by a factor",
    ChangeKind.LOW_RANK: "low rank, as a merged LoRA",
    ChangeKind.DENSE: "dense, as training of all weights",
    ChangeKind.REARRANGED: "rearranged, as permuted neurons",
    ChangeKind.ANOTHER: "nothing to do with the base's weights",
    ChangeKind.UNKNOWN: "not known: a side is zero or not finite",
}


def describe_change(layers: Sequence[LayerMovement]) -> list[str]:
    """What kind of change it was and where; then how far it went. Two lines, or fewer."""
    if not layers:
        return []
    change = summarize_movements(layers)
    total = len(layers)
    if change.kind is ChangeKind.IDENTICAL:
        return [f"Change: none, {count(total, 'weight matrix').replace('matrixs', 'matrices')}"
                " identical (biases and norms are not compared)."]  # fmt: skip
    if change.kind is ChangeKind.ANOTHER:
        first = (
            f"Change: another network: {len(change.layers[change.kind])} of {total} layers have "
            "nothing of the base. Are these two a pair?"
        )
    else:
        order = sorted(change.layers.items(), key=lambda item: item[0] is ChangeKind.IDENTICAL)
        parts = [_say_kind(kind, names, layers) for kind, names in order]
        first = f"Change: {'; '.join(parts)}."
    moved = [layer for layer in layers if layer.movement > 0.0]
    return [first, _say_size(moved)] if moved else [first]


def _say_kind(kind: ChangeKind, names: Sequence[str], layers: Sequence[LayerMovement]) -> str:
    if kind is ChangeKind.IDENTICAL:
        return f"{len(names)} identical"
    chosen = [layer for layer in layers if layer.name in set(names)]
    where = "all layers" if len(names) == len(layers) else f"{len(names)} of {len(layers)} layers"
    details = [] if len(names) == len(layers) else [write_names(group_names(names), LISTED)]
    details += _find_details(kind, chosen)
    inside = f" ({'; '.join(details)})" if details else ""
    return f"{SAID[kind]}, in {where}{inside}"


def _find_details(kind: ChangeKind, layers: Sequence[LayerMovement]) -> list[str]:
    if kind is ChangeKind.LOW_RANK:
        ranks = _span([layer.delta_rank for layer in layers], ".0f")
        found = [f"rank {ranks} of {_span([float(layer.full_rank) for layer in layers], '.0f')}"]
    elif kind is ChangeKind.SCALED:
        found = [f"× {_span([layer.slope for layer in layers], '.3g')}"]
    else:
        found = []
    # What a change was rounded to, or the base, where that is the whole change.
    alone = kind in (ChangeKind.OTHER_DTYPE, ChangeKind.ROUNDING)
    grids = {x.grid or (x.base_grid and f"from {x.base_grid}") for x in layers}
    new = {x.grid for x in layers if x.grid and x.grid != x.base_grid}
    listed = _gather_grids(grids - {""} if alone else new)
    if listed:
        found.append(("" if alone else "then rounded to ") + write_names(listed, 2))
    return found


def _gather_grids(names: Collection[str]) -> list[str]:
    """Those that differ in their number of values alone are one: "250 to 255 values per row"."""
    counts: dict[tuple[str, str], list[int]] = {}
    others = []
    for name in sorted(names):
        match = re.fullmatch(r"(from )?(\d+) (values per .+)", name)
        if match is None:
            others.append(name)
        else:
            counts.setdefault((match[1] or "", match[3]), []).append(int(match[2]))
    return others + [
        f"{before}{_span([float(value) for value in found], '.0f')} {form}"
        for (before, form), found in counts.items()
    ]


def _say_size(moved: Sequence[LayerMovement]) -> str:
    sizes = _span([layer.movement for layer in moved], ".2g")
    overlap = _weigh(moved, lambda layer: layer.overlap)
    inside, outside = (
        _weigh(moved, lambda layer, name=name: getattr(layer, name))  # type: ignore[misc]
        for name in ("inside", "outside")
    )
    said = (
        f"Moved by {sizes} of their norm; leading directions overlap the base's by "
        f"{number(overlap, '.2f')}, {number(inside, '.0%')} of the change lies between them, "
        f"{number(outside, '.0%')} beside them"
    )
    intruders = sum(layer.intruders for layer in moved if not math.isnan(layer.intruders))
    return f"{said}; {count(round(intruders), 'intruder')}."


def group_names(names: Sequence[str]) -> list[str]:
    """Names with their numbers as *, each once: "blocks.*.query"; "4" and "11" stay as they are."""
    groups: dict[str, list[str]] = {}
    for name in names:
        form = re.sub(r"\d+", "*", name)
        groups.setdefault(form if form.strip("*.") else name, []).append(name)
    return [name if len(all_of) > 1 else all_of[0] for name, all_of in groups.items()]


def format_comparison(found: BaseComparison) -> str:
    """The two lines, a row for each layer that changed, and what was not compared."""
    rows = [
        {
            "layer": layer.name,
            "shape": f"{layer.N}×{layer.M}",
            "change": say_layer(layer),
            "moved": number(layer.movement, ".4f"),
            "overlap": number(layer.overlap, ".3f"),
            "angle": f"{number(layer.angle, '.0f')}°",
            "inside": number(layer.inside, ".0%"),
            "outside": number(layer.outside, ".0%"),
            "intruders": number(layer.intruders, ".0f"),
            "stable rank": number(layer.delta_stable_rank, ".1f"),
            "beyond noise": number(layer.directions, ".0f"),
            "energy": number(layer.signal, ".0%"),
            "balance": number(layer.balance, ".2f"),
        }
        for layer in found.layers
        if layer.movement != 0.0
    ]
    lines = describe_change(found.layers)
    if rows:
        lines += ["", *_write_table(rows)]
    left = {name: why for name, why in found.skipped.items() if why not in QUIET}
    if left:
        reasons: dict[str, list[str]] = {}
        for name, why in left.items():
            reasons.setdefault(why, []).append(name)
        listed = "; ".join(f"{write_names(n, 3)} ({why})" for why, n in reasons.items())
        lines += ["", f"Not compared: {listed}."]
    return "\n".join(lines)


def _write_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    frame = pd.DataFrame(rows)
    frame = frame.drop(columns=[c for c in ("balance",) if not frame[c].str.strip("–").any()])
    lines = frame.to_string(index=False, justify="left").splitlines()
    return [line.rstrip() for line in lines]


QUIET = frozenset({"vector", "scalar", "bias", "norm", "not selected"})  # no news


def say_layer(layer: LayerMovement) -> str:
    """The kind of a layer's change in a few words."""
    if layer.kind is ChangeKind.LOW_RANK:
        said = f"rank {layer.delta_rank:.0f} of {layer.full_rank}"
    elif layer.kind in (ChangeKind.OTHER_DTYPE, ChangeKind.ROUNDING):
        return layer.grid or f"from {layer.base_grid}"
    elif layer.kind is ChangeKind.ANOTHER:
        return "unrelated"
    else:
        said = layer.kind.value
    new = layer.grid if layer.grid != layer.base_grid else ""
    return f"{said}, {new}" if new else said


def _span(values: Sequence[float], form: str) -> str:
    known = [format(value, form) for value in (min(values), max(values))]
    return known[0] if known[0] == known[1] else " to ".join(known)


def _weigh(layers: Sequence[LayerMovement], value: Callable[[LayerMovement], float]) -> float:
    """The mean over layers, by their parameters; NaN where none is known."""
    known = [(value(x), x.parameters) for x in layers if not math.isnan(value(x))]
    total = sum(size for _, size in known)
    return sum(v * size for v, size in known) / total if total else math.nan
