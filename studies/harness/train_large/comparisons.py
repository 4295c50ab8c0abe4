"""Does a large network, compressed to the bytes of a small one, do better than the small one?

Both are chosen by validation data, size and way of compression alike, as means over seeds; what is
told is the quality on test data, paired by seed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.score_statistics import Array
from harness.train_large.compressing import FLOAT, INT8, Compressed, Way
from harness.train_large.tasks import Size

Found = Mapping[Size, Sequence[Sequence[Compressed]]]  # size → seed → way


@dataclass(frozen=True)
class Choice:
    """What is kept of one size."""

    size: Size
    way: Way
    bytes: int  # the most of any seed
    validation: float  # mean over seeds
    test: Array  # shape (seeds,)


def list_choices(found: Found) -> list[Choice]:
    """Every size in every way, over all seeds."""
    choices = []
    for size, seeds in found.items():
        for same in zip(*seeds, strict=True):
            assert len({each.way for each in same}) == 1
            choices.append(
                Choice(
                    size=size,
                    way=same[0].way,
                    bytes=max(each.bytes for each in same),
                    validation=float(np.mean([each.validation for each in same])),
                    test=np.array([each.test for each in same]),
                )
            )
    return choices


def choose(choices: Iterable[Choice], limit: float) -> Choice | None:
    """Of those within so many bytes the best by validation data; None if none is."""
    return min(
        (each for each in choices if each.bytes <= limit),
        key=lambda each: each.validation,
        default=None,
    )


@dataclass(frozen=True)
class Duel:
    """The best small network at its own bytes against the best larger one compressed to them."""

    bytes: int
    small: Choice
    large: Choice


def fight(found: Found) -> list[Duel]:
    """One duel at the bytes of each size but the largest, as it is and with 8 bits.

    The small side is free to take a smaller network, and 8 bits in place of floats; the large side
    is every larger size in every way.
    """
    choices = list_choices(found)
    own = {(each.size, each.way): each.bytes for each in choices}
    sizes = sorted(found, key=lambda size: own[size, FLOAT])
    duels = []
    for way in (FLOAT, INT8):
        for place, size in enumerate(sizes[:-1]):
            limit = own[size, way]
            plain = (FLOAT, INT8) if way == INT8 else (FLOAT,)
            small = choose(
                (c for c in choices if c.size in sizes[: place + 1] and c.way in plain), limit
            )
            large = choose((c for c in choices if c.size in sizes[place + 1 :]), limit)
            if small is not None and large is not None:
                duels.append(Duel(limit, small, large))
    return duels


def find_front(choices: Iterable[Choice]) -> list[Choice]:
    """Those that no smaller file matches on validation data, the smallest first."""
    front: list[Choice] = []
    for each in sorted(choices, key=lambda each: (each.bytes, each.validation)):
        if not front or each.validation < front[-1].validation:
            front.append(each)
    return front
