"""A score has a version, and a study holds values of one: those of two do not mix.

What the score is, options and version, is stored with the study at its first trial, and the study
goes on under it, old versions included. A trial that names another is refused before it trains, in
`tune` and in plain Optuna alike. A study of several objectives is the exception: each of its values
may be a score of its own.
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
    # As a database gives it back.
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(objective)))
    return plain


def held_score(study: optuna.Study) -> SpectralObjective | None:
    """The score whose values a study holds; None where it holds none.

    Raises:
        ScoreError: if this version of wwopt cannot compute it.
    """
    known = study.user_attrs.get(SCORE_ATTR)
    if known is None:
        return None
    try:
        return SpectralObjective(**known)
    except (TypeError, ValueError) as error:
        raise ScoreError(
            f"study {study.study_name!r} holds values of another score, which this version of "
            f"wwopt cannot compute ({error}); give the study another name"
        ) from error


def keep_score(
    study: optuna.Study, objective: SpectralObjective, *, alone: bool = True
) -> SpectralObjective:
    """Store the score with the study, or compare it with what is stored.

    Args:
        study: Optuna's.
        objective: that is wanted.
        alone: whether a study of several objectives has this one score too, as those of `tune` do;
            in another one each value may be a score of its own.

    Returns:
        The score to use: the given one, under the version that the study holds.

    Raises:
        ScoreError: if the study holds values of another score.
    """
    many = len(study.directions) > 1
    held = held_score(study)
    if held is None:
        if not many or alone:
            study.set_user_attr(SCORE_ATTR, describe_score(objective))
        return objective
    ours, known = describe_score(objective), describe_score(held)
    changed = [
        f"{name} {known[name]!r}, not {ours[name]!r}"
        for name in sorted(ours)
        if known[name] != ours[name] and name != "version"
    ]
    if changed and many and not alone:
        return objective
    if changed:
        raise ScoreError(
            f"study {study.study_name!r} holds values of another score: {', '.join(changed)}; "
            f"values of the two do not mix, so give the study another name"
        )
    return held
