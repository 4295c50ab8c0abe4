"""Judge every score on a zoo: how it orders the networks by their test error, and what it loses.

Networks whose loss became non-finite are counted apart; those that learned less than half of what
the median network did are "collapsed" (or never learned), counted, and left in.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.score_statistics import (
    matched_pairs,
    paired_difference,
    permutation_threshold,
    pooled_difference,
    regret,
    tau,
    tau_interval,
)
from harness.zoos.records import Network, read_zoo
from harness.zoos.scores import (
    fitted_models,
    reads_labels,
    reads_training,
    transferred,
    weights_only,
)

Array = NDArray[np.float64]
SHOWN = ("wwopt, weights only", "wwopt, validation-free", "training loss", "fitted: moments")
SPLIT = ("1.0", "0.5")  # checkpoints judged: the end, and half-way, against the final test error


def judge_zoo(folder: Path) -> dict[str, pd.DataFrame]:
    """Tables of one zoo: every score, the axes of a sweep, and facts about the zoo itself."""
    every = read_zoo(folder)
    networks = [network for network in every if not network.diverged]
    end = {
        key: np.array([n.outcome(key) for n in networks]) for key in ("tea", "tel", "trl", "tra")
    }
    error, loss, gap = 1.0 - end["tea"], end["tel"], end["tel"] - end["trl"]
    fitted = end["trl"] <= np.median(end["trl"])
    learned = end["tra"] - end["tra"].min()
    collapsed = learned < np.median(learned) / 2.0
    scores = {c: _all_scores(networks, c, error) for c in SPLIT}
    rows = []
    for name, score in scores["1.0"].items():
        half = scores["0.5"].get(name)
        rows.append(
            {
                "score": name,
                "tau error": str(tau_interval(score, error)),
                "tau loss": tau(score, loss),
                "tau gap": tau(score, gap),
                "tau not collapsed": tau(score[~collapsed], error[~collapsed]),
                "tau fitted half": str(tau_interval(score[fitted], error[fitted])),
                "regret": regret(score, error),
                "regret of 5": regret(score, error, top=5),
                "matched pairs": matched_pairs(score, end["trl"], loss)[0],
                "half-way: tau": np.nan if half is None else tau(half, error),
                "fitted": np.nan if half is None else tau(half[fitted], error[fitted]),
                "regret half": np.nan if half is None else regret(half, error),
                "chose collapsed": _chose(scores, name, collapsed),
            }
        )
    real = {k: s for k, s in scores["1.0"].items() if not k.startswith("fitted")}
    free, plain = (scores["1.0"][k][fitted] for k in SHOWN[1:3])
    facts = {
        "networks": len(every),
        "diverged": len(every) - len(networks),
        "collapsed": int(collapsed.sum()),
        "best error": 100.0 * error.min(),
        "noise of the test set": 100.0 * _test_noise(folder.name, error.min()),
        "regret at random": 100.0 * (error.mean() - error.min()),
        "two seeds of one configuration": _twins(networks, error),
        "best of all by luck": permutation_threshold(real, error),
        "validation-free - training loss, fitted half": str(
            paired_difference(free, plain, error[fitted])
        ),
        "pairs matched": matched_pairs(plain, end["trl"][fitted], loss[fitted])[1],
    }
    return {
        "scores": pd.DataFrame(rows).set_index("score"),
        "facts": pd.DataFrame({folder.name: facts}).T,
        "pairs": pd.DataFrame(
            {
                (checkpoint, name): scores[checkpoint][name]
                for checkpoint in SPLIT
                for name in (*SHOWN[:3], "running loss", "wwopt, validation-free, running")
            }
            | {("truth", "error"): error, ("truth", "fitted"): fitted}
        ),
        "axes": _axes(networks, {k: real[k] for k in (*SHOWN[:3], "mean alpha")}, error),
    }


def _all_scores(networks: list[Network], checkpoint: str, error: Array) -> dict[str, Array]:
    scores = weights_only(networks, checkpoint) | reads_training(networks, checkpoint)
    return scores | reads_labels(networks, checkpoint) | fitted_models(networks, checkpoint, error)


def _chose(scores: dict[str, dict[str, Array]], name: str, collapsed: NDArray[np.bool_]) -> str:
    found = [c for c in SPLIT if name in scores[c] and collapsed[np.nanargmin(scores[c][name])]]
    return ", ".join({"1.0": "end", "0.5": "half"}[c] for c in found) or "no"


def _test_noise(task: str, error: float) -> float:
    """Standard error of an error on the test set; 0 where the true probabilities are known."""
    sizes = {"teacher": math.inf, "shakespeare": 64_000, "digits": 597}
    size = next((n for prefix, n in sizes.items() if task.startswith(prefix)), 4000)
    return math.sqrt(error * (1.0 - error) / size)


def _twins(networks: list[Network], error: Array) -> float:
    """The noise ceiling: tau between the errors of the same configurations under two seeds."""
    seen: dict[int, list[float]] = {}
    for network, value in zip(networks, error, strict=True):
        seen.setdefault(network.config.get("config", -network.index - 1), []).append(value)
    pairs = np.array([errors[:2] for errors in seen.values() if len(errors) > 1])
    return tau(pairs[:, 0], pairs[:, 1]) if len(pairs) >= 10 else float("nan")


def _axes(networks: list[Network], scores: dict[str, Array], error: Array) -> pd.DataFrame:
    """Tau along each axis of a zoo that varies one hyperparameter at a time."""
    axes = np.array([network.config.get("axis", "") for network in networks])
    rows = {
        axis: {
            name: tau(score[axes == axis], error[axes == axis]) for name, score in scores.items()
        }
        for axis in sorted(set(axes) - {""})
    }
    return pd.DataFrame(rows).T


def judge_transfer(folders: Iterable[Path]) -> pd.DataFrame:
    """Tau of trees fitted to all zoos but the one they are judged on, at the end of training."""
    zoos = {f.name: [n for n in read_zoo(f) if not n.diverged] for f in folders}
    rows = {}
    for name, networks in zoos.items():
        error = np.array([1.0 - network.outcome("tea") for network in networks])
        own = {SHOWN[0]: weights_only(networks, "1.0")[SHOWN[0]]}
        found = own | transferred(zoos, name, "1.0")
        rows[name] = {key: str(tau_interval(score, error)) for key, score in found.items()}
    return pd.DataFrame(rows).T


def summarize(tables: dict[str, dict[str, pd.DataFrame]]) -> pd.DataFrame:
    """One row a zoo: what the two scores, the training loss and trees on moments are worth."""
    rows = {}
    for name, table in tables.items():
        facts, scores = table["facts"].iloc[0], table["scores"]
        default, free, loss, moments = (scores.loc[key] for key in SHOWN)
        rows[name] = {
            "networks": facts["networks"],
            "diverged, collapsed": f"{facts['diverged']}, {facts['collapsed']}",
            "weights only: end": default["tau error"],
            "half": default["half-way: tau"],
            "regret": default["regret"],
            "noise": facts["noise of the test set"],
            "chose collapsed": default["chose collapsed"],
            "training loss: end": loss["tau error"],
            "half ": loss["half-way: tau"],
            "fitted half": loss["tau fitted half"].split()[0],
            "validation-free: end": free["tau error"],
            "half  ": free["half-way: tau"],
            "fitted half ": free["tau fitted half"].split()[0],
            "trees on moments": moments["tau error"].split()[0],
        }
    return pd.DataFrame(rows).T


def ablate(tables: dict[str, dict[str, pd.DataFrame]]) -> pd.DataFrame:
    """What each kind of feature is worth to trees fitted on the same zoo: tau out of fold, end."""
    rows = {}
    for name, table in tables.items():
        fitted = table["scores"]["tau error"].filter(like="fitted: ")
        rows[name] = {key.removeprefix("fitted: "): v.split()[0] for key, v in fitted.items()}
    return pd.DataFrame(rows).T


def compare_with_loss(tables: dict[str, dict[str, pd.DataFrame]]) -> pd.DataFrame:
    """Tau of the validation-free score minus the loss's, mean over zoos, paired bootstrap."""
    rows = {}
    for loss, free in ((SHOWN[2], SHOWN[1]), ("running loss", "wwopt, validation-free, running")):
        for checkpoint, when in zip(SPLIT, ("end", "half-way"), strict=True):
            for part in ("all networks", "fitted half"):
                zoos = []
                for table in tables.values():
                    found = table["pairs"]
                    kept = found if part == "all networks" else found[found["truth", "fitted"]]
                    columns = [(checkpoint, free), (checkpoint, loss), ("truth", "error")]
                    zoos.append(tuple(kept[c].to_numpy(dtype=np.float64) for c in columns))
                rows[f"{loss}, {when}, {part}"] = {
                    "networks": sum(len(truth) for *_, truth in zoos),
                    "difference of tau": str(pooled_difference(zoos, resamples=400)),
                }
    return pd.DataFrame(rows).T
