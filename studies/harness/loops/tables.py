"""The tables of `closed_loops.py`: what each choice is worth, with intervals over paired seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.loops.searches import SPECTRAL, TIED_GUIDES, Store, guides_of, score
from harness.loops.trials import EVIDENCE, NOISY, TASKS
from harness.markdown_tables import format_markdown
from harness.score_statistics import Interval, mean_interval
from wwopt.metrics.memorisation import octave_ratio
from wwopt.study.choice import best_fits_memorise

# Whoever chooses among the networks of a random search, in the table's order.
CHOOSERS = (
    "weights only, version 3",
    "weights only",
    "validation-free",
    "validation-free, unguarded",
    "training loss",
    "sum of losses",
    EVIDENCE,
    "validation 100",
    "validation 300",
    "validation 1000",
    NOISY,
)
LABELS = "validation 1000"
# The largest mean difference, and upper end of its interval, that count as not worse.
NOT_WORSE = {"%": (0.1, 0.4), "nats": (0.01, 0.03)}

Network = dict[str, float]  # test loss and error
Trials = Sequence[dict[str, Any]]
Choose = Callable[[str, Sequence[Trials]], list[Network]]  # a score, searches → their networks


def print_tables(name: str, stores: Sequence[Store], folder: Path) -> None:
    """Print the tables of a task.

    Args:
        name: of the task.
        stores: one a seed.
        folder: of the trials.
    """
    unit = "nats" if name.startswith("gpt") else "%"
    counts = [len(_arm(store, "depth", "random")["keys"]) for store in stores]
    print(f"\n### {name}: {len(stores)} seeds, random searches of {counts[0]} networks\n")
    pools = [_trials(store, "depth", "random") for store in stores]
    books = [_trials(store, "default", "default")[0] for store in stores]
    textbook = [book["test"] for book in books]

    def choose(how: str, searches: Sequence[Trials]) -> list[Network]:
        pairs = zip(searches, books, strict=True)
        return [_choose(trials, how, name, folder, book) for trials, book in pairs]

    guides = [g for g in guides_of(name) if all(s.find_arm("depth", g) for s in stores)]
    searches = {g: [_trials(store, "depth", g) for store in stores] for g in guides}
    labels = choose(LABELS, searches.get(LABELS, pools))
    rows = []
    for how in CHOOSERS:
        if not all(_can_choose(pool, how) for pool in pools):
            continue
        chosen = choose(how, pools)
        cells = [how, *_cells(chosen, textbook, labels, unit)]
        if how in searches:
            guided = choose(how, searches[how])
            spoiled = [
                _overtuning(trials, network, how, name, folder, unit)
                for trials, network in zip(searches[how], guided, strict=True)
            ]
            pressure = [_arm(store, "depth", how)["pressure"] for store in stores]
            cells += [
                *_cells(guided, textbook, labels, unit),
                _verdict(guided, chosen, unit),
                f"{np.mean(spoiled):.2f}",
                f"{np.nanmean(pressure):.1f}" if np.isfinite(pressure).any() else "",
            ]
        rows.append(cells + [""] * (9 - len(cells)))
    alone: dict[str, list[Network]] = {
        "at random": [_mean_network(pool) for pool in pools],
        "textbook": textbook,
    }
    if all(store.find_arm("default", "tuning-free") for store in stores):
        free = [_trials(store, "default", "tuning-free")[0] for store in stores]
        if all(record["status"] == "ok" for record in free):
            alone["tuning-free optimizer, once"] = [record["test"] for record in free]
    alone["(test data: the best there is)"] = [_best(pool, unit) for pool in pools]
    for how, networks in alone.items():
        rows.append([how, *_cells(networks, textbook, labels, unit)] + [""] * 5)
    what = "test error %" if unit == "%" else "test loss"
    columns = [
        "score",
        f"chosen of the random search: {what}",
        "less textbook",
        "less labels",
        f"search guided by it: {what}",
        "less textbook",
        "less labels",
        "less its own choice",
        "overtuning",
        "nats",
    ]
    rows = [[*row, ""][: len(columns)] for row in rows]
    print(format_markdown(pd.DataFrame(rows, columns=columns), index=False))
    _print_other(pools, searches, unit, choose)
    _print_memorised(name, {"random": pools, **searches}, textbook, folder, unit)
    tied = [(tie, guide) for tie in ("global", "layer") for guide in TIED_GUIDES]
    if all(store.find_arm(*arm) for store in stores for arm in tied):
        _print_ties(stores, unit, what, choose)


def _print_other(
    pools: Sequence[Trials], searches: dict[str, list[Trials]], unit: str, choose: Choose
) -> None:
    """The other measure: test loss where errors are counted, and the other way round."""
    other = "nats" if unit == "%" else "%"
    rows = []
    for how in CHOOSERS:
        if all(_can_choose(pool, how) for pool in pools):
            cells = [how, _mean(choose(how, pools), other)]
            guided = choose(how, searches[how]) if how in searches else []
            rows.append([*cells, _mean(guided, other) if guided else ""])
    head = "test loss" if other == "nats" else "test error %"
    columns = ["score", f"chosen of the random search: {head}", f"guided: {head}"]
    print("\n" + format_markdown(pd.DataFrame(rows, columns=columns), index=False))
    sizes = {how: np.mean([len(trials) for trials in found]) for how, found in searches.items()}
    print("\nTrials a search: " + ", ".join(f"{how} {size:.1f}" for how, size in sizes.items()))


def _print_memorised(
    name: str,
    searches: Mapping[str, Sequence[Trials]],
    textbook: Sequence[Network],
    folder: Path,
    unit: str,
) -> None:
    """How many trainings memorise; and what is lost or won where the textbook's is not kept."""
    limit, guarded = TASKS[name].memorising, "validation-free"
    counts = []
    for how, found in searches.items():
        done = [record for trials in found for record in trials if record["status"] == "ok"]
        counts.append(f"{how} {sum(_ratio(r) > limit for r in done)} of {len(done)}")
    print("\nTrainings that memorise: " + ", ".join(counts))
    for how in ("random", guarded):
        order = _order(guarded, name, folder)
        lowest = [min(trials, key=order)["test"] for trials in searches.get(how, ())]
        if lowest:
            told = _verdict(lowest, textbook, unit)
            print(f"Lowest {guarded} score that does not memorise, {how}, less textbook: {told}")


def _print_ties(stores: Sequence[Store], unit: str, what: str, choose: Choose) -> None:
    ties = {"global": "one value for all layers", "depth": "depth profile", "layer": "per layer"}
    table = []
    for guide in TIED_GUIDES:
        found = {tie: choose(guide, [_trials(s, tie, guide) for s in stores]) for tie in ties}
        values = {tie: _values(networks, unit) for tie, networks in found.items()}
        cells = [f"{mean_interval(values[tie]):.2f}" for tie in ties]
        cells.append(f"{mean_interval(values['layer'] - values['global']):+.2f}")
        table.append([guide, *cells])
    columns = [f"{what}, search guided by", *ties.values(), "per layer less one value"]
    print("\n" + format_markdown(pd.DataFrame(table, columns=columns), index=False))


def _arm(store: Store, tie: str, guide: str) -> dict[str, Any]:
    arm = store.find_arm(tie, guide)
    assert arm is not None
    return arm


def _trials(store: Store, tie: str, guide: str) -> list[dict[str, Any]]:
    return [store[key] for key in _arm(store, tie, guide)["keys"]]


def _can_choose(pool: Trials, how: str) -> bool:
    """Whether what the score reads was measured."""
    return how not in (EVIDENCE, NOISY) or all(how in r for r in pool if r["status"] == "ok")


def _order(how: str, name: str, folder: Path) -> Callable[[dict[str, Any]], float]:
    return lambda record: score(record, how, folder, memorising=TASKS[name].memorising)


def _choose(trials: Trials, how: str, name: str, folder: Path, textbook: dict[str, Any]) -> Network:
    """Test loss and error of the network with the lowest score.

    As `wwopt.study.choice` has it, a guarded score keeps the textbook's where labels are memorised.
    """
    limit = TASKS[name].memorising
    if how in SPECTRAL and SPECTRAL[how][2]:
        done = [record for record in trials if record["status"] == "ok"]
        pairs = [(record["train_loss"], _ratio(record) > limit) for record in done]
        if best_fits_memorise(pairs) and _ratio(textbook) <= limit:
            return textbook["test"]
    best: dict[str, Any] = min(trials, key=_order(how, name, folder))
    return best["test"]


def _ratio(record: dict[str, Any]) -> float:
    return octave_ratio(dict(enumerate(record["losses"], 1)))


def _overtuning(
    trials: Trials, chosen: Network, how: str, name: str, folder: Path, unit: str
) -> float:
    """What the choice is worse by than the best incumbent before (Schneider et al. 2025)."""
    order = _order(how, name, folder)
    best, incumbents = math.inf, [chosen]
    for record in trials:
        if order(record) < best:
            best = order(record)
            incumbents.append(record["test"])
    values = _values(incumbents, unit)
    return float(values[0] - values.min())


def _best(trials: Trials, unit: str) -> Network:
    what = "error" if unit == "%" else "loss"
    finished = [record["test"] for record in trials if record["status"] == "ok"]
    return min(finished, key=lambda test: test[what])


def _mean_network(trials: Trials) -> Network:
    """What picking at random among the networks that did not diverge gives in the mean."""
    finished = [record["test"] for record in trials if record["status"] == "ok"]
    return {what: float(np.mean([test[what] for test in finished])) for what in ("loss", "error")}


def _cells(
    networks: Sequence[Network], textbook: Sequence[Network], labels: Sequence[Network], unit: str
) -> list[str]:
    values = _values(networks, unit)
    cells = [f"{mean_interval(values):.2f}"]
    for reference in (textbook, labels):
        same = all(a is b for a, b in zip(networks, reference, strict=True))
        cells.append("" if same else _verdict(networks, reference, unit))
    return cells


def _verdict(networks: Sequence[Network], reference: Sequence[Network], unit: str) -> str:
    """The mean difference with its interval; `=` where it is not worse, by the margins."""
    difference = mean_interval(_values(networks, unit) - _values(reference, unit))
    return f"{difference:+.2f}{' =' if is_not_worse(difference, unit) else ''}"


def is_not_worse(difference: Interval, unit: str) -> bool:
    """Whether the mean and the upper end of a paired difference are within the margins."""
    mean, high = NOT_WORSE[unit]
    return difference.value <= mean and difference.high < high


def _mean(networks: Sequence[Network], unit: str) -> str:
    return f"{mean_interval(_values(networks, unit)):.2f}"


def _values(networks: Sequence[Network], unit: str) -> np.ndarray:
    """(seeds,) errors in per cent, or losses in nats."""
    if unit == "%":
        return np.array([100.0 * network["error"] for network in networks])
    return np.array([network["loss"] for network in networks])
