"""A score has a version, and a study holds values of one: those of two do not mix.

What the score is, options and version, is stored with the study at its first trial. A trial under
another score is refused before it trains, in `tune` and in plain Optuna alike. A study of several
objectives is the exception: each of its values may be a score of its own.
"""

import dataclasses
import json
from typing import Any

import optuna

from wwopt.metrics.objective import SpectralObjective

SCORE_ATTR = "wwopt.score"  # user attribute of the Optuna study


class ScoreError(ValueError):
    """A study holds values of another score; the message says what differs."""


def describe_score(objective: SpectralObjective) -> dict[str, Any]:
    """What two trials must have in common for their values to be comparable, as plain data."""
    described = {**dataclasses.asdict(objective), "version": objective.version}
    plain: dict[str, Any] = json.loads(json.dumps(described))  # as a database gives it back
    return plain


def keep_score(study: optuna.Study, objective: SpectralObjective) -> None:
    """Store the score with the study, or compare it with what is stored.

    Raises:
        ScoreError: if the study holds values of another score.
    """
    if len(study.directions) > 1:
        return
    ours, known = describe_score(objective), study.user_attrs.get(SCORE_ATTR)
    if known is None:
        study.set_user_attr(SCORE_ATTR, ours)
        return
    changed = [
        f"{name} {known.get(name)!r}, not {ours.get(name)!r}"
        for name in sorted({*known, *ours})
        if known.get(name) != ours.get(name)
    ]
    if changed:
        raise ScoreError(
            f"study {study.study_name!r} holds values of another score: {', '.join(changed)}; "
            f"values of the two do not mix, so give the study another name"
        )
