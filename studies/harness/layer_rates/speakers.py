"""Who speaks these two lines of Shakespeare? The six busiest speakers of tinyshakespeare.

A speech is a paragraph under its speaker's name, cut into passages of two lines; those of ten words
or more are the examples. Six speakers of different plays, with 600 lines or more each, leave 2,000
passages; one line alone tells so little that the encoder learns nothing from 1,000 of them. This,
and how the text is cut, was fixed before any arm was trained. Passages of one speech are always of
one part, training, validation or test.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.data import Data, find_file
from harness.layer_rates.minilm import tokenize

SPEAKERS = 6
LINES, WORDS = 2, 10  # of a passage; fewer words could be anybody's
LENGTH = 32  # tokens; longer passages are cut
TRAINING, VALIDATION, TEST = 700, 250, 900  # passages


@dataclass(frozen=True)
class Speech:
    """What somebody says before somebody else speaks."""

    speaker: str
    passages: tuple[str, ...]


def read_speeches(text: str) -> list[Speech]:
    """The speeches of the busiest speakers that hold a passage, in the order of the text."""
    counts = Counter[str]()
    found = []
    for paragraph in text.split("\n\n"):
        head, *lines = paragraph.strip().split("\n")
        if not head.endswith(":"):
            continue
        counts[head] += len(lines)
        pieces = [" ".join(lines[i : i + LINES]) for i in range(0, len(lines), LINES)]
        kept = tuple(piece for piece in pieces if len(piece.split()) >= WORDS)
        found.append(Speech(head, kept))
    busiest = {speaker for speaker, _ in counts.most_common(SPEAKERS)}
    return [speech for speech in found if speech.speaker in busiest and speech.passages]


def load_speakers(folder: Path | None, seed: int) -> Data:
    """Token numbers, (passages, LENGTH), and speakers as numbers; cut anew by each seed.

    Raises:
        FileNotFoundError: if the folder is not given or lacks the text, or MiniLM is not installed.
        ValueError: if the text is too short.
    """
    text = find_file(folder, "tinyshakespeare.txt").read_text(encoding="utf-8")
    parts = cut_parts(read_speeches(text), (TRAINING, VALIDATION, TEST), seed=seed)
    made = [(tokenize(passages, length=LENGTH), torch.tensor(who)) for passages, who in parts]
    return Data(*made)


def cut_parts(
    speeches: Sequence[Speech], counts: Sequence[int], *, seed: int
) -> list[tuple[list[str], list[int]]]:
    """Passages and their speakers, numbered by the alphabet, of as many parts as counts.

    Args:
        speeches: each goes into one part; of the last one of a part some passages may be left out.
        counts: passages of each part.
        seed: of the speeches' order.

    Raises:
        ValueError: if there are too few passages.
    """
    names = sorted({speech.speaker for speech in speeches})
    order = iter(np.random.default_rng(seed).permutation(len(speeches)))
    parts = []
    for count in counts:
        passages: list[str] = []
        speakers: list[int] = []
        while len(passages) < count:
            index = next(order, None)
            if index is None:
                raise ValueError(f"{sum(counts)} passages are needed, the text has too few")
            passages += speeches[index].passages
            speakers += [names.index(speeches[index].speaker)] * len(speeches[index].passages)
        parts.append((passages[:count], speakers[:count]))
    return parts
