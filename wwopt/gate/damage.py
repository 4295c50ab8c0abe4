"""How far a layer may move between two checkpoints, and what to call it when it moved further."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from wwopt.gate.changes import LayerChange
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.model_metrics import NOT_FINITE, OK, LayerMetrics
from wwopt.spectra.traps import TRAP_THRESHOLD

SAME_SPREAD = 0.01  # rms log ratio of eigenvalues: a permutation has 1e-9, with bf16 rounding .001
UNRELATED = 0.1  # cosine; two draws of one layer have .01, a continued training has .9
FEW_LEVELS = 16  # distinct values of a row: 4 bits
# All thresholds but those of shares are so many times as wide where most layers were made anew:
# networks of another seed moved up to 2.9 times the thresholds on the calibration side.
RETRAINED = 3.5
SHARES = frozenset({"rank", "zeros", "relative_change"})


@dataclass(frozen=True)
class Damage:
    """One way in which a layer broke."""

    quantity: str  # a field of `Thresholds`, or "layer", "shape", "status", "random"
    words: str
    severity: float = math.inf  # how many times the threshold; inf where there is none


def moved(before: LayerMetrics, change: LayerChange) -> dict[str, float]:
    """How far each quantity that has a threshold moved, as the threshold counts it.

    Factors are logarithms; small layers are given the room that their few eigenvalues need.
    """
    values: dict[str, float] = {f.name: getattr(change, f.name) for f in fields(Thresholds)}
    return values | {
        "scale": math.log(change.scale),
        "ks": max(change.ks - 1.5 / before.num_evals, 0.0),
        "noise": change.noise / (1.0 + 5.0 / before.M),
    }


def find_damage(
    before: LayerMetrics,
    after: LayerMetrics,
    change: LayerChange,
    thresholds: Thresholds,
    *,
    continued: bool = True,
) -> tuple[Damage, ...]:
    """Name what is broken in a layer, worst first.

    Args:
        before: the layer that is known to be good.
        after: the layer to be judged.
        change: of the two, as measured.
        thresholds: what is still harmless.
        continued: whether after was made from before's weights. Otherwise the noise of the change
            means nothing, and the thresholds are wider.
    """
    shapes = [f"{m.N}×{m.M}" + f"×{m.num_slices}" * (m.num_slices > 1) for m in (before, after)]
    if shapes[0] != shapes[1]:
        return (Damage("shape", f"reshaped: {shapes[0]} → {shapes[1]}"),)
    if after.status == NOT_FINITE:
        already = ", as before" if before.status == NOT_FINITE else ""
        return (Damage("status", f"not finite{already}"),)
    if math.isnan(after.norm):
        return () if math.isnan(before.norm) else (Damage("status", "all weights are zero"),)
    if math.isnan(before.norm):  # nothing to compare with, and no damage
        return ()
    found = sorted(
        _too_far(before, after, change, thresholds, continued), key=lambda f: -f.severity
    )
    if after.status not in {before.status, OK}:
        found.insert(0, Damage("status", f"{after.status}, was {before.status}"))
    null = "within its own null"
    if found and null in after.doubts and null not in before.doubts:
        found.insert(0, Damage("random", "re-initialised? looks like a random matrix"))
    return tuple(found)


def _too_far(
    before: LayerMetrics,
    after: LayerMetrics,
    change: LayerChange,
    thresholds: Thresholds,
    continued: bool,
) -> Iterator[Damage]:
    for quantity, value in moved(before, change).items():
        distance = value if quantity in {"traps", "rank", "zeros"} else abs(value)
        widened = 1.0 if continued or quantity in SHARES else RETRAINED
        severity = distance / (widened * thresholds.allowed(quantity))
        if not severity > 1.0:  # NaN: not known
            continue
        # Below the threshold a score is no trap, however much it rose.
        if quantity == "traps" and not after.trap_z >= TRAP_THRESHOLD:
            continue
        # Permuted neurons are all noise to the weights, and nothing to the spectrum.
        if quantity == "noise" and not (continued and change.spread > SAME_SPREAD):
            continue
        yield Damage(quantity, _words(quantity, before, after, change), severity)


def _words(quantity: str, before: LayerMetrics, after: LayerMetrics, change: LayerChange) -> str:
    if quantity == "scale":
        pure = change.spread < SAME_SPREAD
        return f"scaled by {change.scale:.3g}" + ("" if pure else ", and not only scaled")
    if quantity == "noise":
        if change.cosine < UNRELATED:
            return f"unrelated to the weights before (cosine {change.cosine:.2f})"
        if change.levels <= FEW_LEVELS and not change.zeros > 0.5:
            return f"rounded to {change.levels:.0f} values a row (noise {change.noise:.2f})"
        return f"noise of {change.noise:.2f} of the weights' size"
    return {
        "ks": f"spectrum changed: KS {change.ks:.2f}",
        "alpha": f"alpha {before.alpha:.2f} ± {before.sigma:.2f} → "
        f"{after.alpha:.2f} ± {after.sigma:.2f}",
        "hill": f"averaged Hill {before.hill:.2f} → {after.hill:.2f}",
        "spectral_norm": f"λmax × {math.exp(change.spectral_norm):.3g} against the rest",
        "norm": f"norm × {math.exp(change.norm):.3g} against the bulk",
        "stable_rank": f"stable rank {before.stable_rank:.1f} → {after.stable_rank:.1f}",
        "mean": f"mean of the weights moved by {change.mean:+.2f} standard deviations",
        "kurtosis": f"kurtosis {before.kurtosis:.1f} → {after.kurtosis:.1f}",
        "max_abs": f"largest weight × {math.exp(change.max_abs):.2f} in standard deviations",
        "traps": f"new correlation traps: z {before.trap_z:.1f} → {after.trap_z:.1f}",
        "rank": f"rank lost: {before.matrix_rank:.0f} → {after.matrix_rank:.0f}",
        "zeros": f"pruned: {100.0 * change.zeros:.0f} % more zeros",
        "relative_change": f"weights changed by {change.relative_change:.2f} of their norm",
    }[quantity]
