"""Join a study: whoever comes first creates it, the others wait until it is whole.

Optuna lets one process create a study of a name, so there is one that opens the parent run in
MLflow, chooses the sampler, and queues the first trial; the definition comes last and says that all
is there. What a study was defined by is kept with it, and resuming one that is defined otherwise is
refused: the values of the two would not mix.
"""

import json
import time
import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage
from sqlalchemy.exc import SQLAlchemyError

from wwopt.metrics.objective import SpectralObjective
from wwopt.study.errors import StudyError
from wwopt.study.score_version import ScoreError, held_score, keep_score
from wwopt.study.spec import StudySpec
from wwopt.study.textbook import TEXTBOOK_ATTR, textbook_params
from wwopt.study.tries import PLACE_ATTR
from wwopt.tracking import StudyRun, hide_passwords
from wwopt.tuning.claims.leases import Worker, is_dead
from wwopt.tuning.claims.places import raise_target
from wwopt.tuning.samplers.study_samplers import SAMPLER_ATTR, choose_study_sampler
from wwopt.wording import first_line

DEFINITION_ATTR = "wwopt.definition"
CREATOR_ATTR = "wwopt.creator"  # the lease of the worker that creates the study
CREATION = 60.0  # seconds that a study may take to be whole; MLflow's server may be slow
ANNOUNCED = 2.0  # seconds in which a worker that creates a study has said so
LOOK = 0.1  # seconds between two looks at a study that is being created


def join_study(
    spec: StudySpec,
    storage: BaseStorage,
    *,
    worker: Worker,
    trials: int | None,
    open_run: Callable[[optuna.Study], StudyRun],
) -> tuple[optuna.Study, StudyRun]:
    """Create or resume a study, and find its run in MLflow.

    Args:
        spec: the study.
        storage: Optuna's.
        worker: who joins.
        trials: that it shall have; None for what is kept with it.
        open_run: finds or creates the parent run.

    Raises:
        StudyError: if it exists and is defined otherwise, or nobody has said how many trials it
            shall have.
    """
    try:
        study, created = _create(spec, storage, worker, may_create=trials is not None)
        if not created:
            _wait_until_whole(study)
        known = study.user_attrs.get(DEFINITION_ATTR)
        _compare(spec, study, known)
        _keep_score(spec, study, known)
        run = open_run(study)
        target = raise_target(study, trials)
        if target == 0:
            raise StudyError(
                f"study {spec.name!r} does not say how many trials it shall have: pass --trials"
            )
        if known is None:
            _define(spec, study, target)
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = hide_passwords(first_line(error.__cause__ or error))
        raise StudyError(f"the storage refused study {spec.name!r}: {reason}") from error
    return study, run


def _create(
    spec: StudySpec, storage: BaseStorage, worker: Worker, *, may_create: bool
) -> tuple[optuna.Study, bool]:
    if not may_create:
        try:
            return optuna.load_study(study_name=spec.name, storage=storage), False
        except KeyError:
            raise StudyError(
                f"there is no study {spec.name!r} in the storage yet: start it with `wwopt tune`, "
                f"or pass --trials"
            ) from None
    try:
        study = optuna.create_study(
            study_name=spec.name, storage=storage, directions=spec.directions
        )
    except DuplicatedStudyError:
        return optuna.load_study(study_name=spec.name, storage=storage), False
    study.set_user_attr(CREATOR_ATTR, worker.lease(0))
    return study, True


def _wait_until_whole(study: optuna.Study) -> None:
    """Wait for whoever creates the study, unless that process is known to be dead."""
    begun = time.monotonic()
    while True:
        known = study.user_attrs
        creator = known.get(CREATOR_ATTR)
        plain = creator is None and study.get_trials(deepcopy=False)  # made by Optuna alone
        if DEFINITION_ATTR in known or plain:
            return
        patience = ANNOUNCED if creator is None else CREATION
        if is_dead(creator) or time.monotonic() - begun > patience:
            return
        time.sleep(LOOK)


def _define(spec: StudySpec, study: optuna.Study, target: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(_name_objectives(spec))
    space = spec.space_at(spec.conditions)
    study.set_user_attr(SAMPLER_ATTR, choose_study_sampler(spec, space, trials=target))
    if not study.get_trials(deepcopy=False):
        params = textbook_params(space, spec.textbook)
        study.enqueue_trial(params, user_attrs={TEXTBOOK_ATTR: True, PLACE_ATTR: 0})
    study.set_user_attr(DEFINITION_ATTR, _describe(spec))  # last: now it is whole


def _describe(spec: StudySpec) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(json.dumps(spec.describe()))  # as a database has it
    return described


def _compare(spec: StudySpec, study: optuna.Study, known: dict[str, Any] | None) -> None:
    ways = [direction.name.lower() for direction in study.directions]
    if len(study.directions) != len(spec.directions):
        raise StudyError(
            f"study {spec.name!r} exists with {len(study.directions)} objectives, not "
            f"{len(spec.directions)}: give it another name or another --out"
        )
    if study.directions != spec.directions:
        raise StudyError(
            f"study {spec.name!r} exists and is to {', '.join(ways)}, where scores are minimised: "
            f"give it another name or another --out"
        )
    if known is None:
        return
    # The objective is compared by itself.
    changed = [
        name
        for name, value in _describe(spec).items()
        if name != "objective" and _differs(known.get(name), value)
    ]
    if changed:
        raise StudyError(
            f"study {spec.name!r} exists with another {', '.join(changed)}: values of the two do "
            f"not mix; give it another name or another --out"
        )


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
