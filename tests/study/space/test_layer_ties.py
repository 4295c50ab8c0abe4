"""A layer's own value is a mean of its knots by share, or of their logarithms."""

import math

import pytest

from wwopt.study.space.layer_ties import Shares, Tie, interpolate, share_knots

LAYERS = ("conv1", "blocks.0.fc1", "blocks.0.fc2", "blocks.1.fc1", "head.out")


@pytest.mark.parametrize(
    ("tie", "knots"),
    [
        ("global", ["all"] * 5),
        ("block", ["conv1", "blocks.0", "blocks.0", "blocks.1", "head"]),
        ("layer", list(LAYERS)),
    ],
)
def test_a_layer_of_one_knot_has_all_of_it(tie: Tie, knots: list[str]) -> None:
    assert share_knots(tie, LAYERS) == {
        layer: [(knot, 1.0)] for layer, knot in zip(LAYERS, knots, strict=True)
    }


@pytest.mark.parametrize("tie", ["depth", "coarse-to-fine"])
def test_the_depth_profile_goes_through_three_knots(tie: Tie) -> None:
    first, middle, last = "depth=first", "depth=middle", "depth=last"
    expected: list[Shares] = [
        [(first, 1.0)],
        [(first, 0.5), (middle, 0.5)],
        [(middle, 1.0)],
        [(middle, 0.5), (last, 0.5)],
        [(last, 1.0)],
    ]
    assert list(share_knots(tie, LAYERS).values()) == expected
    for count in (3, 4, 50):
        shares = share_knots(tie, [f"l{i}" for i in range(count)]).values()
        assert [sum(share for _, share in own) for own in shares] == pytest.approx([1.0] * count)


def test_fewer_layers_than_knots_have_values_of_their_own() -> None:
    assert share_knots("depth", ["a", "b"]) == {"a": [("a", 1.0)], "b": [("b", 1.0)]}


def test_means_are_of_the_values_or_of_their_logarithms() -> None:
    knots = [(0.01, 0.25), (1.0, 0.75)]
    assert interpolate(knots, log=False) == pytest.approx(0.7525)
    assert interpolate(knots, log=True) == pytest.approx(10.0**-0.5)
    assert interpolate([(0.0, 1.0)], log=True) == 0.0  # one knot is taken as it is
    assert math.isclose(interpolate([(0.3, 0.5), (0.3, 0.5)], log=True), 0.3)
