"""One command leaves the report: the one whose trial ended last."""

import optuna
from optuna.trial import TrialState

from wwopt.tuning.claims.leases import Worker
from wwopt.tuning.claims.places import claim, queue_place
from wwopt.tuning.ending import REPORTED_ATTR, is_last, lacks_report
from wwopt.tuning.workers.interruptions import interrupt


def test_of_two_commands_one_is_the_last() -> None:
    study = optuna.create_study()
    queue_place(study, 0)
    assert is_last(study, "a")  # nobody has ended anything
    first = claim(study, Worker("a"), target=2)
    second = claim(study, Worker("b"), target=2)
    assert first is not None and second is not None
    study.tell(second.number, 1.0)
    assert not is_last(study, "a") and not is_last(study, "b")  # one still runs
    study.tell(first.number, 1.0)
    assert is_last(study, "a") and not is_last(study, "b")


def test_who_ends_a_lost_trial_stands_in_for_the_dead() -> None:
    study = optuna.create_study()
    queue_place(study, 0)
    for _ in range(3):
        trial = claim(study, Worker("dead"), target=1)
        assert trial is not None
        interrupt(study, trial, "lost", worker=Worker("alive"), run=None)
    assert is_last(study, "alive") and not is_last(study, "dead")


def test_a_report_is_of_the_trials_that_there_are() -> None:
    study = optuna.create_study()
    assert lacks_report(study)
    study.set_user_attr(REPORTED_ATTR, 1)
    study.tell(study.ask(), 1.0)
    assert not lacks_report(study)
    queue_place(study, 1)
    running = claim(study, Worker("a"), target=2)
    assert running is not None and not lacks_report(study)  # whoever runs it will leave one
    study.tell(running.number, state=TrialState.PRUNED)
    assert lacks_report(study)
