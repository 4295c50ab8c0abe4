"""Markdown of a check: what broke first, in a table that no layer's name can leave."""

import html
import re
from dataclasses import replace

import pytest
from fixtures.weights.damaged_models import edited, model

import wwopt
from wwopt.gate.history import Drift
from wwopt.gate.markdown import escape, format_markdown, say_verdict

DRIFT = Drift("fc3", "change/ks", 0.05, 0.01, z=9.0, limit=5.0, past=7)


def rows(text: str) -> list[list[str]]:
    found = [line for line in text.splitlines() if re.match(r"\| (?!---)", line)]
    return [[html.unescape(cell.strip()) for cell in row.strip("|").split("|")] for row in found]


def test_the_verdict_the_list_and_the_table() -> None:
    result = wwopt.check(model(), edited(lambda w: w * 4.0, "fc2"))
    text = format_markdown(result, [DRIFT], before="good.pt", after="bad.pt")
    assert text.startswith("### wwopt check: 1 of 4 layers broke, 1 of 4 layers drifted\n")
    assert "good.pt → bad.pt" in text and "- **fc2** broke: scaled by 4\n" in text
    assert html.unescape(escape(DRIFT.words)) in html.unescape(text)
    head, *layers = rows(text)
    assert head[:3] == ["layer", "verdict", "scale"]
    assert [row[:3] for row in layers] == [
        ["fc2", "broken", "4.000"],
        ["fc3", "drifted", "1.000"],
        ["fc1", "passed", "1.000"],
        ["head", "passed", "1.000"],
    ]
    assert say_verdict(wwopt.check(model(), model())) == "passed, 4 layers"


def test_a_long_network_is_cut_and_what_broke_stays() -> None:
    result = wwopt.check(model(), edited(lambda w: w * 4.0, "head"))
    text = format_markdown(result, most=1)
    assert [row[0] for row in rows(text)[1:]] == ["head"] and "and 3 layers more" in text
    every = replace(
        result,
        layers=tuple(replace(x, findings=result.layers[3].findings) for x in result.layers),
    )
    assert "- and 3 more\n" in format_markdown(every, most=1)


@pytest.mark.parametrize(
    "name", ["a|b", "**x**", "<img src=x>", "[a](javascript:x)", "`x`", "# h", "@all", "a\n| b |"]
)
def test_a_name_is_shown_and_never_read(name: str) -> None:
    shown = escape(name)
    assert html.unescape(shown) == " ".join(name.split())
    assert not re.search(r"[|*<>`\[\]#@\n]", re.sub(r"&#\d+;", "", shown))
