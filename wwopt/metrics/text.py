"""A model's spectral metrics for a reader: a table, and what it says in words."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from wwopt.metrics.model_metrics import (
    DEGENERATE,
    DIFFERENCE,
    NOT_COUNTED,
    OK,
    LayerMetrics,
    ModelMetrics,
)
from wwopt.metrics.shapes import find_shape
from wwopt.metrics.verdicts import Verdict, judge_layer
from wwopt.spectra.spectrum import EXACT
from wwopt.wording import number, plus_minus, write_names

LISTED = 6  # names of layers in a sentence; the rest is counted
LABELS: dict[Verdict, str] = {  # of verdicts that a sentence names the layers of
    "over-trained": "Over-trained",
    "under-trained": "Under-trained",
    "looks untrained": "Like a random matrix",
}


def format_table(metrics: ModelMetrics) -> str:
    """One line a layer: shape, alpha ± its standard error, D, tail, traps, ranks, verdict."""
    rows = [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "shape": f"{layer.N}×{layer.M}" + (f"×{layer.num_slices}" * (layer.num_slices > 1)),
            "alpha": plus_minus(layer.alpha, layer.sigma),
            "D": number(layer.D, ".3f"),
            "tail": number(layer.num_pl_spikes, ".0f"),
            "traps": number(layer.num_traps, ".0f"),
            "trap z": number(layer.trap_z, ".1f"),
            "stable rank": number(layer.stable_rank, ".1f"),
            "verdict": say_verdict(layer),
        }
        for layer in metrics.layers
    ]
    if not rows:
        return "no layer with a weight matrix"
    frame = pd.DataFrame(rows)
    lines = frame.to_string(index=False, justify="left").splitlines()
    return "\n".join(line.rstrip() for line in lines)


def say_verdict(layer: LayerMetrics) -> str:
    """The verdict on a layer in a word or two; its status where it cannot be judged."""
    judged = judge_layer(layer)
    if judged.verdict == "not judged":
        return layer.status
    reasons = f": {'; '.join(judged.doubts)}" if judged.doubts else ""
    return judged.verdict + reasons


def describe(metrics: ModelMetrics) -> str:
    """A few sentences: what is well trained, what is suspicious, what was not looked at."""
    verdicts = {layer.name: judge_layer(layer).verdict for layer in metrics.layers}
    counted = metrics.counted
    sentences = []
    if counted:
        good = [layer.name for layer in counted if verdicts[layer.name] == "well trained"]
        alphas = [layer.alpha for layer in counted if math.isfinite(layer.alpha)]
        mean = f", mean alpha {sum(alphas) / len(alphas):.2f}" if alphas else ""
        sentences.append(f"{len(good)} of {len(counted)} layers look well trained{mean}.")
    elif any(layer.status == DIFFERENCE for layer in metrics.layers):
        sentences.append("A difference of two networks is none, and is not judged as one.")
    else:
        sentences.append("No layer has enough eigenvalues to say anything.")
    for verdict, label in LABELS.items():
        named = [name for name, found in verdicts.items() if found == verdict]
        if named:
            sentences.append(f"{label}: {write_names(named, LISTED)}.")
    shapes: dict[str, list[str]] = {}
    for layer in counted:
        if layer.status == OK and layer.spectrum is not None:
            shapes.setdefault(find_shape(layer).name, []).append(layer.name)
    if shapes:
        parts = [
            f"{len(named)} × {name}"
            + (f" ({write_names(named, LISTED)})" if len(named) <= 3 else "")
            for name, named in sorted(shapes.items(), key=lambda item: -len(item[1]))
        ]
        sentences.append(f"Shapes: {'; '.join(parts)}.")
    trapped = [layer.name for layer in counted if layer.num_traps > 0]
    if trapped:
        sentences.append(f"Suspicious, with correlation traps: {write_names(trapped, LISTED)}.")
    for status in sorted({layer.status for layer in counted} - {OK}):
        named = [layer.name for layer in counted if layer.status == status]
        label = "Without a fit"
        if status in DEGENERATE:
            is_all = any(layer.status == status for layer in metrics.broken)
            label = "Broken" if is_all else "Suspicious, though the network may be fine"
        sentences.append(f"{label} ({status}): {write_names(named, LISTED)}.")
    doubtful = [name for name, found in verdicts.items() if found == "unreliable"]
    if doubtful:
        sentences.append(f"Alpha is not reliable: {write_names(doubtful, LISTED)}.")
    for status in sorted(NOT_COUNTED - {DIFFERENCE}):
        named = [layer.name for layer in metrics.layers if layer.status == status]
        if named:
            sentences.append(f"Not counted ({status}): {write_names(named, LISTED)}.")
    tied = [
        f"{', '.join(layer.tied)} (with {layer.name})" for layer in metrics.layers if layer.tied
    ]
    if tied:
        sentences.append(f"Tied and counted once: {write_names(tied, LISTED)}.")
    sentences += [f"{words[0].upper()}{words[1:]}." for words in list_estimates(metrics.layers)]
    if metrics.notes:
        sentences.append(f"Noted: {_reasons(metrics.notes)}.")
    if metrics.skipped:
        sentences.append(f"Not analysed: {_reasons(metrics.skipped)}.")
    return "\n".join(sentences)


def list_estimates(layers: Sequence[LayerMetrics]) -> list[str]:
    """How many layers' eigenvalues are estimated, for each method; empty where all are exact."""
    counts = Counter(layer.method for layer in layers if layer.method != EXACT)
    return [
        f"{many} of {len(layers)} layers estimated ({method})"
        for method, many in sorted(counts.items())
    ]


def _reasons(why_of: Mapping[str, str]) -> str:
    """Names by the reason that they share; many of one reason are counted."""
    counts = Counter(why_of.values())
    parts = []
    for reason, count in counts.most_common():
        named = [name for name, why in why_of.items() if why == reason]
        # Vectors are no news; anything else is named.
        parts.append(
            f"{count} × {reason}" if count > 3 else f"{write_names(named, LISTED)} ({reason})"
        )
    return "; ".join(parts)
