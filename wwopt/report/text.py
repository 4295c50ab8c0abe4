"""Comparisons as a person reads them in a terminal."""

import math

import pandas as pd

from wwopt.report.compressed_variants import CompressedVariants
from wwopt.report.importance import Correlation, Importance
from wwopt.report.leaderboard import make_leaderboard
from wwopt.report.pairs import Pair, tell_changes
from wwopt.report.two_objectives import find_front
from wwopt.tracking.hyperparameters import Setting
from wwopt.tracking.keys import VALUE
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.wording import count, number, shorten


def count_states(study: TrackedStudy) -> str:
    """As "20 trials (12 complete, 8 pruned)"."""
    words = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    states = [trial.state for trial in study.trials]
    parts = ", ".join(f"{states.count(s)} {word}" for s, word in words.items() if s in states)
    return count(len(states), "trial") + (f" ({parts})" if parts else "")


def format_leaderboard(study: TrackedStudy, *, by: str = VALUE, top: int, width: int) -> str:
    """The leaderboard as a table, its columns in blocks where they do not fit.

    Args:
        study: tracked in MLflow.
        by: metric that orders the trials.
        top: rows to show; 0 for all.
        width: characters of a line.
    """
    frame = make_leaderboard(study, by=by)
    lines = [f"Study {study.name}: {count_states(study)}.", ""]
    if frame.empty:
        return lines[0]
    shown = frame.head(top) if top else frame
    shown = shown.set_index("trial")
    lines.append(_to_text(shown, width=width))
    if len(shown) < len(frame):
        lines += ["", f"{len(frame) - len(shown)} more; --top 0 shows all."]
    if "objective" not in frame and by == VALUE:
        lines += ["", "No objective was logged: the order is that of time. --by METRIC sorts."]
    else:
        lines += ["", f"Lower {'objectives' if by == VALUE else by} first, complete trials first."]
    front = find_front(study)
    if front:
        numbers = ", ".join(str(trial.number) for trial in front)
        lines.append(f"No other trial beats these in both objective and {study.second}: {numbers}.")
    return "\n".join(lines)


def format_compressed(variants: CompressedVariants, *, width: int) -> str:
    """Compressed networks as a table."""
    frame = variants.to_frame()
    shown = frame.assign(
        bytes=[f"{size:,.0f}" for size in frame["bytes"]],
        front=["*" if on_front else "" for on_front in frame["front"]],
    ).set_index("trial")
    by = "noise, each trial by itself" if variants.metric is None else variants.metric.name
    return "\n\n".join(
        [
            "Compressed networks:",
            _to_text(shown, width=width),
            f"* none is both smaller and better by {by}. Broken layers are the gate's, which sees "
            "no data.",
        ]
    )


def format_pair(pair: Pair, *, width: int) -> str:
    """Two trials side by side: aggregates, layers, and what changed most."""
    a, b = pair.first, pair.second
    heads = [f"trial {a.number}", f"trial {b.number}"]
    metrics = pd.DataFrame.from_dict(dict(pair.metrics), orient="index", columns=heads)
    metrics["change"] = metrics[heads[1]] - metrics[heads[0]]
    blocks = [
        f"{heads[0]} ({_state(a.state, a.status)}) and {heads[1]} ({_state(b.state, b.status)})"
    ]
    blocks.append(_to_text(metrics, width=width))
    if pair.settings:
        settings = pd.DataFrame.from_dict(dict(pair.settings), orient="index", columns=heads)
        blocks.append(_to_text(settings, width=width))
    if pair.layers:
        blocks.append(_to_text(_layer_frame(pair), width=width))
    told = tell_changes(pair)
    if told:
        blocks.append("\n".join(["What changed most:", *(f"  {line}" for line in told)]))
    if not pair.layers:
        blocks.append("Neither trial logged a table of its layers.")
    return "\n\n".join(blocks)


def format_importance(importance: Importance, *, width: int) -> str:
    """What moved the objective, and whose alpha moved with it."""
    blocks = [f"Warning: {warning}." for warning in importance.warnings]
    if importance.shares:
        taus = {c.hyperparameter: c for c in importance.objective}
        rows = {
            shorten(name): {
                "importance": f"{share:.2f}",
                "tau with the objective": _say_tau(taus.get(name)),
            }
            for name, share in importance.shares.items()
        }
        table = pd.DataFrame.from_dict(rows, orient="index")
        blocks.append(f"What moved the objective, in {importance.trials} complete trials:")
        blocks.append(table.to_string(line_width=width))
        blocks.append(
            "A positive tau: larger values went with a worse objective. * is beyond what the "
            f"largest of {len(importance.objective)} unrelated ones reaches by chance "
            f"({importance.chance:.2f})."
        )
    if importance.alphas:
        rows = {
            f"{shorten(c.hyperparameter)} → {shorten(c.target)}": {"tau with alpha": _say_tau(c)}
            for c in importance.alphas
        }
        blocks.append("Whose alpha moved with it, the strongest pairs:")
        blocks.append(pd.DataFrame.from_dict(rows, orient="index").to_string(line_width=width))
        blocks.append(
            f"Of {importance.pairs} pairs of a hyperparameter and a layer; by chance the largest "
            f"reaches {importance.chance_pairs:.2f}. Intervals are those of a single pair, 95 %."
        )
    return "\n\n".join(blocks)


def _layer_frame(pair: Pair) -> pd.DataFrame:
    rows = {}
    numbers = (pair.first.number, pair.second.number)
    for layer in pair.layers:
        row: dict[str, object] = {}
        for kind, values in layer.settings.items():
            row |= {f"{kind} {n}": v for n, v in zip(numbers, values, strict=True)}
        for n, alpha, sigma in zip(numbers, layer.alpha, layer.sigma, strict=True):
            error = f" ± {sigma:.2f}" if math.isfinite(sigma) else ""
            row[f"alpha {n}"] = f"{alpha:.2f}{error}" if math.isfinite(alpha) else "–"
        row["change"] = f"{layer.change:+.2f}" if math.isfinite(layer.change) else "–"
        row |= {f"D {n}": v for n, v in zip(numbers, layer.D, strict=True)}
        row |= {f"traps {n}": v for n, v in zip(numbers, layer.traps, strict=True)}
        row |= {f"status {n}": v or "–" for n, v in zip(numbers, layer.status, strict=True)}
        rows[layer.name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _to_text(frame: pd.DataFrame, *, width: int) -> str:
    texts = frame.map(_say)
    texts.index = pd.Index([shorten(str(name)) for name in texts.index], name=frame.index.name)
    texts.columns = pd.Index([shorten(str(name)) for name in texts.columns])
    return str(texts.to_string(line_width=width))


def _say(value: Setting | int | None) -> str:
    return shorten(value) if isinstance(value, str) else number(value, ".4g")


def _say_tau(correlation: Correlation | None) -> str:
    if correlation is None:
        return "–"
    star = " *" if correlation.beyond_chance else ""
    interval = ""
    if math.isfinite(correlation.low):
        interval = f" [{correlation.low:+.2f}, {correlation.high:+.2f}]"
    return f"{correlation.tau:+.2f}{interval}{star}"


def _state(state: str, status: str) -> str:
    """In one phrase: a status that says more than the state does, else the state."""
    return status if status not in ("", "ok") else state.lower()
