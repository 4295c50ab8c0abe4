"""What a reader of a study should know before trusting its winner, in words."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from wwopt.metrics.model_metrics import RELIABLE
from wwopt.report.importance import Importance
from wwopt.report.leaderboard import tell_status
from wwopt.report.other_choices import Choice
from wwopt.report.rank_correlation import kendall
from wwopt.tracking.hyperparameters import BY_FACTOR, read_hyperparameters, read_knobs
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial
from wwopt.wording import count, shorten, write_names

FEW_TRIALS = 10  # complete; below it the best is hardly more than the luckiest
NEAR = 0.02  # share of a range, on its own scale, that counts as its end
DISAGREE = 0.2  # tau between objective and training loss below which they are said to disagree


def warn_about(
    study: TrackedStudy,
    table: pd.DataFrame | None,
    *,
    importance: Importance,
    choices: Sequence[Choice],
    settings: Mapping[str, Any],
) -> list[str]:
    """List what speaks against the study or its best trial.

    Args:
        study: tracked in MLflow.
        table: of the best trial's layers; None where none was logged.
        importance: of its hyperparameters.
        choices: of other scores.
        settings: of the study, as `wwopt.tracking.read_settings` reads them.
    """
    told = _warn_about_trials(study)
    best = study.best
    if best is not None:
        told += _warn_about_layers(best, table)
        told += _warn_about_ends(best, read_ranges(settings))
        if "wwopt.weights" in best.tags:
            told.append(f"The weights of trial {best.number} were {best.tags['wwopt.weights']}.")
    second = settings.get("second")
    if second is not None:
        told.append(
            f"The study has a second objective, {second}. The picture of the front weighs both; "
            f"all else on this page is about the first."
        )
    sizes = {name for trial in study.judged for name in read_knobs(trial)} & {"width", "depth"}
    if sizes:
        told.append(
            f"Networks of different sizes were tried ({', '.join(sorted(sizes))}): their scores do "
            f"not compare. Compare trials of one size."
        )
    told += _warn_about_loss(study, choices)
    return told + [f"{text[0].upper()}{text[1:]}." for text in importance.warnings]


def read_ranges(settings: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Hyperparameter → (low, high) of a study's space; empty where its settings tell none."""
    space = settings.get("space")
    ranges = space.get("ranges", {}) if isinstance(space, Mapping) else {}  # text: cut by MLflow
    return {str(kind): (float(low), float(high)) for kind, (low, high) in ranges.items()}


def _warn_about_trials(study: TrackedStudy) -> list[str]:
    told = []
    complete = [trial for trial in study.trials if trial.state == "COMPLETE"]
    if len(complete) < FEW_TRIALS:
        told.append(
            f"Only {count(len(complete), 'trial')} complete: the best of so few is hardly more "
            f"than the luckiest."
        )
    if complete and not study.judged:
        told.append("No trial logged an objective: there is no best one.")
    elif study.judged and study.best is None:
        told.append("Every complete trial violates a guard: the best of them is not to be trusted.")
    if study.kept is not None:
        told.append(
            f"Trial {study.kept.number}, the textbook configuration, is kept: the trials that fit "
            f"the labels best memorise them, as wrong ones are."
        )
    running = [trial for trial in study.trials if trial.state == "RUNNING"]
    if running:
        told.append(
            f"{count(len(running), 'trial')} still running, or left by a process that died."
        )
    failed = [trial for trial in study.trials if trial.state == "FAIL"]
    if failed:
        reason, times = Counter(map(tell_status, failed)).most_common(1)[0]
        told.append(
            f"{count(len(failed), 'trial')} failed; most often ({times}): {shorten(reason, 200)}."
        )
    refused = [trial for trial in study.trials if trial.refused]
    if refused:
        reason, times = Counter(map(tell_status, refused)).most_common(1)[0]
        told.append(
            f"{count(len(refused), 'trial')} refused as broken; most often ({times}): "
            f"{shorten(reason, 200)}."
        )
    alarmed = [trial for trial in study.trials if trial.alarms]
    if alarmed:
        words, times = Counter(w for trial in alarmed for w in trial.alarms).most_common(1)[0]
        told.append(
            f"{count(len(alarmed), 'trial')} raised an alarm, which changed nothing; most often "
            f"({times}): {shorten(words, 200)}."
        )
    violating = [trial for trial in complete if trial.violated]
    if violating:
        names = sorted({name for trial in violating for name in trial.violated})
        told.append(
            f"{count(len(violating), 'trial')}, though complete, may not be the best: a guard is "
            f"violated ({', '.join(names)})."
        )
    return told


def _warn_about_layers(best: TrackedTrial, table: pd.DataFrame | None) -> list[str]:
    if table is None or not {"longname", "alpha", "status"} <= set(table):
        return [f"Trial {best.number} logged no table of its layers."]
    rows = table[table["status"] == "ok"]
    groups = {
        "over-trained, with an alpha below 2": rows["warning"] == "over-trained",
        "under-trained, with an alpha above 6": rows["warning"] == "under-trained",
        "with correlation traps": rows["num_traps"].fillna(0) >= 1,
        "with an alpha that is not reliable": rows["reliability"] != RELIABLE,
    }
    told = [
        f"In the best trial, {count(len(names), 'layer')} {what}: {_name(names)}."
        for what, holds in groups.items()
        if (names := [str(name) for name in rows["longname"][holds]])
    ]
    left = table[table["status"] != "ok"]
    if len(left):
        reasons = ", ".join(dict.fromkeys(str(status) for status in left["status"]))
        names = [str(name) for name in left["longname"]]
        told.append(f"Not judged by alpha ({reasons}): {_name(names)}.")
    return told


def _warn_about_ends(best: TrackedTrial, ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """Values at the end of what was allowed: better ones may lie beyond."""
    told = []
    settings = read_hyperparameters(best)
    for kind, (low, high) in ranges.items():
        if not low < high:
            continue
        scale = math.log if kind in BY_FACTOR and low > 0.0 else float
        at: dict[str, list[str]] = {"lower": [], "upper": []}
        for key, value in settings.items():
            group, _, layer = key.partition("/")
            if group != kind or not isinstance(value, float) or not low <= value <= high:
                continue
            share = (scale(value) - scale(low)) / (scale(high) - scale(low))
            if share <= NEAR or share >= 1.0 - NEAR:
                at["lower" if share <= NEAR else "upper"].append(layer)
        for end, layers in at.items():
            # No dropout and no momentum are an end that nothing lies beyond.
            if layers and not (end == "lower" and low == 0.0):
                bound = low if end == "lower" else high
                told.append(
                    f"The best {kind} lies at the {end} end of its range ({bound:g}) for "
                    f"{_name(layers)}: better values may lie beyond."
                )
    return told


def _warn_about_loss(study: TrackedStudy, choices: Sequence[Choice]) -> list[str]:
    pairs = [(t.value, t.metrics["train/loss"]) for t in study.judged if "train/loss" in t.metrics]
    told = []
    if len(pairs) >= FEW_TRIALS and not study.is_observed:
        values, losses = np.array(pairs).T
        tau = kendall(values, losses)
        if tau < DISAGREE:
            told.append(
                f"The objective and the training loss order the trials differently (tau "
                f"{tau:+.2f}): where you trust your training loss, it is the better guide."
            )
    chosen = {choice.trial.number for choice in choices if choice.seen}
    if len(chosen) > 1 and len(chosen) == sum(choice.seen for choice in choices):
        told.append("No two of the compared scores would have chosen the same trial.")
    return told


def _name(layers: Sequence[str]) -> str:
    return write_names([shorten(layer) for layer in layers])
