"""Which damage does `wwopt check` find, what does it miss, and how often does it cry wolf?

    python studies/calibrate_gate.py --data FOLDER --cache FOLDER  # 10 minutes, 1 core

FOLDER of --data holds MNIST's test images (t10k, IDX, gzip); without it only scikit-learn's digits
are used. Networks are trained, then damaged or changed harmlessly (`gate_cases.py`), with the
accuracy measured each time. Thresholds come from the networks of even seeds; hits and false alarms
are counted on those of odd seeds, which had no say, and on all. A cached network is not trained
again.
"""

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from gate_cases import NETWORKS, Data, accuracy, change, load_data, train
from markdown_tables import format_markdown
from tqdm import tqdm

import wwopt
from wwopt.gate.changes import LayerChange, compare_spectra, compare_weights
from wwopt.gate.checks import LayerCheck, judge
from wwopt.gate.damage import moved
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.model_metrics import LayerMetrics
from wwopt.weights.matrices import read_weights

MARGIN = 1.25  # threshold over the largest harmless change of the calibration networks
HARMLESS = ("bf16", "int8 per row", "1 more epoch", "2 more epochs", "5 more epochs")
HARMLESS += ("3 epochs at lr/10", "3 epochs on new data")
# Neither damage nor harmless by name: listed, but no hits and no false alarms.
GREY = ("4 bits per row", "pruned 50 %", "pruned 80 %", "pruned 90 %", "another seed")
NEED_WEIGHTS = ("zeros", "noise", "relative_change")
UNCHANGED = {"noise": 0.0, "zeros": 0.0, "relative_change": 0.0, "cosine": 1.0}


@dataclass(frozen=True)
class Case:
    """One changed copy of one network, compared with it; nothing is judged yet."""

    network: str
    seed: int
    kind: str
    target: str  # the layer that was changed; "": all
    drop: float  # accuracy before - after
    rows: tuple[LayerCheck, ...]

    @property
    def judges(self) -> bool:
        """Whether the case is on the side that thresholds are judged on, not chosen on."""
        return self.seed % 2 == 1

    def caught(self, thresholds: Thresholds, *, weights: bool = True) -> bool:
        """Whether the gate calls a layer broken, with or without the help of the weights."""
        rows = self.rows if weights else tuple(map(_forget_weights, self.rows))
        return not judge(rows, thresholds).passed


def measure(name: str, seed: int, data: Data) -> dict[str, Any]:
    """Train one network and compare it with its changed copies; plain data for JSON."""
    _, make, epochs = NETWORKS[name]
    torch.manual_seed(1000 + seed)
    model = train(make(), data, epochs, seed)
    reached = accuracy(model, data)
    before = wwopt.analyze(model)
    old = {matrix.name: matrix for matrix in read_weights(model).matrices}
    cases = []
    for kind, target, changed in change(model, make, epochs, data, seed):
        after = wwopt.analyze(changed, layers=[target] if target else None)
        new = {matrix.name: matrix for matrix in read_weights(changed).matrices}
        changes = {}
        for layer in after.layers:
            found = compare_spectra(before[layer.name], layer)
            if math.isfinite(found.scale):
                found = compare_weights(found, old[layer.name], new[layer.name])
            changes[layer.name] = asdict(found)
        case = {"kind": kind, "target": target, "drop": reached - accuracy(changed, data)}
        cases.append(case | {"after": list(map(_plain, after.layers)), "changes": changes})
    return {"accuracy": reached, "before": list(map(_plain, before.layers)), "cases": cases}


def read_cases(name: str, seed: int, stored: dict[str, Any]) -> list[Case]:
    """Build the comparisons again; layers that a case left alone are equal on both sides."""
    before = {layer["name"]: LayerMetrics(**layer) for layer in stored["before"]}
    same = {
        name: LayerCheck(name, m, m, replace(compare_spectra(m, m), **UNCHANGED))
        for name, m in before.items()
    }
    cases = []
    for case in stored["cases"]:
        rows = dict(same)
        for layer in case["after"]:
            found = LayerChange(**case["changes"][layer["name"]])
            known = before[layer["name"]]
            rows[known.name] = LayerCheck(known.name, known, LayerMetrics(**layer), found)
        cases.append(
            Case(name, seed, case["kind"], case["target"], case["drop"], tuple(rows.values()))
        )
    return cases


def furthest(cases: Iterable[Case]) -> dict[str, float]:
    """How far each quantity moved at most; factors as logarithms."""
    largest = dict.fromkeys((f.name for f in fields(Thresholds)), 0.0)
    for row in (row for case in cases for row in case.rows):
        for quantity, value in moved(row.before, row.change).items():
            largest[quantity] = max(largest[quantity], 0.0 if math.isnan(value) else abs(value))
    return largest


def wilson(hits: int, count: int) -> str:
    """Share in per cent with its 95 % Wilson interval."""
    if not count:
        return "–"
    z, p = 1.96, hits / count
    centre, spread = (
        p + z * z / (2 * count),
        z * math.sqrt(p * (1 - p) / count + (z / count) ** 2 / 4),
    )
    low, high = (100 * (centre + sign * spread) / (1 + z * z / count) for sign in (-1, 1))
    return f"{hits}/{count} ({low:.0f}–{high:.0f} %)"


def count(cases: Sequence[Case], thresholds: Thresholds, label: str) -> dict[str, str]:
    """One row of the table: how often the gate called something broken."""
    drops = 100 * pd.Series([case.drop for case in cases], dtype=float)
    judges = [case for case in cases if case.judges]
    return {
        "change": label,
        "points lost": f"{drops.median():.1f} ({drops.quantile(0.9):.1f})",
        "called broken, odd seeds": wilson(sum(c.caught(thresholds) for c in judges), len(judges)),
        "all seeds": wilson(sum(c.caught(thresholds) for c in cases), len(cases)),
        "all seeds, spectra only": wilson(
            sum(c.caught(thresholds, weights=False) for c in cases), len(cases)
        ),
    }


def print_tables(cases: Sequence[Case], thresholds: Thresholds) -> None:
    harmless = [case for case in cases if case.kind in HARMLESS]
    damage = [case for case in cases if case.kind not in HARMLESS + GREY]
    sides = [furthest(c for c in harmless if c.judges == judging) for judging in (False, True)]
    rows = []
    for limit in fields(Thresholds):
        show = math.exp if limit.metadata["factor"] else float
        chosen, judged = (show(side[limit.name]) for side in sides)
        row = {"threshold": f"`{limit.name}`", "furthest harmless, even seeds": f"{chosen:.3f}"}
        row |= {f"× {MARGIN}": f"{show(MARGIN * sides[0][limit.name]):.3f}"}
        row |= {"default": f"{limit.default:g}", "furthest harmless, odd seeds": f"{judged:.3f}"}
        rows.append(row)
    print("\n" + format_markdown(pd.DataFrame(rows), index=False))

    groups = {"damage": damage, "harmless": harmless}
    groups["grey"] = [case for case in cases if case.kind in GREY]
    for title, group in groups.items():
        table = [
            count([case for case in group if case.kind == kind], thresholds, kind)
            for kind in dict.fromkeys(case.kind for case in group)
        ]
        table.append(count(group, thresholds, f"**all {title}**"))
        print("\n" + format_markdown(pd.DataFrame(table), index=False))
    by_effect = {
        "damage that cost 1 point or more": [c for c in damage if c.drop >= 0.01],
        "damage that cost less": [c for c in damage if c.drop < 0.01],
        "harmless by name, but cost 1 point or more": [c for c in harmless if c.drop >= 0.01],
        "grey that cost 1 point or more": [c for c in groups["grey"] if c.drop >= 0.01],
        "grey that cost less": [c for c in groups["grey"] if c.drop < 0.01],
    }
    table = [count(group, thresholds, label) for label, group in by_effect.items()]
    print("\n" + format_markdown(pd.DataFrame(table), index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder with MNIST's test images")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what was measured")
    parser.add_argument("--seeds", type=int, default=6, help="networks of each kind")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names, comma-separated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    data = load_data(options.data)
    names = [name for name in options.networks.split(",") if NETWORKS[name][0] in data]
    work = [(name, seed) for seed in range(options.seeds) for name in names]
    cases: list[Case] = []
    for name, seed in tqdm(work, desc="networks"):
        path = options.cache / f"{name}-{seed}.json"
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_text(json.dumps(measure(name, seed, data[NETWORKS[name][0]])))
            part.replace(path)
        cases += read_cases(name, seed, json.loads(path.read_text()))
    print(f"{len(work)} networks, {len(cases)} cases")
    print_tables(cases, Thresholds())


def _plain(layer: LayerMetrics) -> dict[str, Any]:
    hidden = {"spectrum", "tied"}
    return {f.name: getattr(layer, f.name) for f in fields(layer) if f.name not in hidden}


def _forget_weights(row: LayerCheck) -> LayerCheck:
    unknown = dict.fromkeys((*NEED_WEIGHTS, "cosine"), math.nan)
    return replace(row, change=replace(row.change, **unknown))


if __name__ == "__main__":
    main()
