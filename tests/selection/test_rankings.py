"""A ranking as data: tables and JSON hold the same, under names as short as they can be."""

from __future__ import annotations

import json

import pytest

from wwopt.selection.families import SAME
from wwopt.selection.rankings import Ranking, shorten_names


def test_tables_and_json_hold_the_same(ranking: Ranking) -> None:
    frame = ranking.to_frame()
    document = json.loads(json.dumps(ranking.to_dict(), allow_nan=False))
    assert [row["candidate"] for row in document["candidates"]] == list(frame["candidate"])
    assert [row["score"] for row in document["candidates"]] == list(frame["score"])
    assert document["candidates"][0]["ties"] == list(next(iter(ranking)).ties)
    assert document["families"][0]["question"] == SAME
    assert len(ranking) == 3
    assert str(frame["place"].dtype) == "Int64"


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["runs/a/model.safetensors", "runs/b/model.safetensors"], ["a", "b"]),
        (["x/e-1.pt", "x/e-10.pt"], ["e-1", "e-10"]),
        (["x/a.pt", "y/b.pt"], ["x/a", "y/b"]),
        (["a", "a/b"], ["a", "a/b"]),
        (["/x/a", "/y/a"], ["/x", "/y"]),
        (["deep/alone.pt"], ["deep/alone.pt"]),
        (["runs:/1", "runs:/2"], ["1", "2"]),
        (["v1.0", "v2.0"], ["v1.0", "v2.0"]),
    ],
)
def test_names_lose_what_all_of_them_share(names: list[str], short: list[str]) -> None:
    assert list(shorten_names(names).values()) == short
