"""A study has one UUID, however often, from wherever and by however many threads it is asked."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna

from wwopt.study.identity import study_uuid


def test_a_study_keeps_its_uuid_and_another_study_has_another(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.create_study(study_name="mine", storage=storage)
    given = study_uuid(study)
    assert str(uuid.UUID(given)) == given
    assert study_uuid(optuna.load_study(study_name="mine", storage=storage)) == given
    assert study_uuid(optuna.create_study(study_name="other", storage=storage)) != given


def test_threads_that_ask_at_once_are_told_the_same() -> None:
    study = optuna.create_study()
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(study_uuid, [study] * 64))) == 1
