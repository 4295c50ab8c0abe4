"""A ranking for a reader: what was asked, the table, what ties, what decides, what to beware of."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from wwopt.selection.families import ALONE, SIZES
from wwopt.selection.rankings import RankedCandidate, RankedFamily, Ranking, shorten_names
from wwopt.wording import number, write_names

SMALL = 0.005  # differences of scores that are not worth a word
CELL = 32  # characters of a cell of several parts
LISTED = 3  # names in a cell of the table; the rest is counted


def format_ranking(ranking: Ranking) -> str:
    """Families in words and tables, then what holds for all of them."""
    short = shorten_names([candidate.name for candidate in ranking])
    several = len(ranking.families) > 1
    lines: list[str] = []
    for family in ranking.families:
        if family.question != ALONE:
            title = f"Family {family.label}, {family.question}" if several else family.question
            lines += [f"{title[0].upper()}{title[1:]}: {family.reason}.", ""]
            lines += _table(family.members, short, sizes=family.question == SIZES)
            lines += ["", *_conclude(family, short), ""]
    alone = [f.members[0] for f in ranking.families if f.question == ALONE]
    if alone:
        lines += [_introduce_alone(alone, several), "", *_table(alone, short), ""]
    if several:
        reasons = "; ".join(ranking.splits) or "the labels differ"
        lines += [
            f"No order across families: {reasons}. Scores of different families do not compare; "
            "one label for all (--family '*=LABEL') forces one ranking.",
            "",
        ]
    lines += [f"  {line}" if place else line for place, line in enumerate(_warn(ranking, short))]
    return "\n".join(lines).rstrip()


def _warn(ranking: Ranking, short: Mapping[str, str]) -> list[str]:
    """What holds for groups of candidates, once; then for each."""
    lines = [
        f"{write_names([short[name] for name in kin.names], LISTED)} {kin.words}."
        for family in ranking.families
        for kin in family.kin
    ]
    said = {kin.words for family in ranking.families for kin in family.kin}
    for candidate in ranking:
        own = [w for w in candidate.warnings if not any(w.endswith(words) for words in said)]
        lines += [f"{short[candidate.name]}: {'; '.join(own)}"] if own else []
    return ["Beware:", *lines] if lines else []


def _introduce_alone(alone: Sequence[RankedCandidate], several: bool) -> str:
    names = sorted({c.objective for c in alone})
    by = f"scores by {', '.join(names)}, for later comparison inside a family"
    if not several:
        return f"One candidate, so there is nothing to rank; {by}."
    return f"Without another candidate of their family ({by}):"


def _table(
    members: Sequence[RankedCandidate], short: Mapping[str, str], *, sizes: bool = False
) -> list[str]:
    rows = []
    places = {member.name: str(member.place) for member in members}
    for member in members:
        row = {
            "place": "–" if member.place is None else str(member.place),
            "candidate": short[member.name],
            "score": number(member.score, ".3f"),
            "95 % interval": _interval(member),
            "ties with": write_names([places[name] for name in member.ties], 6),
            "headroom": number(member.headroom, ".3f"),
            "held back by": _fit(
                [f"{p} {gap:+.2f}" for p, gap in member.held_back.items() if gap >= SMALL]
            ),
            "parameters": number(member.parameters, ",.0f"),
        }
        if sizes:
            row["log10"] = number(math.log10(member.parameters or math.nan), ".2f")
            row["by size"] = "–" if member.size_place is None else str(member.size_place)
        row["coverage"] = number(member.coverage, ".0%")
        row["status"] = "" if member.status == "ok" else member.status
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame = frame.drop(columns=[name for name in frame if not frame[name].str.strip("–").any()])
    lines = frame.to_string(index=False, justify="left").splitlines()
    return [line.rstrip() for line in lines]


def _conclude(family: RankedFamily, short: Mapping[str, str]) -> list[str]:
    """Ties for the first place, and what sets the first two apart."""
    first, second = family.members[:2]
    if math.isnan(first.score):
        return ["No candidate has a score."]
    lines = []
    if first.ties:
        names = [short[name] for name in (first.name, *first.ties)]
        lines.append(f"First place is a tie, the intervals overlap: {write_names(names, 6)}.")
    elif math.isnan(first.low):
        lines.append("Ties cannot be told: it takes two layers that count.")
    else:
        lines.append(f"First place: {short[first.name]}; no interval overlaps its own.")
    lead = second.score - first.score
    if lead >= SMALL and second.status == "ok":
        terms = {t: second.terms[t] - value for t, value in first.terms.items()}
        parts = [f"the term {max(terms, key=lambda t: terms[t])!r}"] if terms else []
        parts += [f"layer {part}" for part in list(second.held_back)[:1]]
        where = f", most of it by {' and '.join(parts)}" if parts else ""
        lines.append(f"{short[first.name]} leads {short[second.name]} by {lead:.3f}{where}.")
    if family.question == SIZES and all(m.size_place for m in family.members):
        by_size = sorted(family.members, key=lambda m: m.size_place or 0)
        names = [short[member.name] for member in by_size]
        agrees = "too" if by_size[0] is first else "instead"
        lines.append(
            f"By parameters, most first, {names[0]} is first {agrees}: {write_names(names, 6)}."
        )
    return lines


def _interval(member: RankedCandidate) -> str:
    if math.isnan(member.low):
        return "–"
    return f"{member.low:.3f} … {member.high:.3f}"


def _fit(words: Sequence[str]) -> str:
    """As many as fit into a cell, at least one."""
    kept = [
        words[:n] for n in range(1, len(words) + 1) if n == 1 or len(", ".join(words[:n])) <= CELL
    ]
    return ", ".join(kept[-1]) if kept else ""
