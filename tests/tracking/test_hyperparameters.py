"""A trial's hyperparameters are numbers where they are, and knots apart from each layer's own."""

from fixtures.by_hand.trials import trial

from wwopt.tracking.hyperparameters import read_hyperparameters, read_knobs

TIED = {"lr/a": "0.1", "lr/b": "1e-3", "batch_size": "64", "kind": "wide", "tuned/lr.first": "0.1"}


def test_numbers_are_numbers_and_texts_stay_texts() -> None:
    values = read_hyperparameters(trial(0, params=TIED))
    assert values == {"lr/a": 0.1, "lr/b": 0.001, "batch_size": 64.0, "kind": "wide"}


def test_knobs_are_what_the_sampler_chose_else_each_layers_own_values() -> None:
    assert read_knobs(trial(0, params=TIED)) == {"lr.first": 0.1}
    untied = {"lr/a": "0.1", "kind": "wide"}
    assert read_knobs(trial(0, params=untied)) == {"lr/a": 0.1, "kind": "wide"}
    assert read_knobs(trial(0)) == {}


def test_every_digit_of_a_number_comes_back() -> None:
    value = 0.1 + 0.2
    assert read_hyperparameters(trial(0, params={"lr/a": repr(value)})) == {"lr/a": value}
