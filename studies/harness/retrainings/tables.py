"""False alarms of the gate and of drift, and what of slow breakages they find, in tables."""

import math
from collections.abc import Iterable, Sequence
from statistics import median

import pandas as pd
from scipy import stats

from harness.markdown_tables import format_markdown
from harness.retrainings.histories import WAYS, History
from harness.retrainings.replays import ACCEPTED, CHECK, WATCH, Checked, replay
from harness.retrainings.training import BREAKAGES, HEALTHY, WEEKS
from wwopt.gate.history import MIN_PAST

PAST = {"5 to 9": range(MIN_PAST, 10), "10 to 19": range(10, 20), "20 and more": range(20, 99)}
THEN = {
    ACCEPTED: "each alarm accepted",
    CHECK: "`check --history`, alarms left",
    WATCH: "`watch`, alarms left",
}


def share(hits: int, count: int) -> str:
    """A count with its share in per cent and the 95 % Wilson interval."""
    if not count:
        return "–"
    low, high = stats.binomtest(hits, count).proportion_ci(method="wilson")
    return f"{hits}/{count}, {100 * hits / count:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def print_false_alarms(halves: dict[str, Sequence[History]]) -> None:
    """Of harmless weeks: how often was drift, or a broken layer, told?"""
    table: dict[str, dict[str, str]] = {}

    def enter(row: str, half: str, hits: int, count: int) -> None:
        table.setdefault(row, {"harmless weeks": row})[half] = share(hits, count)

    for half, histories in halves.items():
        for then, label in THEN.items():
            replays = [(h, replay(h, then)) for h in histories]
            judged = [(h, c) for h, checks in replays for c in checks if c.past >= MIN_PAST]
            if then == ACCEPTED:
                for name, past in PAST.items():
                    of = [c.drifted for _, c in judged if c.past in past]
                    enter(f"drift, {name} past checks", half, sum(of), len(of))
                for way in WAYS:
                    of = [c.drifted for h, c in judged if h.way == way]
                    enter(f"drift, trained {_WORDS[way]}", half, sum(of), len(of))
            enter(f"**drift, {label}**", half, sum(c.drifted for _, c in judged), len(judged))
            if then == ACCEPTED:
                hit = [any(c.drifted for c in checks) for _, checks in replays]
                enter("histories with a drift in 26 weeks", half, sum(hit), len(hit))
                for way in WAYS:
                    gate = [bool(c.broken) for h, checks in replays for c in checks if h.way == way]
                    enter(f"gate, trained {_WORDS[way]}", half, sum(gate), len(gate))
    print("\n" + format_markdown(pd.DataFrame(list(table.values())), index=False))


_WORDS = dict(zip(WAYS, ("on", "anew"), strict=True))


def find_first(checks: Iterable[Checked], *, drift: bool) -> int | None:
    """Weeks from the beginning of the breakage to the first alarm; None where there is none."""
    for checked in checks:
        if checked.week > HEALTHY and (checked.broken or (drift and checked.drifts)):
            return checked.week - HEALTHY
    return None


def print_breakages(histories: Sequence[History]) -> None:
    """Of slow breakages: how many are found, how late, and what had been lost by then?"""
    for way in WAYS:
        rows = []
        for breakage in ("", *BREAKAGES):
            of = [h for h in histories if h.breakage == breakage and h.way == way]
            replays = [replay(h, ACCEPTED) for h in of]
            row = {f"trained {_WORDS[way]}": breakage or "nothing breaks"}
            lost = [100 * _lost(h, WEEKS) for h in of if breakage]
            row["points lost, week 14"] = f"{median(lost):.1f}" if lost else "–"
            for label, drift in (("gate", False), ("with history", True)):
                found = [find_first(checks, drift=drift) for checks in replays]
                weeks = [math.inf if week is None else week for week in found]
                hits = [week for week in weeks if week < math.inf]
                row[f"{label}: alarm"] = f"{len(hits)}/{len(of)}"
                middle = median(weeks) if weeks else math.inf
                row[f"{label}: median week"] = f"{middle:.0f}" if middle < math.inf else "never"
                if drift:
                    early = [100 * _lost(h, HEALTHY + int(week))
                             for h, week in zip(of, weeks, strict=True)
                             if breakage and week < math.inf]  # fmt: skip
                    row["points lost by then"] = f"{median(early):.1f}" if early else "–"
            rows.append(row)
        print("\n" + format_markdown(pd.DataFrame(rows), index=False))


def _lost(history: History, week: int) -> float:
    """Accuracy that the healthy twin has more."""
    assert history.healthy is not None
    return history.healthy.accuracies[week] - history.accuracies[week - HEALTHY - 1]
