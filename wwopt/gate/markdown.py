"""A check in Markdown, as the summary of a job or the description of a run shows it."""

import re
from collections.abc import Sequence

from wwopt.gate.checks import GateResult, LayerCheck
from wwopt.gate.history import Drift
from wwopt.metrics.base.change_text import describe_change, say_layer
from wwopt.wording import count, number

MOST = 50  # rows of a table; a summary of GitHub may have 1 MiB, a tag of MLflow 8,000 characters
_COLUMNS = ("layer", "verdict", "scale", "KS", "alpha", "hill", "noise", "overlap", "change")
_SIGNS = re.compile(r"[^\w\s.,:;/=%×→–±()-]|(?<=\w)_+|_+(?=\w)")


def format_markdown(
    result: GateResult,
    drifts: Sequence[Drift] = (),
    *,
    before: str = "",
    after: str = "",
    most: int = MOST,
) -> str:
    """Write a check: the verdict, what broke and drifted, and a table of the layers.

    Args:
        result: of the check.
        drifts: what of it is unlike the past.
        before: what the sides are called; empty where that is known.
        after: the same of the other side.
        most: rows of the table and lines of the lists; those that broke come first.
    """
    lines = [f"### wwopt check: {say_verdict(result, drifts)}", ""]
    if before or after:
        lines += [f"{escape(before)} → {escape(after)}", ""]
    lines += _list(
        [f"**{escape(n)}** broke: {escape(how)}" for n, how in result.broken.items()], most
    )
    lines += _list([f"**{escape(d.layer)}** drifted: {escape(d.words)}" for d in drifts], most)
    if not result.continued:
        lines += ["Judged as another training, with wider thresholds.", ""]
    lines += [line for said in describe_change(result.movements) for line in (escape(said), "")]
    drifted = {drift.layer for drift in drifts}
    rows = sorted(result.layers, key=lambda row: not (row.findings or row.name in drifted))
    lines += [f"| {' | '.join(_COLUMNS)} |", f"|{' --- |' * len(_COLUMNS)}"]
    lines += [_row(row, row.name in drifted) for row in rows[:most]]
    if len(rows) > most:
        lines += ["", f"and {count(len(rows) - most, 'layer')} more"]
    return "\n".join(lines) + "\n"


def say_verdict(result: GateResult, drifts: Sequence[Drift] = ()) -> str:
    """The verdict in a few words: "passed", "2 of 4 layers broke, 1 drifted"."""
    drifted = {drift.layer for drift in drifts}
    total = count(len(result.layers), "layer")
    said = [f"{len(result.broken)} of {total} broke"] if result.broken else []
    said += [f"{len(drifted)} of {total} drifted"] if drifted else []
    return ", ".join(said) or f"passed, {total}"


def escape(text: str) -> str:
    """A text that Markdown and HTML show as it is, in a table too: signs become entities."""
    return _SIGNS.sub(
        lambda found: "".join(f"&#{ord(c)};" for c in found[0]), " ".join(text.split())
    )


def _list(lines: Sequence[str], most: int) -> list[str]:
    if not lines:
        return []
    more = [f"- and {len(lines) - most} more"] if len(lines) > most else []
    return [*(f"- {line}" for line in lines[:most]), *more, ""]


def _row(row: LayerCheck, drifted: bool) -> str:
    cells = [
        escape(row.name),
        "broken" if row.findings else "drifted" if drifted else "passed",
        number(row.change.scale, ".3f"),
        number(row.change.ks, ".3f"),
        *(f"{number(getattr(row.before, name, None), '.2f')} → "
          f"{number(getattr(row.after, name, None), '.2f')}" for name in ("alpha", "hill")),
        number(row.change.noise, ".3f"),
        number(getattr(row.movement, "overlap", None), ".2f"),
        escape(number(None if row.movement is None else say_layer(row.movement), "")),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"
