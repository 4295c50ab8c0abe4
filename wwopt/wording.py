"""The same things are said in one way: numbers, lists of names, long names, others' errors."""

import math
from collections.abc import Sequence

UNKNOWN = "–"
LONGEST_NAME = 44  # characters of a name or a status in a table
LISTED = 5  # names in a sentence; the rest is counted
LONGEST_ERROR = 300  # characters; torch's messages go on for a page


def number(value: float | str | None, form: str) -> str:
    """A number in a format such as ".2f"; a dash where it is None or NaN, a text as it is."""
    if isinstance(value, str):
        return value
    return UNKNOWN if value is None or math.isnan(value) else format(value, form)


def plus_minus(value: float | None, error: float | None) -> str:
    """As "2.46 ± 0.16", two decimals; without the error where that is None or NaN."""
    known = error is not None and not math.isnan(error)
    return number(value, ".2f") + (f" ± {error:.2f}" if known else "")


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """A long name without its middle."""
    if len(name) <= longest:
        return name
    head = (longest - 1) // 2
    return f"{name[:head]}…{name[len(name) - (longest - 1 - head) :]}"


def write_names(names: Sequence[str], most: int = LISTED) -> str:
    """As "a, b and 3 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def count(many: int, noun: str) -> str:
    """As "1 trial" and "3 trials"."""
    return f"{many} {noun}" + "s" * (many != 1)


def first_line(error: BaseException, *, named: bool = False, longest: int = LONGEST_ERROR) -> str:
    """The first line of an error's message that holds a word; its type where there is none.

    Args:
        error: anybody's, whose message may be empty or a page.
        named: put the type in front, as in "ValueError: no such layer".
        longest: characters of the line.
    """
    kind = type(error).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return kind
    return f"{kind}: {lines[0][:longest]}" if named else lines[0][:longest]
