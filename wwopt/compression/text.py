"""A compression as a person reads it in a terminal."""

import math

import pandas as pd

from wwopt.compression.compression import CompressedLayer, Compression
from wwopt.compression.damage import BREAKS
from wwopt.compression.plans import LayerPlan
from wwopt.wording import UNKNOWN, count, number, shorten


def format_compression(found: Compression, *, width: int) -> str:
    """The sizes, a row a layer, and which layers broke.

    Args:
        found: the compression.
        width: characters of a line.
    """
    rows = found.to_frame()
    table = pd.DataFrame(
        {
            "shape": rows["shape"],
            "bytes": [f"{a:,} → {b:,}" for a, b in zip(rows.bytes_before, rows.bytes, strict=True)],
            "bits": [_say(value) for value in rows["bits"]],
            "zeros": [f"{100.0 * value:.0f} %" for value in rows["sparsity"]],
            "rank": [_say(value) for value in rows["rank"]],
            "noise": [number(value, ".3f") for value in rows["noise"]],
            "KS": [number(value, ".3f") for value in rows["ks"]],
            "Hill": [
                f"{number(a, '.2f')} → {number(b, '.2f')}" if math.isfinite(a) else UNKNOWN
                for a, b in zip(
                    rows.hill_before.astype(float), rows.hill.astype(float), strict=True
                )
            ],
            _judge(found): [_verdict(layer) for layer in found.layers],
        }
    )
    table.index = pd.Index([shorten(name) for name in rows["layer"]])
    head = (
        f"{found.bytes_before:,} bytes → {found.bytes:,}, {found.ratio:.2f} times smaller "
        f"({found.seconds:.1f} s)."
    )
    blocks = [head, table.to_string(line_width=width), _conclude(found)]
    if found.quality:
        told = ", ".join(f"{name} {value:.4g}" for name, value in found.quality.items())
        blocks.append(f"The study's train logs of the compressed network: {told}.")
    return "\n\n".join(blocks)


def describe_plan(plan: LayerPlan | None) -> str:
    """As "4 bits, 50 % zeros, rank 12"; what stays as it is says so."""
    if plan is None or plan.changes_nothing:
        return "as it is"
    parts = []
    if plan.bits is not None:
        parts.append(f"{plan.bits} bits" + (f" in groups of {plan.group}" if plan.group else ""))
    if plan.sparsity:
        parts.append(f"{100.0 * plan.sparsity:.0f} % zeros")
    if plan.rank is not None:
        parts.append(f"rank {plan.rank}")
    return ", ".join(parts)


def describe_recipe(found: Compression) -> str:
    """What was asked for, in a few words."""
    recipe = found.recipe
    if recipe is None:
        what = "plans by layer" if _judge(found) == "gate" else "a budget"
        return f"{what}, {found.rounds} rounds" if found.rounds else what
    parts = []
    if recipe.rank is not None:
        if isinstance(recipe.rank, float):
            parts.append(f"{100.0 * recipe.rank:g} % of energy")
        else:
            parts.append(f"rank {recipe.rank}")
    if recipe.sparsity:
        by = " by alpha" if recipe.sparsity_by == "alpha" else ""
        parts.append(f"{100.0 * recipe.sparsity:g} % zeros{by}")
    if recipe.bits is not None:
        by = " by alpha" if recipe.bits_by == "alpha" else ""
        groups = f" in groups of {recipe.group}" if recipe.group else ""
        parts.append(f"{recipe.bits:g} bits{by}{groups}{', clipped' if recipe.clip else ''}")
    if found.rounds:
        parts.append(f"{found.rounds} rounds")
    return ", ".join(parts)


def _conclude(found: Compression) -> str:
    broken = [layer for layer in found.layers if layer.broken]
    if not broken and _judge(found) == "gate":
        return "The gate calls no layer broken."
    if _judge(found) != "gate":
        return _conclude_budget(found)
    lines = [
        f"The gate calls {count(len(broken), 'layer')} of {len(found.layers)} broken. It sees no "
        "data: it does not say that accuracy was lost."
    ]
    for layer in broken:
        how_far = ""
        if found.looked_for_limits:
            how_far = f"; unbroken: {describe_plan(layer.limit)}"
        lines.append(f"  {shorten(layer.name)}, {describe_plan(layer.plan)}: {layer.how}{how_far}")
    return "\n".join(lines)


def _judge(found: Compression) -> str:
    """The head of the verdicts' column: who gave them."""
    return "error" if any(layer.choice for layer in found.layers) else "gate"


def _conclude_budget(found: Compression) -> str:
    broken = [layer for layer in found.layers if layer.broken]
    lines = ["Errors are those of the plans, before it was trained on."] if found.rounds else []
    if not broken:
        lines += [f"No layer's error is above {BREAKS:g}: that seldom costs a point of accuracy."]
        return "\n".join(lines)
    lines += [f"Errors above {BREAKS:g} often cost accuracy; a larger budget spares these layers:"]
    lines += [f"  {shorten(x.name)}, {describe_plan(x.plan)}: {x.how}" for x in broken]
    return "\n".join(lines)


def _verdict(layer: CompressedLayer) -> str:
    if layer.choice is not None:
        return f"{layer.choice.error:.2f}" + (" broken" if layer.broken else "")
    if not layer.checks:
        return "unchanged"
    return "broken" if layer.broken else "ok"


def _say(value: object) -> str:
    return UNKNOWN if value is pd.NA else str(value)
