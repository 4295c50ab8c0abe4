"""Which score guides a study that names none, and what the other scores say of the same network.

Where a training loss is logged, the score that reads it too: in closed loops at equal CPU time a
search guided by it ends with the lowest error of all, while one that minimises the weights-only
score gains nothing on choosing among as many random networks (docs/studies.md). The first trial's
first step decides; this is kept with the study, and a later trial that differs fails with that
reason.
"""

import math

import optuna

from wwopt.metrics.model_metrics import OK, ModelMetrics
from wwopt.metrics.objective import PRESETS, READS, SpectralObjective
from wwopt.study.score_version import ScoreError, held_score, keep_score
from wwopt.tracking.artifacts import read_settings
from wwopt.tracking.keys import GUIDE_TAG
from wwopt.tracking.tracked_studies import TrackedStudy

GUIDE_ATTR = "wwopt.guide"  # of the Optuna study: how its score was chosen, if no one named it
FIRST_STEP = "first step"
TRAIN_LOSS = "training loss"  # the score that everybody has, beside the presets


def settled_score(trial: optuna.trial.BaseTrial) -> SpectralObjective | None:
    """The score that a trial is under before its first step; None where that step decides.

    Raises:
        ScoreError: if the study holds values of a score that this version cannot compute.
    """
    study = getattr(trial, "study", None)
    held = None if study is None else held_score(study)
    if held is None or study is None or study.user_attrs.get(GUIDE_ATTR) == FIRST_STEP:
        return None
    return held


def settle_score(trial: optuna.trial.BaseTrial, *, train_loss: float | None) -> SpectralObjective:
    """The score of a trial by its first step, kept with the study.

    Validation-free where a training loss is logged. Weights-only without one, where it is negative,
    as log-likelihoods may be, which that score cannot read, and in a study of several objectives:
    the loss may be another one of them.

    Args:
        trial: Optuna's.
        train_loss: of its first step; None where none was logged.

    Raises:
        ScoreError: if the study's first trial decided otherwise.
    """
    study = getattr(trial, "study", None)
    several = study is not None and len(study.directions) > 1
    reads_loss = train_loss is not None and not train_loss < 0.0 and not several
    ours = SpectralObjective("validation-free" if reads_loss else "weights-only")
    if study is None or several:
        return ours
    held = held_score(study)
    if held is None:
        study.set_user_attr(GUIDE_ATTR, FIRST_STEP)
        return keep_score(study, ours)
    if held.preset != ours.preset:
        logged = "none" if train_loss is None else f"{train_loss:g}"
        first = "one" if held.reads_train_loss else "none that is at least 0"
        raise ScoreError(
            f"study {study.study_name!r} is guided by {held.preset!r}, which reads "
            f"{READS[held.preset]}: its first trial logged {first} as training loss, this one "
            f"{logged}. Values of the two do not mix: log it in all trials, or name the objective"
        )
    return held


def tracked_score(study: TrackedStudy) -> SpectralObjective | None:
    """The score that guided a study in MLflow, by its trials' tags or its settings; None if unsaid.

    Of a study begun with wwopt 0.1.0 that is the one under which it goes on.
    """
    settings = read_settings(study).get("objective")
    if isinstance(settings, dict):
        try:
            return SpectralObjective(**settings)
        except (TypeError, ValueError):
            return None
    preset = study.tags.get(GUIDE_TAG)
    return SpectralObjective(preset) if preset in PRESETS else None


def score_by_all(
    metrics: ModelMetrics, *, train_loss: float | None, version: int
) -> dict[str, float]:
    """What every score says of a network, lower is better: those that can be fed, and finite ones.

    Args:
        metrics: of the network.
        train_loss: the last one; None without.
        version: of the formulas.

    Returns:
        Preset, or "training loss" → value.
    """
    known = train_loss is not None and math.isfinite(train_loss) and train_loss >= 0.0
    found = {} if train_loss is None else {TRAIN_LOSS: float(train_loss)}
    for preset in PRESETS:
        score = SpectralObjective(preset, version=version)
        if score.reads_train_loss and not known:
            continue
        result = score(metrics, train_loss=train_loss)
        if result.status == OK:
            found[preset] = result.value
    return {name: value for name, value in found.items() if math.isfinite(value)}
