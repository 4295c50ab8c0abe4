"""What the rule said of changed networks beside what was done to them, in tables."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from harness.markdown_tables import format_markdown
from wwopt.metrics.base.movements import ChangeKind, LayerMovement, name_change
from wwopt.selection.kinship import BY_CHANCE, KIN, LAYERS, SMALLEST
from wwopt.weights.tensor_names import natural_key

SIBLINGS = "another run from one start"


@dataclass(frozen=True)
class Judged:
    """One changed network: what was done, and what the rule says."""

    network: str
    seed: int
    change: str
    layers: tuple[tuple[LayerMovement, ChangeKind], ...]  # with what was done

    @property
    def truth(self) -> ChangeKind:
        """What was done to the model."""
        return name_change((x.name, done, x.parameters) for x, done in self.layers).kind

    @property
    def said(self) -> ChangeKind:
        """What the rule says of the model."""
        return name_change((x.name, x.kind, x.parameters) for x, _ in self.layers).kind


def read_cases(path: Path) -> list[Judged]:
    known = {f.name for f in fields(LayerMovement)}
    cases = []
    for record in json.loads(path.read_text()):
        layers = []
        for row in record["layers"]:
            values = {k: v for k, v in row.items() if k in known}
            layers.append((LayerMovement(**values), ChangeKind(row["truth"])))
        cases.append(Judged(record["network"], record["seed"], record["change"], tuple(layers)))
    return cases


def share(right: int, total: int) -> str:
    """In per cent, with the 95 % Wilson interval."""
    if not total:
        return "–"
    low, high = stats.binomtest(right, total).proportion_ci(method="wilson")
    return f"{right}/{total}, {100 * right / total:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def count_kinds(cases: Sequence[Judged], label: str) -> dict[str, dict[str, str]]:
    """Right answers by what was done, models and layers."""
    models = [(case.truth, case.said) for case in cases]
    layers = [(done, layer.kind) for case in cases for layer, done in case.layers]
    table = {}
    for kind in [*ChangeKind, None]:
        row = {}
        for what, pairs in (("models", models), ("layers", layers)):
            of = [said == done for done, said in pairs if kind in (done, None)]
            row[f"{what}, {label}"] = share(sum(of), len(of))
        if kind is None or any(done == kind for done, _ in layers):
            table["**all**" if kind is None else kind.value] = row
    return table


def confuse(cases: Sequence[Judged]) -> pd.DataFrame:
    """Layers by what was done (rows) and what was said (columns)."""
    pairs = Counter((done.value, x.kind.value) for case in cases for x, done in case.layers)
    names = [kind.value for kind in ChangeKind if any(kind.value in pair for pair in pairs)]
    rows = {done: {said: pairs[done, said] or "" for said in names} for done in names}
    frame = pd.DataFrame(rows).T
    return frame.rename_axis("done \\ said").reset_index()


def print_tables(design: Sequence[Judged], judged: Sequence[Judged]) -> None:
    halves = {"judged": judged, "design": design}
    counted = {
        label: [case for case in cases if case.change != SIBLINGS]
        for label, cases in halves.items()
    }
    table: dict[str, dict[str, Any]] = {}
    for label, cases in counted.items():
        for kind, row in count_kinds(cases, label).items():
            table.setdefault(kind, {"done": kind}).update(row)
    print("\n" + format_markdown(pd.DataFrame(list(table.values())).fillna("–"), index=False))
    print("\nLayers of the judged half:\n")
    print(format_markdown(confuse(counted["judged"]), index=False))
    wrong = [case for cases in counted.values() for case in cases if case.said != case.truth]
    print("\nModels that were called wrongly:\n")
    for case in wrong:
        print(f"- {case.network}, seed {case.seed}, {case.change}: {case.said.value}")
    print(f"\n{SIBLINGS[0].upper()}{SIBLINGS[1:]}:\n")
    for case in (c for cases in halves.values() for c in cases if c.change == SIBLINGS):
        moved = [layer.movement for layer, _ in case.layers]
        overlaps = [layer.overlap for layer, _ in case.layers]
        print(
            f"- {case.network}, seed {case.seed}: {case.said.value}, moved by "
            f"{min(moved):.2f} to {max(moved):.2f}, overlap {min(overlaps):.2f} to "
            f"{max(overlaps):.2f}"
        )


def find_kinship(case: Judged) -> tuple[float, float]:
    """The overlap that `wwopt rank` would find with the base, and that from which it warns."""
    layers = sorted((x for x, _ in case.layers), key=lambda x: natural_key(x.name))
    fitting = [x for x in layers if x.M >= SMALLEST]
    places = sorted({round(i * (len(fitting) - 1) / (LAYERS - 1)) for i in range(LAYERS)})
    chosen = [fitting[place] for place in places]
    overlaps = [min(x.overlap, x.overlap_right) for x in chosen]
    limits = [max(KIN, BY_CHANCE / math.sqrt(max(x.N, x.M))) for x in chosen]
    return sum(overlaps) / len(chosen), sum(limits) / len(chosen)


def print_kinship(cases: Sequence[Judged], siblings: Sequence[dict[str, Any]]) -> None:
    """How often a changed network is called kin of its base, by what was done."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for case in cases:
        if case.change != SIBLINGS and case.truth != ChangeKind.IDENTICAL:
            groups.setdefault(case.truth.value, []).append(find_kinship(case))
        elif case.change == SIBLINGS:
            groups.setdefault(SIBLINGS, []).append(find_kinship(case))
    for pair in siblings:
        if not math.isfinite(pair["overlap"]):  # at twice the rate one diverged
            continue
        own = "the start" in pair["pair"]
        label = "a network and its own start" if own else "one start, rates up to 6 times apart"
        groups.setdefault(label, []).append((pair["overlap"], pair["limit"]))
    rows = []
    for label, pairs in groups.items():
        overlaps = sorted(overlap for overlap, _ in pairs)
        called = sum(overlap >= limit for overlap, limit in pairs)
        middle = overlaps[len(overlaps) // 2]
        spread = f"{overlaps[0]:.2f}, {middle:.2f}, {overlaps[-1]:.2f}"
        rows.append([label, share(called, len(pairs)), spread])
    heads = ["with the base, or one another", "called kin", "overlap: least, median, most"]
    print("\n" + format_markdown(pd.DataFrame(rows, columns=heads), index=False))
