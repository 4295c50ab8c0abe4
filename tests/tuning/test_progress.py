"""A bar counts trials whoever runs them, and says why one failed."""

import optuna
import pytest
from optuna.trial import TrialState

from wwopt.study.tries import INTERRUPTED_ATTR
from wwopt.tuning.progress import Progress


def test_trials_are_told_once_and_interrupted_ones_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = optuna.create_study(study_name="mine")
    study.tell(study.ask(), 3.0)
    with Progress(study, target=4, shown=True, one_order=True) as told:
        study.tell(study.ask(), 2.0)
        failed, stopped = study.ask(), study.ask()
        failed.set_user_attr("error", "OSError: no disk")
        stopped.set_user_attr(INTERRUPTED_ATTR, "stopped")
        study.tell(failed, state=TrialState.FAIL)
        study.tell(stopped, state=TrialState.FAIL)
        for _ in range(2):
            told.look()
    said = capsys.readouterr().err
    assert said.count("trial 2 failed: OSError: no disk\n") == 1 and "trial 3" not in said
    assert "3/4" in said and "4/4" not in said and "best 2.0000" in said


def test_a_refused_trial_is_not_the_best_and_of_many_orders_there_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = optuna.create_study(study_name="mine")
    study.tell(study.ask(), 3.0)
    with Progress(study, target=2, shown=True, one_order=False) as told:
        trial = study.ask()
        trial.set_user_attr("constraints", {"traps": 1.0})
        study.tell(trial, 1.0)
        told.look()
    said = capsys.readouterr().err
    assert "lowest 3.0000" in said and "1.0000" not in said and "best" not in said


def test_memorised_labels_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study(study_name="mine")
    with Progress(study, target=4, shown=False, one_order=True) as told:
        for guards in ({"traps": 1.0, "memorising": 1.0}, {"memorising": 0.5}, {"memorising": 0.5}):
            trial = study.ask()
            trial.set_user_attr("constraints", guards)
            study.tell(trial, 1.0)
            told.look()
    said = capsys.readouterr().err
    assert said.count("labels are memorised") == 1
    assert "trial 1 is refused: its training loss fell, slowed" in said
