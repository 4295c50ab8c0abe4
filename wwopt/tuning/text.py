"""The end of a study for a reader: the best trial or the front, and where to look further."""

import math
import os
import shlex
import textwrap

import optuna
import pandas as pd
from optuna.trial import TrialState

from wwopt.metrics.guards import violation
from wwopt.metrics.objective import READS, Preset
from wwopt.metrics.owners import group_by_kind, settings_of
from wwopt.study.choice import find_lowest
from wwopt.study.constraints import (
    constraints_of,
    find_least_infeasible,
    is_feasible,
    memorises,
)
from wwopt.study.guides import FIRST_STEP, GUIDE_ATTR
from wwopt.study.second_objectives import WHOLE
from wwopt.study.spec import NO_PRUNING
from wwopt.study.textbook import TEXTBOOK_ATTR
from wwopt.study.trial.recording import UNLOGGED_ATTR
from wwopt.study.tries import is_replaced
from wwopt.tracking import hide_password, link_to
from wwopt.tracking.keys import GUARDS
from wwopt.tracking.store import folder_uri
from wwopt.tuning.claims.places import list_finished
from wwopt.tuning.pressure import pressure_of_choosing, pressure_of_search
from wwopt.tuning.progress import MEMORISED
from wwopt.tuning.samplers.study_samplers import sampler_kind_of
from wwopt.tuning.tuning import StudyResult
from wwopt.wording import number, plus_minus, write_names

PLEASED = (
    "A search that minimises it learns to please it, so trials are drawn at random and it chooses "
    "among them. A search guided by validation-free does better: log the training loss "
    "(recorder.step(model, train_loss=...))."
)


def summarize(result: StudyResult) -> str:
    """The end of a study for a reader: the best trial or the front, and where to look further."""
    trials = list_finished(result.study)
    counts = {
        name: sum(t.state.name == state for t in trials)
        for name, state in (("complete", "COMPLETE"), ("pruned", "PRUNED"), ("failed", "FAIL"))
    }
    tally = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    again = sum(is_replaced(trial) for trial in result.study.get_trials(deepcopy=False))
    if again:
        tally += f"; {again} {'was' if again == 1 else 'were'} interrupted and tried again"
    lines = ["", f"Study {result.spec.name}: {sum(counts.values())} trials ({tally})."]
    lines += [
        f"The tracking server was away: of trial {trial.number} MLflow lacks "
        f"{write_names(trial.user_attrs[UNLOGGED_ATTR])}."
        for trial in trials
        if UNLOGGED_ATTR in trial.user_attrs
    ]
    lines += _count_violations(result)
    best = result.best_trial
    lines += _say_guide(result)
    if not result.complete_trials:
        lines.append("No trial was completed, so there is no best one.")
    elif not result.best_trials:
        lines.append(_no_feasible(result))
    elif result.spec.second is None and best is None:
        lines += ["", *_size_table(result)]
    elif best is None:
        lines += ["", *_front_table(result), "", f"({NO_PRUNING})"]
    else:
        lines += [
            "",
            _headline(result, best),
            *_say_textbook(result, best),
            "",
            *_layer_table(best),
        ]
    lines += [
        "",
        f"Optuna: {result.storage}",
        f"MLflow: {hide_password(result.run.uri)}",
    ]
    server = result.run.uri
    if server.startswith("sqlite"):
        server = "http://127.0.0.1:5000"
        uri = shlex.quote(result.run.uri)
        lines.append(f"Look at it with: mlflow ui --backend-store-uri {uri}")
    if server.startswith("http"):
        lines.append(f"and open         {link_to(result.run, hide_password(server))}")
    lines.append(f"Explain it with: wwopt report {_study_argument(result)}")
    return "\n".join(lines)


def _count_violations(result: StudyResult) -> list[str]:
    """One line where guards refused complete trials: how many, and which guards how often."""
    refused = [constraints_of(t) for t in result.complete_trials if not is_feasible(t)]
    if not refused:
        return []
    names = sorted({name for found in refused for name, value in found.items() if value > 0.0})
    counts = {name: sum(found.get(name, 0.0) > 0.0 for found in refused) for name in names}
    listed = ", ".join(f"{_short(name)} {count}" for name, count in counts.items())
    total = len(result.complete_trials)
    lines = [f"Guards refuse {len(refused)} of {total} complete trials ({listed})."]
    if any(memorises(trial) for trial in result.complete_trials):
        told = f"Their {MEMORISED}"
        lines += textwrap.wrap(told, 100, initial_indent="  ", subsequent_indent="  ")
    return lines


def _say_guide(result: StudyResult) -> list[str]:
    """Which score guided, what it reads, and which trials the other ones would have chosen."""
    told = [t for t in result.complete_trials if t.user_attrs.get("guide") in READS]
    if not told:  # before any, or begun with wwopt 0.1.0
        return []
    guide: Preset = told[-1].user_attrs["guide"]
    line = f"Guided by {guide}, which reads {READS[guide]}"
    by_rule = result.study.user_attrs.get(GUIDE_ATTR) == FIRST_STEP
    drawn = result.spec.sampler is None and sampler_kind_of(result.study) == "random"
    if by_rule and guide == "weights-only":
        return [f"{line}: no training loss was logged. {PLEASED}"]
    lines = [f"{line}{', since one is logged' if by_rule else ''}.{f' {PLEASED}' if drawn else ''}"]
    if result.best_trial is None:
        return lines
    pressed = pressure_of_search(told)
    if math.isfinite(pressed) and not drawn:
        random = pressure_of_choosing(len(told))
        lines.append(
            f"The search pressed it with about {pressed:.1f} nats; choosing among as many random "
            f"networks would with {random:.1f}."
        )
    feasible = [t for t in told if is_feasible(t)]
    others = []
    for score in sorted({name for t in feasible for name in t.user_attrs["scores"]} - {guide}):
        known = [t for t in feasible if score in t.user_attrs["scores"]]
        chosen = min(known, key=lambda t: (t.user_attrs["scores"][score], t.number))
        same = chosen.number == result.best_trial.number
        others.append(f"{score} {'the same' if same else f'trial {chosen.number}'}")
    return [*lines, f"Others would have chosen: {', '.join(others)}."] if others else lines


def _no_feasible(result: StudyResult) -> str:
    least = find_least_infeasible(result.complete_trials)
    assert least is not None
    found = constraints_of(least)
    parts = ", ".join(f"{_short(name)} {v:+.2f}" for name, v in found.items() if v > 0.0)
    return (
        f"No trial is feasible, so there is no best one; the least infeasible is trial "
        f"{least.number}, beyond its limits by {violation(found):.2f} ({parts}; 0 is the limit), "
        f"objective {least.values[0]:.4f}."
    )


def _short(constraint: str) -> str:
    return constraint.removeprefix(f"{GUARDS}/")


def _front_table(result: StudyResult) -> list[str]:
    """The front of a study of two objectives, lowest objective first."""
    second, metric = str(result.spec.second), result.spec.metric_name
    rows = []
    for trial in result.best_trials:
        row = {"trial": str(trial.number), "objective": f"{trial.values[0]:.4f}"}
        row[second] = format(trial.values[1], ".0f" if second in WHOLE else ".4g")
        if metric is not None:
            row[metric] = number(trial.user_attrs.get("metrics", {}).get(metric), ".4g")
        rows.append(row)
    total = len(result.complete_trials)
    head = f"Front: {len(rows)} of {total} complete trials, which no other one beats in both values"
    return [head, "", *pd.DataFrame(rows).to_string(index=False).splitlines()]


def _size_table(result: StudyResult) -> list[str]:
    """The best trial of each size, smallest first."""
    shown = ("train_loss", result.spec.metric_name or "")
    rows = []
    for size, trial in result.best_by_size.items():
        metrics = trial.user_attrs.get("metrics", {})
        row = {name: f"{factor:g}" for name, factor in size}
        row |= {"trial": str(trial.number), "objective": f"{trial.values[0]:.4f}"}
        rows.append(row | {name: number(metrics[name], ".4g") for name in shown if name in metrics})
    head = (
        "The best trial of each size; scores of different sizes do not compare, so choose the size "
        "by the training loss or a validation metric:"
    )
    return [head, "", *pd.DataFrame(rows).to_string(index=False).splitlines()]


def _headline(result: StudyResult, best: optuna.trial.FrozenTrial) -> str:
    terms = best.user_attrs.get("terms", {})
    parts = ", ".join(f"{name} {value:+.3f}" for name, value in terms.items() if abs(value) >= 5e-4)
    line = f"Best: trial {best.number}, objective {best.value:.4f} ({parts}; lower is better)"
    if "batch_size" in best.params:
        line += f"\n      batch size {best.params['batch_size']}"
    metrics = best.user_attrs.get("metrics", {})
    shown = [name for name in ("train_loss", result.spec.metric_name) if name in metrics]
    if shown:
        line += "\n      " + ", ".join(f"{name} {metrics[name]:.4g}" for name in shown)
        if result.spec.metric_name in shown:
            line += f"  ({result.spec.metric_name} was not seen by the objective)"
    return line


def _say_textbook(result: StudyResult, best: optuna.trial.FrozenTrial) -> list[str]:
    """Whether the choice beats the textbook configuration, and by what evidence."""
    trials = list_finished(result.study)
    first = next((t for t in trials if t.user_attrs.get(TEXTBOOK_ATTR)), None)
    if first is None:
        return []
    named = f"the textbook configuration, trial {first.number}"
    beaten = is_feasible(first) or first.number == best.number
    if first.state == TrialState.COMPLETE and not beaten and memorises(first):
        return [f"      It does not memorise its labels, as {named}, does."]
    if first.state != TrialState.COMPLETE or not beaten:
        why = (
            first.user_attrs.get("error") or first.user_attrs.get("status") or "no reason was left"
        )
        refused = "guards refuse it" if first.state == TrialState.COMPLETE else why
        return [f"      There is nothing to compare with: {named}, did not end well ({refused})."]
    if first.number == best.number:
        return [f"      It is {named}: {_why_textbook(result, best)}."]
    ours, theirs = best.user_attrs.get("scores", {}), first.user_attrs.get("scores", {})
    told: dict[bool, list[str]] = {True: [], False: []}
    for score in (name for name in ours if name in theirs):
        words = f"{score} ({ours[score]:.4g}, not {theirs[score]:.4g})"
        told[ours[score] < theirs[score]].append(words)
    line = f"It beats {named}, by {', '.join(told[True])}"
    line += f"; not by {', '.join(told[False])}." if told[False] else "."
    line = textwrap.fill(line, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    metric = result.spec.metric_name
    seen = [t.user_attrs.get("metrics", {}).get(metric) for t in (best, first)]
    if None not in seen:  # shown beside, and no evidence: a study must not choose by it
        line += f"\n      {metric}: {number(seen[0], '.4g')}, not {number(seen[1], '.4g')}."
    return [line]


def _why_textbook(result: StudyResult, best: optuna.trial.FrozenTrial) -> str:
    if not is_feasible(best):
        return "it is kept, since all trials memorise their labels"
    lowest = find_lowest(result.complete_trials)
    if lowest is None or lowest.number == best.number:
        return "no other trial beats it"
    return (
        f"it is kept, since those that fit the labels best memorise them. Of the others trial "
        f"{lowest.number} has the lowest objective, {lowest.value:.4f}"
    )


def _layer_table(best: optuna.trial.FrozenTrial) -> list[str]:
    kinds = group_by_kind(best.user_attrs.get("hyperparameters", {}))
    rows = {}
    for name, layer in best.user_attrs.get("layers", {}).items():
        own = settings_of(name, kinds)
        row = {kind: number(own.get(kind), ".3g") for kind in kinds}
        row["alpha"] = plus_minus(layer["alpha"], layer["sigma"])
        row["D"] = number(layer["D"], ".3f")
        row["traps"] = number(layer["traps"], ".0f")
        row["status"] = layer["status"]
        rows[name] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.to_string().splitlines()


def _study_argument(result: StudyResult) -> str:
    """How the other commands are told which study is meant."""
    if result.run.uri == folder_uri(result.out):
        return shlex.quote(os.path.relpath(result.out))
    return f"{shlex.quote(result.spec.name)} --tracking-uri {hide_password(result.run.uri)}"
