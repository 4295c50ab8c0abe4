"""By layer: which holds the model back, which to freeze, regularise or grow; and are labels noisy?

Each finding carries a confidence. For layers it is the share of the configuration's trainings (its
trial, and probes at its own size) that show the sign, drawn towards one half by one training of
doubt; whether acting on it helps was not measured, and the words say so. For labels it comes from
zoos with known noise.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wwopt.metrics.model_metrics import MIN_EIGENVALUES, UNDER_TRAINED
from wwopt.recommendation.probes import STEP, ProbeResult

What = Literal["holds back", "freeze", "regularise", "grow", "labels"]
Signs = Mapping[str, float]  # a layer's metrics by name

STILL = 1.0  # combined standard errors of alpha that a layer at rest moves at most
MIN_CONFIDENCE = 0.5  # findings that fewer than half of the trainings show are not told

# A network that fits its labels worse than its validation error would allow has been given labels
# that cannot be fitted. On 93 networks with 18 to 27 % wrong labels and 293 with clean ones (MLPs,
# CNNs on MNIST, more than half right; studies/noisy_labels.py): shown by 96 % and 14 % where
# the loss is measured without dropout, by 99 % and 27 % where it is the running one. The clean ones
# that show it were held back by dropout or too low a rate. Of each pair the less favourable share:
LOSS_SLOPE, LOSS_OFFSET = 1.5, 0.2
NOISY_SHOW, CLEAN_SHOW = 0.96, 0.27


@dataclass(frozen=True)
class Finding:
    """One observation, what it suggests, and how sure it is."""

    what: What
    layer: str  # "" where it is about the whole network
    words: str
    confidence: float  # in [0, 1]


def find_in_layers(
    table: pd.DataFrame | None, results: Sequence[ProbeResult]
) -> tuple[Finding, ...]:
    """Findings on the layers of the best configuration, the surest first.

    Layers of fewer than 50 eigenvalues, as most output layers, are left out: their alpha says
    nothing.

    Args:
        table: layer table of its trial, as `ModelMetrics.to_frame`; None without one.
        results: of its probes.
    """
    results = [replace(result, layers=_keep_counted(result.layers)) for result in results]
    same = [r for r in results if _is_now(r)]
    trainings = [result.layers for result in same if result.layers]
    if table is not None and "longname" in table:
        rows = {str(row["longname"]): row for row in table.to_dict(orient="records")}
        counted = _keep_counted({name: _numbers(row) for name, row in rows.items()})
        trainings += [counted] if counted else []
    if not trainings:
        return ()
    slow = _tell(_find_undertrained(trainings))
    # A layer that learns slowly is nearly random, and so seems full; one to grow is not to freeze.
    named = {finding.layer for finding in slow}
    rest = [{n: signs for n, signs in t.items() if n not in named} for t in trainings]
    full = _tell(_find_full(rest))
    named |= {finding.layer for finding in full}
    still = [finding for finding in _tell(_find_still(results)) if finding.layer not in named]
    told = [*slow, *_tell(_find_trapped(trainings)), *full, *still]
    return tuple(sorted(told, key=lambda finding: -finding.confidence))


def _tell(found: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.confidence > MIN_CONFIDENCE]


def judge_labels(train_loss: float, error: float) -> Finding | None:
    """Whether labels look noisy: training fit against validation error; spectra add little to it.

    The cutoff of the first layer's tail, the spectral sign of memorised labels, tells noisy zoos
    from clean ones with an area under the curve of .55 to .67, the training loss with .95 to .98.
    A network that learned nothing, or less than half, is not judged.

    Args:
        train_loss: cross-entropy in nats at the end of training.
        error: share of validation examples that it gets wrong; their labels are taken as right.
    """
    if not (math.isfinite(train_loss) and 0.0 <= error < 0.5):
        return None
    limit = float(allow_loss(error))
    noisy = train_loss > limit
    shown = (NOISY_SHOW, CLEAN_SHOW) if noisy else (1.0 - NOISY_SHOW, 1.0 - CLEAN_SHOW)
    chance = shown[0] / sum(shown)  # at even odds
    if noisy:
        words = (
            f"labels may be noisy: the training loss, {train_loss:.3g}, is above the "
            f"{limit:.2g} that a validation error of {error:.3g} would allow; strong dropout or "
            f"too short a training look the same"
        )
        return Finding("labels", "", words, chance)
    words = f"labels look clean: the training loss, {train_loss:.3g}, is below {limit:.2g}"
    return Finding("labels", "", words, 1.0 - chance)


def allow_loss(error: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Training loss up to which a network of that validation error has fitted clean labels."""
    return np.asarray(LOSS_OFFSET - LOSS_SLOPE * np.log1p(-np.asarray(error, dtype=np.float64)))


def _find_undertrained(trainings: Sequence[Mapping[str, Signs]]) -> Iterable[Finding]:
    alphas = {name: [_alpha(t, name) for t in trainings] for name in trainings[0]}
    for name, values in alphas.items():
        known = [v for v in values if not math.isnan(v)]
        high = [v for v in known if v > UNDER_TRAINED]
        if known and high:
            middle = sorted(known)[len(known) // 2]
            words = (
                f"alpha {middle:.3g} is above {UNDER_TRAINED:g}: it has learned little; a higher "
                f"learning rate for it, or longer training, is the first thing to try"
            )
            yield Finding("holds back", name, words, _share(len(high), len(known)))
    # Where no layer is above 6, the worst one is told only if it is the worst nearly always.
    worst = [
        max(names, key=lambda n: _alpha(t, n))
        for t in trainings
        if (names := [n for n in t if not math.isnan(_alpha(t, n))])
    ]
    if worst and len(alphas) > 1:
        name = max(sorted(set(worst)), key=worst.count)
        if not any(v > UNDER_TRAINED for v in alphas[name]):
            words = "its alpha is the highest of all layers, though below 6: it is trained least"
            yield Finding("holds back", name, words, _share(worst.count(name), len(worst)))


def _find_trapped(trainings: Sequence[Mapping[str, Signs]]) -> Iterable[Finding]:
    for name in trainings[0]:
        counts = [t[name].get("num_traps", math.nan) for t in trainings if name in t]
        known = [c for c in counts if not math.isnan(c)]
        shown = [c for c in known if c > 0]
        if shown:
            words = (
                f"correlation traps in {len(shown)} of {len(known)} trainings: a lower learning "
                f"rate, or more dropout or weight decay for it"
            )
            yield Finding("regularise", name, words, _share(len(shown), len(known)))


def _find_still(results: Sequence[ProbeResult]) -> Iterable[Finding]:
    """Layers whose alpha is the same, within its error, after twice the epochs."""
    now = {r.probe.replicate: r for r in results if _is_now(r) and r.layers}
    longer = [
        r
        for r in results
        if r.probe.kind == "epochs"
        and r.probe.factor == STEP
        and r.probe.lr_factor == 1.0
        and r.probe.replicate in now
    ]
    names = {name for r in longer for name in r.layers}
    for name in sorted(names):
        still = total = 0
        for result in longer:
            before, after = now[result.probe.replicate].layers.get(name, {}), result.layers[name]
            moved = abs(after.get("alpha", math.nan) - before.get("alpha", math.nan))
            error = math.hypot(after.get("sigma", math.nan), before.get("sigma", math.nan))
            if math.isnan(moved) or math.isnan(error):
                continue
            total += 1
            still += moved < STILL * error and before["alpha"] < UNDER_TRAINED
        if still:
            words = (
                "its alpha does not move, within its error, over twice the epochs: it can be "
                "frozen after today's"
            )
            yield Finding("freeze", name, words, _share(still, total))


def _find_full(trainings: Sequence[Mapping[str, Signs]]) -> Iterable[Finding]:
    """The layer that uses the largest share of its directions."""
    fullest = []
    for layers in trainings:
        shares = {
            name: signs.get("stable_rank", math.nan) / signs.get("M", math.nan)
            for name, signs in layers.items()
            if signs.get("alpha", math.nan) < UNDER_TRAINED
        }
        known = {name: share for name, share in shares.items() if not math.isnan(share)}
        ranked = sorted(known, key=lambda name: known[name])
        if len(ranked) > 1 and known[ranked[-1]] > known[ranked[-2]]:
            fullest.append(ranked[-1])
    if fullest:
        name = max(sorted(set(fullest)), key=fullest.count)
        words = (
            "of the trained layers it uses the largest share of its directions (stable rank over "
            "width): if one layer is to grow, this one"
        )
        yield Finding("grow", name, words, _share(fullest.count(name), len(fullest)))


def _is_now(result: ProbeResult) -> bool:
    probe = result.probe
    return probe.kind == "data" and probe.factor == 1.0 and probe.lr_factor == 1.0


def _keep_counted(layers: Mapping[str, Signs]) -> dict[str, Signs]:
    """Layers that are large enough for their alpha to say something."""
    return {
        name: signs
        for name, signs in layers.items()
        if signs.get("num_evals", MIN_EIGENVALUES) >= MIN_EIGENVALUES
    }


def _alpha(layers: Mapping[str, Signs], name: str) -> float:
    return float(layers.get(name, {}).get("alpha", math.nan))


def _numbers(row: Mapping[object, object]) -> dict[str, float]:
    return {str(k): float(v) for k, v in row.items() if isinstance(v, int | float)}


def _share(shown: int, total: int) -> float:
    return (shown + 0.5) / (total + 1.0)
