"""The tables of `closed_loops.py`: what each choice is worth, with intervals over paired seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.loops.searches import GUIDES, TIED_GUIDES, Store, score
from harness.markdown_tables import format_markdown
from harness.score_statistics import mean_interval

CHOOSERS = (
    "weights only",
    "validation-free",
    "training loss",
    "validation 100",
    "validation 300",
    "validation 1000",
)
REFERENCE = "validation 1000"


def print_tables(name: str, stores: Sequence[Store], folder: Path) -> None:
    """Print the tables of a task.

    Args:
        name: of the task.
        stores: one a seed.
        folder: of the trials.
    """
    percent = name == "mlp"  # classes; of text the loss is what counts
    counts = [len(store.find_arm("depth", "random")["keys"]) for store in stores]
    print(f"\n### {name}: {len(stores)} seeds, random searches of {counts[0]} networks\n")
    pools = [_trials(store, "depth", "random") for store in stores]
    complete = all(store.find_arm("depth", how) for store in stores for how in GUIDES)
    rows: dict[str, tuple[list[dict[str, float]], list[dict[str, float]] | None]] = {}
    for how in CHOOSERS:
        chosen = [_choose(pool, how, folder) for pool in pools]
        guided = None
        if how in GUIDES and complete:
            guided = [_choose(_trials(s, "depth", how), how, folder) for s in stores]
        rows[how] = (chosen, guided)
    rows["at random"] = ([_mean_network(pool) for pool in pools], None)
    rows["default configuration"] = (
        [_trials(store, "default", "default")[0]["test"] for store in stores],
        None,
    )
    rows["(test error: the best there is)"] = ([_best(pool) for pool in pools], None)
    what = "test error %" if percent else "test loss"
    other = "test loss" if percent else "test error %"
    heads = [what, other, f"less {REFERENCE}"]
    columns = ["chosen by", f"of the random search: {heads[0]}", *heads[1:]]
    columns += [f"search guided by it: {heads[0]}", *heads[1:]] if complete else []
    table = []
    for how, (chosen, guided) in rows.items():
        cells = _cells(chosen, rows[REFERENCE][0], percent, how == REFERENCE)
        if complete and guided is None:
            cells += ["", "", ""]
        elif guided is not None:
            cells += _cells(guided, rows[REFERENCE][1] or [], percent, how == REFERENCE)
        table.append([how, *cells])
    print(format_markdown(pd.DataFrame(table, columns=columns), index=False))
    tied = [(tie, guide) for tie in ("global", "layer") for guide in TIED_GUIDES]
    if all(store.find_arm(*arm) for store in stores for arm in tied):
        _print_ties(stores, folder, percent, what)


def _print_ties(stores: Sequence[Store], folder: Path, percent: bool, what: str) -> None:
    ties = {"global": "one value for all layers", "depth": "depth profile", "layer": "per layer"}
    table = []
    for guide in TIED_GUIDES:
        found = {
            tie: [_choose(_trials(s, tie, guide), guide, folder) for s in stores] for tie in ties
        }
        values = {tie: _values(networks, percent) for tie, networks in found.items()}
        cells = [f"{mean_interval(values[tie]):.2f}" for tie in ties]
        cells.append(f"{mean_interval(values['layer'] - values['global']):+.2f}")
        table.append([guide, *cells])
    columns = [f"{what}, search guided by", *ties.values(), "per layer less one value"]
    print("\n" + format_markdown(pd.DataFrame(table, columns=columns), index=False))
    counts = {
        (tie, guide): np.mean([len(s.find_arm(tie, guide)["keys"]) for s in stores])
        for tie in ties
        for guide in TIED_GUIDES
    }
    print("\nTrials a search: " + ", ".join(f"{t} {g} {n:.1f}" for (t, g), n in counts.items()))


def _trials(store: Store, tie: str, guide: str) -> list[dict[str, Any]]:
    arm = store.find_arm(tie, guide)
    assert arm is not None
    return [store[key] for key in arm["keys"]]


def _choose(trials: Sequence[dict[str, Any]], how: str, folder: Path) -> dict[str, float]:
    """Test loss and error of the network with the lowest score."""
    best: dict[str, Any] = min(trials, key=lambda record: score(record, how, folder))
    return best["test"]


def _best(trials: Sequence[dict[str, Any]]) -> dict[str, float]:
    finished = [record["test"] for record in trials if record["status"] == "ok"]
    return min(finished, key=lambda test: test["error"])


def _mean_network(trials: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What picking at random among the networks that did not diverge gives in the mean."""
    finished = [record["test"] for record in trials if record["status"] == "ok"]
    return {what: float(np.mean([test[what] for test in finished])) for what in ("loss", "error")}


def _cells(
    networks: list[dict[str, float]],
    reference: list[dict[str, float]],
    percent: bool,
    is_reference: bool,
) -> list[str]:
    first, second = _values(networks, percent), _values(networks, not percent)
    if is_reference:
        difference = ""
    else:
        difference = f"{mean_interval(first - _values(reference, percent)):+.2f}"
    return [f"{mean_interval(first):.2f}", f"{mean_interval(second):.2f}", difference]


def _values(networks: Sequence[dict[str, float]], percent: bool) -> np.ndarray:
    """(seeds,) errors in per cent, or losses in nats."""
    if percent:
        return np.array([100.0 * network["error"] for network in networks])
    return np.array([network["loss"] for network in networks])
