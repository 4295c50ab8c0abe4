"""A study is kept with its definition, in SQLite or PostgreSQL; another one is refused."""

import gc
from pathlib import Path

import optuna
import pytest
from fixtures.studies.quick_studies import write_tiny_study
from fixtures.studies.tuned_folders import values_of
from torch import nn

from wwopt.metrics.objective import SpectralObjective
from wwopt.study.errors import StudyError
from wwopt.study.score_version import held_score
from wwopt.study.trial.recording import record
from wwopt.tuning.storage import open_storage
from wwopt.tuning.tuning import tune


def test_another_definition_under_the_same_name_is_refused(study_file: str, tmp_path: Path) -> None:
    tune(study_file, trials=1, out=tmp_path / "out", progress=False)
    write_tiny_study(tmp_path, {"lr=(.01, 1.)": "lr=(.01, 2.)"})
    with pytest.raises(StudyError, match="study 'tiny' exists with another space"):
        tune(study_file, trials=2, out=tmp_path / "out", progress=False)


def test_guards_second_objective_and_score_belong_to_a_study(tmp_path: Path) -> None:
    plain = {"epochs=4),": "epochs=4), metric=None,"}
    path = write_tiny_study(tmp_path, plain)
    tune(path, trials=1, out=tmp_path / "out", progress=False)
    for before, after, message in (
        ("metric=None", 'second="size"', "exists with 1 objectives, not 2"),
        ("metric=None", "guards=wwopt.Guards(trap_z=5.)", "exists with another guards"),
        ("metric=None", "guards=None", "exists with another guards"),
        ("metric=None", "objective=wwopt.SpectralObjective(penalty=20.)", r"penalty 10\.0, not 20"),
    ):
        write_tiny_study(tmp_path, plain | {before: after})
        with pytest.raises(StudyError, match=message):
            tune(path, trials=2, out=tmp_path / "out", progress=False)


def test_a_study_goes_on_under_the_score_that_it_holds_and_no_other(
    study_file: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    url = f"sqlite:///{tmp_path / 'out' / 'optuna.db'}"
    filled = optuna.create_study(study_name="tiny", storage=url)
    net = nn.Linear(64, 80)
    with record(filled.ask(), objective=SpectralObjective(penalty=20.0), epochs=1) as recorder:
        recorder.step(net)
    named = {"epochs=4),": "epochs=4), objective=wwopt.SpectralObjective(),"}
    with pytest.raises(StudyError, match=r"another score: penalty 20\.0, not 10\.0"):
        tune(write_tiny_study(tmp_path, named), trials=2, out=tmp_path / "out", progress=False)
    write_tiny_study(tmp_path)
    found = tune(study_file, trials=2, out=tmp_path / "out", progress=False)
    assert held_score(found.study) == SpectralObjective(penalty=20.0)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_jobs_on_a_real_postgresql(study_file: str, tmp_path: Path, postgres: str) -> None:
    result = tune(study_file, trials=6, out=tmp_path, storage=postgres, jobs=2, progress=False)
    assert [t.number for t in result.study.trials] == list(range(6))
    assert not (tmp_path / "optuna.db").exists()
    storage = open_storage(postgres)
    again = optuna.load_study(study_name="tiny", storage=storage)
    assert values_of(again) == values_of(result.study)
    # Optuna leaves its connections to the garbage collector, which psycopg warns of.
    storage.engine.dispose()  # type: ignore[attr-defined]
    del result, again, storage
    gc.collect()
