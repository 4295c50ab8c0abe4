"""A recommendation in plain words for a terminal, and as plain data."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from wwopt.plain_data import make_plain
from wwopt.recommendation.phrases import (
    LABELS,
    order_outlooks,
    say_basis,
    say_more,
    say_paid,
    say_verdict,
    tabulate_actions,
    tell_reasons,
    tell_turns,
)
from wwopt.recommendation.recommendation import Recommendation


def describe_recommendation(recommendation: Recommendation) -> dict[str, Any]:
    """All of it as JSON knows it; gains are positive where the metric gets better."""
    r = recommendation
    document = {
        "study": r.study,
        "trial": r.trial,
        "verdict": r.verdict,
        "best": r.decision.best,
        "confidence": r.decision.confidence,
        "metric": r.metric,
        "better": r.better,
        "now": r.now,
        "noise": r.noise,
        "validated": r.validated,
        "actions": {
            name: asdict(outlook) | {"missing": outlook.missing or None}
            for name, outlook in order_outlooks(r).items()
        },
        "reasons": list(tell_reasons(r)),
        "changes": [
            asdict(turn) | {"words": w} for turn, w in zip(r.turns, tell_turns(r), strict=True)
        ],
        "paid": asdict(r.paid),
        "amount": {"data": 2.0, "trials": r.amounts.more_trials, "bigger": 2.0, "epochs": 2.0},
        "curve_enough": r.curve_enough,
        "enough": dict(r.enough),
        "reach": {action: 0.5 * float(c.nodes[-1]) for action, c in r.gains.curves.items()},
        "doubtful": r.decision.doubtful,
        "probes": {
            "missing": [probe.name for probe in r.plan.probes],
            "trainings": r.plan.trainings,
            "seconds": r.plan.seconds,
            "reason": r.plan.reason,
            "total": r.plan.total,
        },
        "failed": list(r.failed),
        "labels": None
        if r.labels is None
        else {"words": r.labels.words, "confidence": r.labels.confidence},
    }
    plain: dict[str, Any] = make_plain(document)
    return plain


def format_recommendation(recommendation: Recommendation, *, width: int = 100) -> str:
    """What to do next, as a person reads it in a terminal.

    Args:
        recommendation: to tell.
        width: characters of a line.
    """
    r = recommendation
    table = tabulate_actions(r)
    columns = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    rows = [
        "  ".join(cell.ljust(size) for cell, size in zip(row, columns, strict=True)).rstrip()
        for row in table
    ]
    missing = [f"{LABELS[name]}: {why}." for name, why in r.gains.missing.items()]
    blocks = [
        _wrap(f"Study {r.study}, trial {r.trial}: {say_verdict(r)}", width),
        _wrap(say_basis(r), width),
        "\n".join(rows),
    ]
    if missing:
        blocks.append(_list("Not known:", missing, width))
    blocks.append(_list("What decided:", tell_reasons(r), width))
    if r.failed:
        blocks.append(_list("Probes that failed:", r.failed, width))
    if r.turns:
        blocks.append(_list("What would change it:", tell_turns(r), width))
    blocks.append("\n".join(_wrap(words, width) for words in (say_paid(r), say_more(r)) if words))
    if r.labels is not None:
        blocks.append(_wrap(f"{r.labels.words} ({r.labels.confidence:.0%} sure)", width))
    return "\n\n".join(blocks)


def _wrap(text: str, width: int) -> str:
    return textwrap.fill(text[0].upper() + text[1:], max(width, 20), break_on_hyphens=False)


def _list(title: str, lines: Sequence[str], width: int) -> str:
    fill = textwrap.TextWrapper(
        max(width, 20), initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
    )
    return "\n".join([title, *(fill.fill(line) for line in lines)])
