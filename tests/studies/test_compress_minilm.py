"""The machinery of `compress_minilm.py`: how far embeddings move, and sentences at hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from compress_minilm import tell
from harness.embeddings.agreement import NEAREST, compare
from harness.embeddings.sentences import FEWEST, MOST, SOURCES, draw_sentences, split_topics


def draw(seed: int, count: int = 60, width: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, width, generator=generator))


def test_what_does_not_move_agrees_wholly() -> None:
    found = compare(draw(0), draw(0))
    np.testing.assert_allclose(found.cosines, 1.0, atol=1e-6)
    assert found.ranks == pytest.approx(1.0)
    assert (found.nearest == 1.0).all() and (found.overlap == 1.0).all()


def test_a_rotation_moves_embeddings_and_no_similarity() -> None:
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(1)))[0]
    found = compare(draw(0), draw(0) @ rotation)
    assert abs(found.cosines.mean()) < 0.5
    assert found.ranks > 0.999 and found.nearest.mean() > 0.95 and found.overlap.mean() > 0.95


def test_unrelated_embeddings_agree_by_chance() -> None:
    found = compare(draw(0), draw(1))
    assert abs(found.ranks) < 0.1
    assert found.overlap.mean() == pytest.approx(NEAREST / 59, abs=0.06)
    assert set(np.unique(found.nearest)) <= {0.0, 1.0} and found.nearest.mean() < 0.15


def test_neighbours_by_hand() -> None:
    degrees = torch.tensor([0.0, 10.0, 30.0, 90.0]).deg2rad()
    before = torch.stack([degrees.cos(), degrees.sin()], 1)
    moved = torch.tensor([0.0, 25.0, 30.0, 90.0]).deg2rad()
    found = compare(before, torch.stack([moved.cos(), moved.sin()], 1))
    assert found.nearest.tolist() == [1.0, 0.0, 1.0, 1.0]  # of the second it was the first
    np.testing.assert_allclose(found.cosines[1], np.cos(np.deg2rad(15.0)), rtol=1e-6)


def test_a_row_has_both_sources() -> None:
    row = tell({"a": compare(draw(0), draw(0)), "b": compare(draw(1), draw(2))})
    assert row["ranks"].startswith("1.000 and ")
    assert row["same nearest"].startswith("0.5")


def test_prose_is_told_from_code_and_grammar() -> None:
    text = (
        "The heading\n***********\n\n"
        "The first sentence is\nhere. And the second (e.g. this) one!\n\n"
        '   print("Code is none. Nor this.")\n\nstmt ::= "a." | "b."\n\nNo end'
    )
    assert split_topics(text) == ["The first sentence is here.", "And the second (e.g. this) one!"]


def test_sentences_are_drawn_once_and_the_same_each_time(tmp_path: Path) -> None:
    lines = [f"line {i} of a play that nobody wrote" for i in range(30)] * 2 + ["too short"]
    (tmp_path / "tinyshakespeare.txt").write_text("\n".join(lines), encoding="utf-8")
    found = draw_sentences(tmp_path, 20)
    assert found == draw_sentences(tmp_path, 20) and list(found) == list(SOURCES)
    for texts in found.values():
        assert len(set(texts)) == 20
        assert all(FEWEST <= len(text.split()) <= MOST for text in texts)
    with pytest.raises(ValueError, match="Shakespeare has 30 sentences, 31 are needed"):
        draw_sentences(tmp_path, 31)
