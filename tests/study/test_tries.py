"""Which try of a place counts."""

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from wwopt.study.tries import INTERRUPTED_ATTR, LOSSES_ATTR, is_replaced, losses_of, place_of


@pytest.mark.parametrize(
    ("state", "attributes", "replaced"),
    [
        (TrialState.FAIL, {}, False),  # it failed by itself
        (TrialState.FAIL, {INTERRUPTED_ATTR: "lost"}, True),
        (TrialState.FAIL, {INTERRUPTED_ATTR: "lost", LOSSES_ATTR: 1}, True),
        (TrialState.FAIL, {INTERRUPTED_ATTR: "lost", LOSSES_ATTR: 2}, False),  # the third time
        (TrialState.FAIL, {INTERRUPTED_ATTR: "stopped", LOSSES_ATTR: 2}, True),
        (TrialState.PRUNED, {INTERRUPTED_ATTR: "lost"}, False),  # a false alarm: it went on
        (TrialState.RUNNING, {INTERRUPTED_ATTR: "lost"}, False),
    ],
)
def test_an_interrupted_trial_is_replaced_unless_it_died_too_often(
    state: TrialState, attributes: dict[str, Any], replaced: bool
) -> None:
    trial = create_trial(state=state, user_attrs=attributes, value=None)
    assert is_replaced(trial) is replaced


def test_a_trial_has_the_place_of_its_number_unless_it_says_otherwise() -> None:
    study = optuna.create_study()
    trials = [study.ask(), study.ask()]
    trials[1].set_user_attr("wwopt.place", 7)
    assert [place_of(trial) for trial in trials] == [0, 7]
    assert losses_of(study.trials[0]) == 0
