"""What a report is made of: the trials that stand for others, and the layers in order."""

from fixtures.by_hand.trials import bare_trial, study
from fixtures.studies.quick_studies import LAYERS

from wwopt.report.page_data import gather
from wwopt.tracking.tracked_studies import TrackedStudy


def test_the_median_stands_between_the_best_and_the_worst(tracked: TrackedStudy) -> None:
    exemplars = gather(tracked).exemplars
    assert [e.role for e in exemplars] == ["best", "median", "worst"]
    values = sorted(t.value for t in tracked.judged)
    assert exemplars[0].trial.value == values[0] and exemplars[2].trial.value == values[-1]
    below = sum(value < exemplars[1].trial.value for value in values)
    assert abs(below - (len(values) - 1) / 2) <= 0.5


def test_of_one_trial_and_of_two_nothing_is_said_twice() -> None:
    for values, roles in (((), []), ((1.0,), ["best"]), ((2.0, 1.0), ["best", "worst"])):
        trials = [bare_trial(number, value) for number, value in enumerate(values)]
        data = gather(study(*trials))
        assert [e.role for e in data.exemplars] == roles
        assert data.best is (data.exemplars[0] if values else None)
        assert [e.trial.value for e in data.exemplars] == sorted(values)


def test_the_best_that_no_guard_refuses_comes_before_a_lower_one() -> None:
    refused = bare_trial(0, -9.0, metrics={"guards/traps": 1.0})
    data = gather(study(refused, bare_trial(1, 1.0), bare_trial(2, 2.0)))
    assert data.best is not None and data.best.trial.number == 1


def test_layers_have_their_own_names_in_the_networks_order(tracked: TrackedStudy) -> None:
    layers = gather(tracked).layers
    assert [layer.name for layer in layers] == list(LAYERS)
    keys = {f"layer_alpha/{layer.key}" for layer in layers}
    logged = {key for trial in tracked.trials for key in trial.metrics}
    assert {key for key in logged if key.startswith("layer_alpha/")} <= keys
    lone = gather(study(bare_trial(0, 1.0, metrics={"layer_alpha/fc.1": 2.0})))
    assert [(layer.name, layer.key) for layer in lone.layers] == [("fc.1", "fc.1")]
