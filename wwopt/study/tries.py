"""A trial that was interrupted is tried again: what its tries share, and which of them counts.

A study has places, 0 to the number of trials that it shall have less one, and each is filled once.
Where nothing is interrupted, a trial's place is its number in Optuna. A trial whose process died or
was stopped fails in Optuna, and another one takes its place: with its values, its seed and its
checkpoint folder. What depends on which trial it is (seeds, the layer that a refining search moves)
follows the place, so that a study that was interrupted ends as one that was not.
"""

from typing import Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

PLACE_ATTR = "wwopt.place"  # user attributes of Optuna's trials
SEED_ATTR = "wwopt.seed"  # of the first try, for all of them
LOSSES_ATTR = "wwopt.losses"  # how many tries before this one died with their process
INTERRUPTED_ATTR = "wwopt.interrupted"  # how this try was; absent if it was not

Interruption = Literal[
    "stopped",  # by a signal: its process was alive, and said so
    "lost",  # its process died, or was not heard of for too long
]


class LostProcess(KeyboardInterrupt):  # as its base, no error of the trial
    """A process that this training needs has died: the try is lost, and so is this process."""


MOST_LOSSES = (
    3  # of one place: a training that kills its process is tried three times, not for ever
)


def place_of(trial: optuna.trial.BaseTrial) -> int:
    """The place of a trial in its study; its number, unless it says otherwise."""
    place: int = trial.user_attrs.get(PLACE_ATTR, trial.number)
    return place


def losses_of(trial: FrozenTrial) -> int:
    """How many tries of this place died, up to this one."""
    before: int = trial.user_attrs.get(LOSSES_ATTR, 0)
    return before + (trial.user_attrs.get(INTERRUPTED_ATTR) == "lost")


def is_replaced(trial: FrozenTrial) -> bool:
    """Whether the trial was interrupted, and another one is to take its place."""
    interrupted = INTERRUPTED_ATTR in trial.user_attrs
    return trial.state == TrialState.FAIL and interrupted and losses_of(trial) < MOST_LOSSES
