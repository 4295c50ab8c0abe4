"""The textbook configuration: usual values for all layers, inside the ranges, as first trial."""

import pytest
from fixtures.networks.sizes import make_space
from torch import nn

import wwopt
from wwopt.study.errors import StudyError
from wwopt.study.textbook import TEXTBOOK, check_textbook, textbook_params


def make_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 80), nn.ReLU(), nn.Dropout(), nn.Linear(80, 10))


def test_every_layer_gets_the_usual_values() -> None:
    space = wwopt.LayerSpace.from_model(
        make_model(),
        lr=(1e-4, 1.0),
        dropout=(0.0, 0.5),
        momentum=(0.0, 0.95),
        weight_decay=(1e-6, 0.1),
        batch_size=(16, 256),
    )
    params = textbook_params(space)
    assert params == {
        "lr/0": 0.01,
        "lr/3": 0.01,
        "dropout/0": 0.1,
        "momentum/0": 0.9,
        "momentum/3": 0.9,
        "weight_decay/0": 1e-4,
        "weight_decay/3": 1e-4,
        "batch_size": 64,
    }
    assert set(params) == set(space.distributions(0))
    assert isinstance(params["batch_size"], int)


def test_a_study_states_its_own_and_ranges_hold_them_all() -> None:
    space = wwopt.LayerSpace.from_model(
        make_model(), lr=(1e-4, 0.005), dropout=(0.2, 0.5), momentum=None, batch_size=(128, 256)
    )
    params = textbook_params(space, {"dropout": 0.3})
    assert params == {"lr/0": 0.005, "lr/3": 0.005, "dropout/0": 0.3, "batch_size": 128}


def test_of_sizes_it_takes_the_nearest_to_one() -> None:
    space = make_space(wwopt.Conditions(seed=0, epochs=1))
    sizes = {name: value for name, value in textbook_params(space).items() if "/" not in name}
    factors = {"width": space.widths, "depth": space.depths}
    assert sizes == {
        name: min(known, key=lambda factor: abs(factor - 1.0))
        for name, known in factors.items()
        if known
    }


def test_what_there_is_not_is_refused() -> None:
    check_textbook(TEXTBOOK)
    with pytest.raises(StudyError, match="textbook states 'rate'; it may state lr, momentum, drop"):
        check_textbook({"rate": 0.1})
