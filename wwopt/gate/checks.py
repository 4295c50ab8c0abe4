"""The gate: which layers broke between two checkpoints, and how.

    check(before, after) -> GateResult

Layers are matched by name up to the prefixes of wrappers, what changed in them is measured
(`wwopt.gate.changes`), and what moved further than any harmless change in calibration is named
(`wwopt.gate.damage`). Beside the verdict stands what kind of change it was
(`wwopt.metrics.base.movements`), which no threshold reads. No data is seen: "broken" does not say
that accuracy was lost, and vectors (biases, norms) are not looked at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from wwopt.gate.changes import LayerChange, compare_spectra, compare_weights
from wwopt.gate.damage import Damage, find_damage
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.analysis import analyze
from wwopt.metrics.base.base_comparison import have_one_shape
from wwopt.metrics.base.movement_measures import measure_movement
from wwopt.metrics.base.movements import LayerMovement, ModelChange, summarize_movements
from wwopt.metrics.model_metrics import LayerMetrics, ModelMetrics
from wwopt.plain_data import make_plain
from wwopt.spectra.large_layers import QUICK_METHOD
from wwopt.weights.matrices import WeightMatrix, Weights, open_with_key, read_weights
from wwopt.weights.stored_tensors import WeightsError
from wwopt.weights.tensor_names import bare_name, match_names

RELATED = 0.5  # cosine of a layer's weights before and after, above which one was made of the other
SHOWN = 3  # findings of a layer in a sentence; the rest is counted
_COLUMNS = ("status", "alpha", "sigma", "hill", "log_spectral_norm", "log_norm", "stable_rank")
_MOVEMENT = (
    "grid", "overlap", "overlap_right", "angle", "largest_angle", "inside", "outside", "intruders",
    "directions", "signal", "delta_stable_rank", "delta_rank", "full_rank", "slope", "kept",
)  # fmt: skip
_MOMENTS = ("matrix_rank", "trap_z", "element_mean", "element_variance", "kurtosis", "max_abs")


@dataclass(frozen=True)
class LayerCheck:
    """One layer on both sides, what changed, and what of it is too much."""

    name: str  # as before has it; as after where only after has the layer
    before: LayerMetrics | None  # None: only after has it
    after: LayerMetrics | None  # None: only before has it
    change: LayerChange
    findings: tuple[Damage, ...] = ()  # worst first
    movement: LayerMovement | None = None  # None: a side has no weights, or another shape

    @property
    def how(self) -> str:
        """The worst findings in words; empty for a layer that passed."""
        more = len(self.findings) - SHOWN
        words = [finding.words for finding in self.findings[:SHOWN]]
        return "; ".join([*words, f"{more} more"] if more > 0 else words)


@dataclass(frozen=True)
class GateResult:
    """Every layer of either side: those of before in its order, then those that only after has."""

    layers: tuple[LayerCheck, ...]
    thresholds: Thresholds
    continued: bool = True  # False: most layers were made anew, and the thresholds are wider
    notes: Mapping[str, str] = field(default_factory=dict)  # of after: layer -> what to know of it

    @property
    def broken(self) -> dict[str, str]:
        """Layers that broke → how, in words."""
        return {layer.name: layer.how for layer in self.layers if layer.findings}

    @property
    def passed(self) -> bool:
        """Whether no layer broke."""
        return not self.broken

    @property
    def movements(self) -> tuple[LayerMovement, ...]:
        """What became of the layers whose weights both sides have."""
        return tuple(x.movement for x in self.layers if x.movement is not None)

    @property
    def change(self) -> ModelChange | None:
        """What kind of change it was, and where; None where no weights could be compared."""
        return summarize_movements(self.movements) if self.movements else None

    @property
    def metrics(self) -> ModelMetrics:
        """What was measured of the side that was judged."""
        layers = (layer.after for layer in self.layers)
        return ModelMetrics(tuple(x for x in layers if x is not None), notes=self.notes)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer: how it broke, what changed, and both sides; logs of factors as logs."""
        rows = []
        for layer in self.layers:
            row: dict[str, Any] = {"layer": layer.name, "broken": layer.how}
            row |= {f.name: getattr(layer.change, f.name) for f in fields(LayerChange)}
            row["kind"] = "" if layer.movement is None else layer.movement.kind.value
            row |= {name: getattr(layer.movement, name, None) for name in _MOVEMENT}
            for column in _COLUMNS + _MOMENTS:
                row[f"{column}_before"] = getattr(layer.before, column, None)
                row[f"{column}_after"] = getattr(layer.after, column, None)
            rows.append(row)
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is unknown is None."""
        rows = self.to_frame().to_dict(orient="records")
        limits = {f.name: getattr(self.thresholds, f.name) for f in fields(Thresholds)}
        return {
            "passed": self.passed,
            "continued": self.continued,
            "change": None if self.change is None else self.change.to_dict(),
            "broken": self.broken,
            "notes": dict(self.notes),
            "layers": make_plain(rows),
            "thresholds": make_plain(limits),
        }


def check(
    before: Any,
    after: Any,
    *,
    seed: int = 0,
    shuffles: int = 3,
    layers: Sequence[str] | None = None,
    key: str | None = None,
    device: torch.device | str | None = None,
    quick: bool = False,
    progress: bool = False,
    **thresholds: float,
) -> GateResult:
    """Compare two checkpoints layer by layer and name the layers that broke.

    Args:
        before: what is known to be good: a module, a state dict, a path, or `ModelMetrics`. From
            metrics the weights cannot be compared, and coarse rounding is mostly not seen.
        after: the same of what is to be judged.
        seed: of the shuffles behind the traps.
        shuffles: of every layer; 0 leaves the traps unknown.
        layers: names or patterns to look at; None for all.
        key: dotted path of the model in checkpoints that hold several; of both sides, but that one
            of them may be a model alone, which has no keys.
        device: where to compute; None for where the weights lie.
        quick: estimate large layers quickly, as `analyze` does.
        progress: show bars.
        thresholds: fields of `Thresholds` that shall differ from their defaults.

    Raises:
        WeightsError: if a source cannot be read, a named layer or key does not exist, or there is
            no layer.
        TypeError: if there is no such threshold.
        ValueError: if a threshold is not positive, or a factor not above 1.
    """
    limits = Thresholds(**thresholds)
    options: dict[str, Any] = {"seed": seed, "shuffles": shuffles, "device": device, "quick": quick}
    unread = [source for source in (before, after) if not isinstance(source, ModelMetrics)]
    read = iter(open_with_key([partial(_read_side, side, layers) for side in unread], key))
    opened = [
        source if isinstance(source, ModelMetrics) else next(read) for source in (before, after)
    ]
    old, new = (measure_side(side, progress=progress, **options) for side in opened)
    return compare_sides(old, new, limits, device=device, progress=progress)


def _read_side(source: Any, layers: Sequence[str] | None, key: str | None) -> Weights:
    return read_weights(source, layers=layers, key=key)


@dataclass(frozen=True)
class Side:
    """One side of a check, measured; with its weights, where they can still be read."""

    metrics: ModelMetrics
    weights: Weights | None = None


def measure_side(source: Weights | ModelMetrics, **options: Any) -> Side:
    """Analyse one side, unless it is analysed already; options are those of `analyze`."""
    if isinstance(source, ModelMetrics):
        return Side(source)
    return Side(analyze(source, **options), source)


def compare_sides(
    before: Side,
    after: Side,
    thresholds: Thresholds,
    *,
    device: torch.device | str | None = None,
    progress: bool = False,
    continued: bool | None = None,
) -> GateResult:
    """Compare two sides that were measured, and judge every layer.

    Args:
        before: what is known to be good.
        after: what is judged.
        thresholds: what is still harmless.
        device: where to compare the weights; None for where they lie.
        progress: show a bar.
        continued: as of `judge`.

    Raises:
        WeightsError: if there is no layer, or weights can no longer be read.
    """
    rows = match_layers(before.metrics, after.metrics)
    if not rows:
        raise WeightsError("neither side has a layer with a weight matrix: nothing was compared")
    if before.weights is not None and after.weights is not None:
        matrices = [
            {matrix.name: matrix for matrix in weights.matrices}
            for weights in (before.weights, after.weights)
        ]
        rows = [
            _compare_weights(row, *matrices, device=device)
            for row in tqdm(rows, desc="weights", delay=2, disable=not progress)
        ]
    result = judge(rows, thresholds, skipped=after.metrics.skipped, continued=continued)
    return replace(result, notes=after.metrics.notes)


def match_layers(before: ModelMetrics, after: ModelMetrics) -> list[LayerCheck]:
    """Pair the layers of two models by name and compare their spectra; nothing is judged yet."""
    old = {layer.name: layer for layer in before.layers}
    new = {layer.name: layer for layer in after.layers}
    pairs = match_names(list(old), list(new))
    alone = [name for name in new if name not in pairs.values()]
    # What is tied on one side only is compared with the layer that it was tied to.
    owners = {bare_name(tied): layer.name for layer in after.layers for tied in layer.tied}
    pairs |= {n: owners[bare_name(n)] for n in old if n not in pairs and bare_name(n) in owners}
    tied = {bare_name(name): layer for layer in before.layers for name in layer.tied}
    rows = [_compare(name, layer, new.get(pairs.get(name, ""))) for name, layer in old.items()]
    return rows + [_compare(name, tied.get(bare_name(name)), new[name]) for name in alone]


def judge(
    rows: Sequence[LayerCheck],
    thresholds: Thresholds,
    *,
    skipped: Mapping[str, str] | None = None,
    continued: bool | None = None,
) -> GateResult:
    """Name what is broken in layers that were compared.

    Args:
        rows: every layer, as compared.
        thresholds: what is still harmless.
        skipped: what was not analysed after, and why: the reason why a layer is missing.
        continued: whether after was made from before's weights; None to tell it by them.
    """
    cosines = [r.change.cosine for r in rows if not math.isnan(r.change.cosine)]
    # One unrelated layer among others was replaced; when most are, it is another training.
    if continued is None:
        continued = 2 * sum(cosine >= RELATED for cosine in cosines) >= len(cosines)
    judged = []
    for row in rows:
        if row.before is None:
            findings: tuple[Damage, ...] = (Damage("layer", "new: not there before"),)
        elif row.after is None:
            findings = (Damage("layer", _why_missing(row.name, skipped or {})),)
        else:
            findings = find_damage(
                row.before, row.after, row.change, thresholds, continued=continued
            )
        judged.append(replace(row, findings=findings))
    return GateResult(tuple(judged), thresholds, continued)


def _compare(name: str, before: LayerMetrics | None, after: LayerMetrics | None) -> LayerCheck:
    change = LayerChange()
    if before and after:
        shapes = [(layer.N, layer.M, layer.num_slices) for layer in (before, after)]
        if shapes[0] == shapes[1]:
            change = compare_spectra(before, after)
    return LayerCheck(name, before, after, change)


def _compare_weights(
    row: LayerCheck,
    before: Mapping[str, WeightMatrix],
    after: Mapping[str, WeightMatrix],
    *,
    device: torch.device | str | None,
) -> LayerCheck:
    if not row.before or not row.after or math.isnan(row.change.scale):
        return row
    old, new = (_read_once(m) for m in (before[row.before.name], after[row.after.name]))
    quick = row.after.method == QUICK_METHOD
    change = compare_weights(row.change, old, new, device=device, quick=quick)
    if not have_one_shape(old, new):
        return replace(row, change=change)
    movement = measure_movement(new, old, device=device)
    return replace(row, change=change, movement=replace(movement, name=row.name))


def _read_once(matrix: WeightMatrix) -> WeightMatrix:
    """The layer with its weights in memory: two measures read them."""
    weights = matrix.read()
    return replace(matrix, read=lambda: weights)


def _why_missing(name: str, skipped: Mapping[str, str]) -> str:
    for other, reason in skipped.items():
        if bare_name(other) in {bare_name(name), f"{bare_name(name)}.weight"}:
            return f"not analysed after: {reason}"
    return "missing after"
