"""Sentences at hand, without labels: lines of Shakespeare, and Python's own reference.

A line of tinyshakespeare is taken as it is; of the reference (`pydoc_data.topics`, which comes with
Python, and differs from version to version) the prose is cut into sentences. Either is of 6 to 40
words and taken once.
"""

import re
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from harness.data import find_file

FEWEST, MOST = 6, 40  # words
SOURCES = ("Shakespeare", "Python's reference")


def draw_sentences(folder: Path | None, count: int, *, seed: int = 0) -> dict[str, list[str]]:
    """So many of each source, at random; by source.

    Raises:
        FileNotFoundError: if the folder is not given or lacks the text.
        ValueError: if a source has too few.
    """
    play = find_file(folder, "tinyshakespeare.txt").read_text(encoding="utf-8").splitlines()
    found = {}
    for source, texts in zip(
        SOURCES, (play, split_topics("\n\n".join(topics.values()))), strict=True
    ):
        kept = sorted({text.strip() for text in texts if FEWEST <= len(text.split()) <= MOST})
        if len(kept) < count:
            raise ValueError(f"{source} has {len(kept)} sentences, {count} are needed")
        chosen = np.random.default_rng(seed).choice(len(kept), count, replace=False)
        found[source] = [kept[index] for index in chosen]
    return found


def split_topics(text: str) -> list[str]:
    """The sentences of the prose: of paragraphs that are neither code nor grammar nor headings."""
    sentences = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        prose = all(line[:1].isalpha() for line in lines) and "::=" not in paragraph
        if prose and not set(lines[-1:]) & {"=" * len(line) for line in lines}:
            joined = " ".join(" ".join(lines).split())
            sentences += re.split(r"(?<=[.!?])\s+(?=[A-Z])", joined)
    return [sentence for sentence in sentences if sentence.endswith((".", "!", "?"))]
