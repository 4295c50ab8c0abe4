"""A ranking in words: what was asked, who ties, what decides, and what to beware of."""

from typing import Any

import pytest
from fixtures.weights.layers import well_trained

from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.selection.families import ALONE, SAME, SIZES
from wwopt.selection.rankings import RankedCandidate, RankedFamily, Ranking
from wwopt.selection.text import format_ranking


def candidate(name: str, place: int | None, score: float, **given: Any) -> RankedCandidate:
    values: dict[str, Any] = {
        "family": "A",
        "low": score - 0.25,
        "high": score + 0.25,
        "objective": "weights-only",
        "ties": (),
        "headroom": 0.0,
        "held_back": {},
        "terms": {},
        "parameters": 1000.0,
        "size_place": None,
        "coverage": 1.0,
        "status": "ok",
        "warnings": (),
        "metrics": ModelMetrics((well_trained(),)),
    }
    return RankedCandidate(name=name, place=place, score=score, **(values | given))


def family(*members: RankedCandidate, question: str = SAME, label: str = "A") -> RankedFamily:
    return RankedFamily(label, question, "weights-only", "they are alike", members)


def lines_of(*families: RankedFamily, splits: tuple[str, ...] = ()) -> list[str]:
    return format_ranking(Ranking(families, splits, {})).splitlines()


def test_the_first_leads_the_second_by_a_term_and_a_layer() -> None:
    first = candidate("first", 1, -1.0, terms={"tail": -1.5, "traps": 0.5})
    second = candidate(
        "second",
        2,
        0.0,
        terms={"tail": -0.25, "traps": 0.25},
        headroom=1.0,
        held_back={"fc2": 0.9, "fc1": 0.001},
    )
    lines = lines_of(family(first, second))
    assert lines[0] == "One architecture: they are alike."
    assert [line.split()[:3] for line in lines[3:5]] == [
        ["1", "first", "-1.000"],
        ["2", "second", "0.000"],
    ]
    assert "fc2 +0.90" in lines[4] and "fc1" not in lines[4]  # what is nothing is not said
    assert "First place: first; no interval overlaps its own." in lines
    assert "first leads second by 1.000, most of it by the term 'tail' and layer fc2." in lines


def test_a_tie_for_the_first_place_is_said_before_anything_else_is_claimed() -> None:
    names = ("a", "b", "c")
    tied = [
        candidate(n, i, 0.001 * i, ties=tuple(x for x in names if x != n))
        for i, n in enumerate(names, start=1)
    ]
    lines = lines_of(family(*tied))
    assert "First place is a tie, the intervals overlap: a, b, c." in lines
    assert not any("leads" in line for line in lines)
    header, row = lines[2], lines[3]
    assert row[header.index("ties with") :].startswith("2, 3")  # by their places


@pytest.mark.parametrize(("largest", "word"), [("small", "instead"), ("large", "too")])
def test_between_sizes_the_order_by_parameters_stands_beside(largest: str, word: str) -> None:
    sizes = (1, 2) if largest == "large" else (2, 1)
    members = (
        candidate("large", 1, 1.0, parameters=1e6, size_place=sizes[0]),
        candidate("small", 2, 2.0, parameters=1e3, size_place=sizes[1]),
    )
    lines = lines_of(family(*members, question=SIZES))
    by_size = "large, small" if largest == "large" else "small, large"
    assert f"By parameters, most first, {largest} is first {word}: {by_size}." in lines
    assert "1,000,000" in lines[3] and "6.00" in lines[3]


def test_families_are_not_ordered_among_each_other() -> None:
    alone = candidate("lone", None, 0.5, low=float("nan"), high=float("nan"), family="B")
    lines = lines_of(
        family(candidate("a", 1, 0.0), candidate("b", 2, 1.0)),
        family(alone, question=ALONE, label="B"),
        splits=("lone has other layers",),
    )
    assert lines[0] == "Family A, one architecture: they are alike."
    assert any(line.startswith("Without another candidate of their family") for line in lines)
    (said,) = [line for line in lines if line.startswith("No order across families")]
    assert "lone has other layers" in said
    only = lines_of(family(alone, question=ALONE, label="B"))
    assert only[0].startswith("One candidate, so there is nothing to rank; scores by weights-only")


def test_warnings_are_listed_under_the_short_names() -> None:
    members = (
        candidate("runs/a/model.pt", 1, 0.0),
        candidate("runs/b/model.pt", 2, 1.0, warnings=("one", "two"), status="looks untrained"),
    )
    lines = lines_of(family(*members))
    assert lines[-2:] == ["Beware:", "  b: one; two"]
    assert lines[4].endswith("looks untrained")
