"""Notes for optuna-dashboard's users: the study's summary, and the layer table of its best trial.

The dashboard keeps notes in attributes of the study that are its own, so they are written by its
own function, and only where the package `optuna-dashboard` is installed. Everything else that it
shows is there without: each trial's terms, alphas and layers are user attributes.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import optuna

from wwopt.metrics.model_metrics import OK
from wwopt.study.trial.trial_summary import describe_trial


def write_notes(study: optuna.Study, best: optuna.trial.FrozenTrial | None) -> bool:
    """Write the notes of a study and of its best trial, where the dashboard is installed.

    Args:
        study: with its storage.
        best: its best trial; None without any.

    Returns:
        Whether they were written.
    """
    if best is None or find_spec("optuna_dashboard") is None:
        return False
    from optuna_dashboard import save_note

    note = describe(best)
    save_note(study, f"**Best: trial {best.number}.** {note}")
    save_note(optuna.Trial(study, best._trial_id), note)  # which it is may change
    return True


def describe(trial: optuna.trial.FrozenTrial) -> str:
    """A trial in Markdown, from the attributes that the recorder left."""
    attributes: Mapping[str, Any] = trial.user_attrs
    return describe_trial(
        trial.values[0],
        attributes.get("terms", {}),
        attributes.get("layers", {}),
        status=attributes.get("status", OK),
        hyperparameters=attributes.get("hyperparameters", {}),
    )
