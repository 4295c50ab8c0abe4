"""Two tracked trials side by side, layer by layer: what was set, what came out, what changed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from wwopt.metrics.owners import group_by_kind, owner_of
from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.hyperparameters import BY_FACTOR, Setting, read_hyperparameters
from wwopt.tracking.keys import LAYER_ALPHA, VALUE, unique_keys
from wwopt.tracking.tracked_trials import TrackedTrial

CLEAR = 2.0  # standard errors from which on two alphas are called different
MOST = 5  # layers that are named

Both = tuple[float, float]  # of the first and the second trial; NaN where unknown


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """One layer in two trials."""

    name: str
    alpha: Both
    sigma: Both  # standard errors of alpha
    D: Both  # KS distances of the fits
    traps: Both  # correlation traps
    status: tuple[str, str]  # "" where the trial has no such layer
    settings: Mapping[str, tuple[Setting | None, Setting | None]] = field(default_factory=dict)

    @property
    def change(self) -> float:
        """Of alpha, from the first trial to the second."""
        return self.alpha[1] - self.alpha[0]

    @property
    def clearness(self) -> float:
        """The change of alpha in standard errors; NaN where unknown."""
        error = math.hypot(*self.sigma)
        return abs(self.change) / error if error > 0.0 else math.nan


@dataclass(frozen=True)
class Pair:
    """Two trials side by side."""

    first: TrackedTrial
    second: TrackedTrial
    layers: tuple[LayerPair, ...]  # in the order of the network
    metrics: Mapping[str, Both]  # aggregates, the objective first
    settings: Mapping[str, tuple[Setting | None, Setting | None]]  # that differ, of no layer

    def to_frame(self) -> pd.DataFrame:
        """One row a layer; columns with the trials' numbers, as "lr 7" and "alpha 12"."""
        rows = []
        for layer in self.layers:
            pairs = {**layer.settings, "alpha": layer.alpha, "sigma": layer.sigma, "D": layer.D}
            pairs |= {"traps": layer.traps, "status": layer.status}
            row: dict[str, object] = {"layer": layer.name}
            for name, (a, b) in pairs.items():
                row |= {f"{name} {self.first.number}": a, f"{name} {self.second.number}": b}
            rows.append(row | {"change": layer.change, "clearness": layer.clearness})
        return pd.DataFrame(rows)


def compare_pair(first: TrackedTrial, second: TrackedTrial) -> Pair:
    """Set two trials side by side.

    Layers come from the logged layer tables. Trials without any are compared by what belongs to no
    layer: their metrics and parameters.
    """
    tables = (_read_rows(first), _read_rows(second))
    settings = (read_hyperparameters(first), read_hyperparameters(second))
    names = list(dict.fromkeys([*tables[0], *tables[1]]))
    kinds = group_by_kind(settings[0] | settings[1])
    own: dict[str, dict[str, tuple[Setting | None, Setting | None]]] = {n: {} for n in names}
    used = set()
    for kind, modules in kinds.items():
        # Names as they were logged: what MLflow refuses was replaced.
        for name, key in zip(names, unique_keys(f"{kind}/{n}" for n in names), strict=True):
            owner = owner_of(key.removeprefix(f"{kind}/"), modules)
            if owner is not None:
                key = f"{kind}/{owner}"
                own[name][kind] = (settings[0].get(key), settings[1].get(key))
                used.add(key)
    others = [k for k in dict.fromkeys([*settings[0], *settings[1]]) if k not in used]
    return Pair(
        first,
        second,
        layers=tuple(_pair_layer(name, tables, own[name]) for name in names),
        metrics=_pair_metrics(first, second),
        settings={
            k: (settings[0].get(k), settings[1].get(k))
            for k in others
            if settings[0].get(k) != settings[1].get(k)
        },
    )


def tell_changes(pair: Pair) -> list[str]:
    """What changed most, in words: alphas, traps, and each kind of hyperparameter in one layer."""
    told = []
    clear = [layer for layer in pair.layers if layer.clearness >= CLEAR]
    for layer in sorted(clear, key=lambda layer: -layer.clearness)[:MOST]:
        told.append(
            f"{layer.name}: alpha {layer.alpha[0]:.2f} → {layer.alpha[1]:.2f} "
            f"({layer.change:+.2f}, {layer.clearness:.1f} standard errors)"
        )
    if not clear and any(math.isfinite(layer.clearness) for layer in pair.layers):
        told.append(f"no alpha moved by {CLEAR:g} standard errors")
    trapped = [x for x in pair.layers if math.isfinite(sum(x.traps)) and x.traps[0] != x.traps[1]]
    for layer in sorted(trapped, key=lambda layer: -abs(layer.traps[1] - layer.traps[0]))[:MOST]:
        before, after = layer.traps
        told.append(f"{layer.name}: correlation traps {before:.0f} → {after:.0f}")
    return told + _tell_settings(pair)


def _tell_settings(pair: Pair) -> list[str]:
    kinds = list(dict.fromkeys(kind for layer in pair.layers for kind in layer.settings))
    told = []
    for kind in kinds:
        moved: list[tuple[float, str]] = []
        for layer in pair.layers:
            before, after = layer.settings.get(kind, (None, None))
            if not (isinstance(before, float) and isinstance(after, float)) or before == after:
                continue
            text = f"{layer.name}: {kind} {before:.3g} → {after:.3g}"
            if kind in BY_FACTOR and before > 0.0 and after > 0.0:
                moved.append((abs(math.log(after / before)), f"{text} (× {after / before:.3g})"))
            else:
                moved.append((abs(after - before), text))
        if moved:
            told.append(max(moved)[1])
    return told


def _read_rows(trial: TrackedTrial) -> dict[str, Mapping[str, object]]:
    """Layer → its row of the logged table."""
    table = read_layer_table(trial)
    if table is None or "longname" not in table:
        return {}
    rows = table.to_dict(orient="records")
    return {str(row["longname"]): {str(k): v for k, v in row.items()} for row in rows}


def _pair_layer(
    name: str,
    tables: tuple[dict[str, Mapping[str, object]], dict[str, Mapping[str, object]]],
    settings: Mapping[str, tuple[Setting | None, Setting | None]],
) -> LayerPair:
    first, second = (table.get(name, {}) for table in tables)

    def both(column: str) -> Both:
        return _number(first.get(column)), _number(second.get(column))

    return LayerPair(
        name=name,
        alpha=both("alpha"),
        sigma=both("sigma"),
        D=both("D"),
        traps=both("num_traps"),
        status=(str(first.get("status", "")), str(second.get("status", ""))),
        settings=settings,
    )


def _pair_metrics(first: TrackedTrial, second: TrackedTrial) -> dict[str, Both]:
    keys = {*first.metrics, *second.metrics}
    aggregates = [key for key in keys if not key.startswith(f"{LAYER_ALPHA}/")]
    return {
        key: (first.metrics.get(key, math.nan), second.metrics.get(key, math.nan))
        for key in sorted(aggregates, key=lambda key: (key != VALUE, key))
    }


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
