"""Whoever comes first creates a study, the others wait for it; what differs is refused."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from torch import nn

import wwopt
from wwopt.study.errors import StudyError
from wwopt.study.identity import study_uuid
from wwopt.study.textbook import TEXTBOOK_ATTR
from wwopt.study.tries import place_of
from wwopt.tracking import StudyRun
from wwopt.tuning.claims.joining import CREATOR_ATTR, DEFINITION_ATTR, join_study
from wwopt.tuning.claims.leases import Worker
from wwopt.tuning.samplers.study_samplers import SAMPLER_ATTR
from wwopt.tuning.storage import open_storage


def spec_of(**options: Any) -> wwopt.StudySpec:
    model = nn.Sequential(nn.Linear(60, 60))
    ranges = {"lr": (0.1, 1.0), "dropout": None, "momentum": None}
    space = wwopt.LayerSpace.from_model(model, **(ranges | options.pop("space", {})))
    return wwopt.StudySpec("mine", print, space, **options)


def open_run(study: optuna.Study) -> StudyRun:
    return StudyRun("nowhere", "0", "run", study_uuid(study))


def join(
    storage: optuna.storages.BaseStorage, spec: wwopt.StudySpec | None = None, **options: Any
) -> optuna.Study:
    given: dict[str, Any] = {"worker": Worker("me"), "trials": 3, "open_run": open_run}
    return join_study(spec or spec_of(), storage, **(given | options))[0]


def test_many_that_start_at_once_make_one_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    opened: list[str] = []

    def start(_index: int) -> optuna.Study:
        def slowly(study: optuna.Study) -> StudyRun:
            opened.append(study.user_attrs.get(DEFINITION_ATTR, "none yet"))
            return open_run(study)

        return join(open_storage(url), open_run=slowly)

    with ThreadPoolExecutor(6) as threads:
        studies = list(threads.map(start, range(6)))
    assert len({study_uuid(study) for study in studies}) == 1
    assert opened.count("none yet") == 1  # the others found the run that this one opened
    assert [place_of(t) for t in studies[0].trials] == [0]
    assert studies[0].trials[0].user_attrs[TEXTBOOK_ATTR] is True
    assert studies[0].user_attrs[SAMPLER_ATTR] == "gp"


def test_a_study_whose_creator_died_is_finished_by_the_next(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    lock = tmp_path / "lock"
    lock.touch()  # nobody holds it
    half = optuna.create_study(study_name="mine", storage=storage)
    half.set_user_attr(CREATOR_ATTR, Worker("dead", lock=str(lock)).lease(0))
    begun = time.monotonic()
    study = join(storage)
    assert time.monotonic() - begun < 10.0  # and not the minute that a creator may take
    assert DEFINITION_ATTR in study.user_attrs and len(study.trials) == 1


def test_one_that_is_being_created_is_waited_for(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    half = optuna.create_study(study_name="mine", storage=storage)
    half.set_user_attr(CREATOR_ATTR, Worker("alive").lease(0))
    asked = threading.Event()
    found: list[optuna.Study] = []

    def second() -> None:
        asked.set()
        found.append(join(storage))

    thread = threading.Thread(target=second)
    thread.start()
    assert asked.wait(30) and not found
    whole = join(open_storage(f"sqlite:///{tmp_path / 'other.db'}"))
    half.set_user_attr(DEFINITION_ATTR, whole.user_attrs[DEFINITION_ATTR])
    thread.join(60)
    assert found and not found[0].trials  # it left the first trial to the creator


def test_a_worker_does_not_create_what_nobody_has_asked_for(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    with pytest.raises(StudyError, match="there is no study 'mine' in the storage yet: start it"):
        join(storage, trials=None)
    optuna.create_study(study_name="mine", storage=storage).add_trial(
        optuna.trial.create_trial(value=1.0)
    )
    with pytest.raises(StudyError, match="does not say how many trials it shall have"):
        join(storage, trials=None)
    assert join(storage, trials=4).user_attrs["wwopt.trials"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": {"lr": (0.1, 2.0)}}, "exists with another space"),
        ({"guards": None}, "exists with another guards"),
        ({"second": "size"}, "exists with 1 objectives, not 2"),
        ({"conditions": wwopt.Conditions(seed=0, epochs=3)}, "exists with another conditions"),
        ({"objective": wwopt.SpectralObjective(penalty=20.0)}, r"penalty 10\.0, not 20\.0"),
    ],
)
def test_another_definition_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    join(storage, spec_of(objective=wwopt.SpectralObjective()))
    with pytest.raises(StudyError, match=message):
        join(storage, spec_of(**options))


def test_a_study_of_another_direction_is_refused(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")
    optuna.create_study(study_name="mine", storage=storage, direction="maximize")
    with pytest.raises(StudyError, match="exists and is to maximize, where scores are minimised"):
        join(storage)
