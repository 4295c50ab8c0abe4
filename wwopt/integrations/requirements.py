"""What the callbacks need: a framework that is there and new enough, a recorder, a rhythm."""

import re
from typing import Any, Literal

Every = int | Literal["epoch"]  # optimizer steps between two records, or each epoch

AT_LEAST = {"transformers": (5, 0), "lightning": (2, 4)}  # extra → the oldest version tried


def explain_missing(extra: str, version: str | None = None) -> str:
    """What to do where a framework is missing, or too old."""
    major, minor = AT_LEAST[extra]
    found = "and it is not installed" if version is None else f"and this is {version}"
    return (
        f"wwopt.integrations needs {extra} {major}.{minor} or later, {found}: "
        f"pip install 'wwopt[{extra}]'"
    )


def check_version(extra: str, version: str) -> None:
    """Refuse a framework that is too old.

    Raises:
        ImportError: which names the extra.
    """
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers < AT_LEAST[extra]:
        raise ImportError(explain_missing(extra, version))


def check_arguments(callback: str, recorder: Any, every: Every) -> None:
    """Refuse a callback that cannot record.

    Raises:
        TypeError: if there is no recorder.
        ValueError: if the rhythm is none.
    """
    if not callable(getattr(recorder, "step", None)):
        raise TypeError(
            f"{callback} needs a recorder, as `with wwopt.record(trial) as recorder:` or a study's "
            f"`train` gives one, got {recorder!r}"
        )
    if every != "epoch" and (not isinstance(every, int) or every < 1):
        raise ValueError(f"every must be a number of optimizer steps or 'epoch', got {every!r}")
