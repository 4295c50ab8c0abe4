"""Optuna's side of a study: open the database, create the study in it or resume it.

What a study was defined by is kept with it. Resuming one that is defined otherwise is refused: the
values of the two would not mix.
"""

import json
import warnings
from typing import Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from wwopt.metrics.objective import SpectralObjective
from wwopt.study.errors import StudyError
from wwopt.study.score_version import ScoreError, held_score, keep_score
from wwopt.study.spec import StudySpec
from wwopt.study.textbook import TEXTBOOK_ATTR, textbook_params
from wwopt.tracking import hide_password
from wwopt.tuning.study_samplers import SAMPLER_ATTR, choose_study_sampler
from wwopt.wording import first_line

DEFINITION_ATTR = "wwopt.definition"
HEARTBEAT_SECONDS, GRACE_SECONDS = 60, 180  # a trial silent for longer is taken for dead


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open Optuna's database, with a heartbeat that tells the trials of dead processes.

    Raises:
        StudyError: if it cannot be reached, or its driver is not installed.
    """
    arguments: dict[str, Any] = {}
    if url.startswith("sqlite"):
        arguments["connect_args"] = {"timeout": 60}  # seconds; a few processes share the file
    try:
        with warnings.catch_warnings():
            # The heartbeat is experimental in Optuna 5, and the only one that there is.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs=arguments,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
            )
    except (SQLAlchemyError, ImportError, ValueError, OSError) as error:
        raise StudyError(
            f"the storage {hide_password(url)} cannot be reached: {first_line(error)}"
        ) from error


def create_study(spec: StudySpec, storage: optuna.storages.RDBStorage, trials: int) -> optuna.Study:
    """Create or resume; refuse to resume what was defined otherwise."""
    try:
        study = optuna.create_study(
            study_name=spec.name,
            storage=storage,
            directions=spec.directions,
            load_if_exists=True,
        )
    except SQLAlchemyError as error:
        raise StudyError(f"the storage refused study {spec.name!r}: {error}") from error
    definition = json.loads(json.dumps(spec.describe()))
    known = study.user_attrs.get(DEFINITION_ATTR)
    if len(study.directions) != len(spec.directions):
        raise StudyError(
            f"study {spec.name!r} exists with {len(study.directions)} objectives, not "
            f"{len(spec.directions)}: give it another name or another --out"
        )
    _keep_score(spec, study, known)
    if known is None:
        study.set_user_attr(DEFINITION_ATTR, definition)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(_name_objectives(spec))
        space = spec.space_at(spec.conditions)
        study.set_user_attr(SAMPLER_ATTR, choose_study_sampler(spec, space, trials=trials))
        if not study.get_trials(deepcopy=False):
            params = textbook_params(space, spec.textbook)
            study.enqueue_trial(params, user_attrs={TEXTBOOK_ATTR: True})
        return study
    # The objective is compared by itself.
    changed = [n for n in definition if n != "objective" and _differs(known.get(n), definition[n])]
    if changed:
        raise StudyError(
            f"study {spec.name!r} exists with another {', '.join(changed)}: values of the two do "
            f"not mix; give it another name or another --out"
        )
    return study


def _differs(known: Any, now: Any) -> bool:
    """Whether a part of the definition is another one; what it did not state then may be stated."""
    if isinstance(known, dict) and isinstance(now, dict):
        return any(now.get(name) != value for name, value in known.items())
    return bool(known != now)


def _keep_score(spec: StudySpec, study: optuna.Study, known: dict[str, Any] | None) -> None:
    """Keep the objective that the study names; one that names none goes on under what it holds."""
    try:
        held = held_score(study)
        before = None if known is None else known["objective"]
        if held is None and before is not None:  # two objectives, begun with wwopt 0.1.0
            keep_score(study, SpectralObjective(**before))
        if spec.objective is not None:
            keep_score(study, spec.objective)
    except ScoreError as error:
        raise StudyError(str(error)) from error


def _name_objectives(spec: StudySpec) -> list[str]:
    """As Optuna's dashboard and plots call them."""
    return ["objective"] if spec.second is None else ["objective", spec.second]
