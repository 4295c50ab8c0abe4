"""Which damage does `wwopt check` find, what does it miss, and how often does it cry wolf?

    python studies/calibrate_gate.py --data FOLDER --cache FOLDER  # 10 minutes, 1 core

FOLDER of --data holds MNIST's test images (t10k, IDX, gzip); without it only scikit-learn's digits
are used. Networks are trained, then damaged or changed harmlessly (`harness/damage.py`), with the
accuracy measured each time. Thresholds come from the networks of even seeds; hits and false alarms
are counted on those of odd seeds, which had no say, and on all. A cached network is not trained
again.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pandas as pd
import torch
from scipy import stats
from tqdm import tqdm

from harness.damage import NETWORKS, load_data
from harness.damage_cases import Case, furthest, measure, read_cases
from harness.markdown_tables import format_markdown
from wwopt.gate.thresholds import Thresholds

MARGIN = 1.25  # threshold over the largest harmless change of the calibration networks
HARMLESS = ("bf16", "int8 per row", "1 more epoch", "2 more epochs", "5 more epochs")
HARMLESS += ("3 epochs at lr/10", "3 epochs on new data")
# Neither damage nor harmless by name: listed, but no hits and no false alarms.
GREY = ("4 bits per row", "pruned 50 %", "pruned 80 %", "pruned 90 %", "another seed")


def wilson(hits: int, count: int) -> str:
    """Share in per cent with its 95 % Wilson interval."""
    if not count:
        return "–"
    low, high = stats.binomtest(hits, count).proportion_ci(method="wilson")
    return f"{hits}/{count} ({100 * low:.0f}–{100 * high:.0f} %)"


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


if __name__ == "__main__":
    main()
