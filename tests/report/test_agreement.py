"""How well scores agree with an objective, by hand and on orders that are known."""

import numpy as np
import pytest
from fixtures.by_hand.trials import bare_trial, study

from wwopt.report.agreement import compare_orders, measure_agreement, tell_agreement
from wwopt.tracking.validation_metrics import Metric


def test_four_trials_by_hand() -> None:
    own = {0: 0.9, 1: 0.8, 2: 0.7, 5: 0.6, 7: float("nan")}
    scores = {"a": {0: 2.0, 1: 1.0, 2: 3.0, 5: 4.0, 7: 0.0}, "b": {0: 1.0}}
    (found,) = compare_orders(scores, own, lower_is_better=False)
    assert (found.chosen, found.value, found.place, found.trials) == (1, 0.8, 2, 4)
    assert found.tau == pytest.approx(4 / 6)  # one pair of six stands the other way
    assert found.verdict == "unclear"
    assert (
        "would have chosen trial 1, place 2 of 4 by your objective (0.8)"
        in (tell_agreement((found,))[0])
    )
    (turned,) = compare_orders({"a": scores["a"]}, own, lower_is_better=True)
    assert turned.tau == pytest.approx(-4 / 6) and turned.place == 3


def test_the_verdict_follows_the_order() -> None:
    rng = np.random.default_rng(0)
    own = {n: float(n) for n in range(30)}
    scores = {
        "same": {n: n + float(rng.normal(0.0, 3.0)) for n in own},
        "other": {n: -n + float(rng.normal(0.0, 3.0)) for n in own},
        "none": {n: float(rng.normal()) for n in own},
    }
    found = compare_orders(scores, own, lower_is_better=True)
    assert [a.verdict for a in found] == ["agrees", "disagrees", "unclear"]
    assert found == compare_orders(scores, own, lower_is_better=True)


def test_a_tracked_study_is_asked_for_the_same() -> None:
    trials = [
        bare_trial(n, float(n), metrics={"scores/weights-only": 5.0 - n, "metrics/x": -float(n)})
        for n in range(6)
    ]
    (found,) = measure_agreement(study(*trials), metric=Metric("x", lower_is_better=True))
    assert (found.score, found.verdict) == ("weights-only", "agrees")
    assert found.tau == pytest.approx(1.0)
