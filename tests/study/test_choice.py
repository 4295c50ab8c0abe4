"""Which trial a study names: the lowest feasible one, or the textbook's under memorised labels."""

from __future__ import annotations

import math
from typing import Any

import pytest
from optuna.trial import FrozenTrial, create_trial

from wwopt.study.choice import find_best, find_lowest, labels_are_memorised
from wwopt.study.constraints import CONSTRAINTS_ATTR
from wwopt.study.textbook import TEXTBOOK_ATTR


def trial(
    value: float, *, textbook: bool = False, loss: float | None = None, **guards: float
) -> FrozenTrial:
    attributes: dict[str, Any] = {CONSTRAINTS_ATTR: guards, TEXTBOOK_ATTR: textbook}
    if loss is not None:
        attributes["metrics"] = {"train_loss": loss}
    return create_trial(value=value, user_attrs=attributes)


def numbered(*trials: FrozenTrial) -> list[FrozenTrial]:
    for number, one in enumerate(trials):
        one.number = number
    return [*trials]


def search(memorising: int, *, textbook: float = -0.1) -> list[FrozenTrial]:
    """The textbook configuration, five trials of lower loss, some memorising, and one of higher."""
    book = trial(-1.0, textbook=True, loss=0.9, memorising=textbook)
    signs = [0.5] * memorising + [-0.5] * (5 - memorising)
    fitting = [trial(-3.0 - k, loss=0.1 + 0.1 * k, memorising=sign) for k, sign in enumerate(signs)]
    return numbered(book, *fitting, trial(-2.0, loss=1.0, memorising=-0.2))


@pytest.mark.parametrize(("memorising", "chosen"), [(0, 5), (2, 5), (3, 0), (5, 0)])
def test_the_textbook_configuration_stays_where_most_that_fit_best_memorise(
    memorising: int, chosen: int
) -> None:
    trials = search(memorising)
    assert labels_are_memorised(trials) == (memorising >= 3)
    best = find_best(trials)
    assert best is not None and best.number == chosen
    lowest = find_lowest(trials)
    assert lowest is not None and lowest.number == (6 if memorising == 5 else 5)


def test_a_textbook_configuration_that_memorises_too_is_not_kept() -> None:
    best = find_best(search(5, textbook=0.1))
    assert best is not None and best.number == 6
    without = search(5)[1:]  # begun without one
    best = find_best(without)
    assert best is not None and best.number == 6


def test_fewer_than_five_losses_show_nothing() -> None:
    trials = search(5)
    assert not labels_are_memorised(trials[1:5])
    assert not labels_are_memorised([trial(-1.0, memorising=1.0)] * 9)  # no loss was logged
    broken = numbered(*[trial(0.0, loss=math.nan, memorising=1.0)] * 4, *search(0)[1:6])
    assert not labels_are_memorised(broken)


def test_where_all_trials_memorise_the_textbook_configuration_stays() -> None:
    wild, book = trial(-2.0, memorising=0.5), trial(-1.0, textbook=True, memorising=0.1)
    assert find_best([book, wild]) is book
    assert find_best([wild]) is None
    fine = trial(0.0, memorising=-0.1)
    assert find_best([book, wild, fine]) is fine
    broken = trial(-1.0, textbook=True, memorising=0.1, stable_rank=0.1)
    assert find_best([broken, wild]) is None  # it does more than memorise
