"""Readers who see two kinds of colour instead of three tell the colours apart."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from wwopt.metrics.colours import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION

# Machado, Oliveira & Fernandes 2009, severity 1: what such an eye makes of linear RGB.
DICHROMATS = {
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
WHITE = (0.9505, 1.0, 1.089)


def seen(colour: str, eye: list[list[float]]) -> NDArray[np.float64]:
    """A colour in CIELAB, where distances are those that are seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(TO_XYZ @ np.clip(eye @ linear, 0.0, 1.0) / WHITE)
    return np.array([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)])


@pytest.mark.parametrize("eye", DICHROMATS)
def test_every_two_colours_lie_far_apart_without_one_kind_of_cone(eye: str) -> None:
    colours = (BLUE, SKY, GREEN, ORANGE, VERMILLION, PURPLE)
    places = [seen(colour, DICHROMATS[eye]) for colour in colours]
    distances = [np.linalg.norm(one - other) for one, other in combinations(places, 2)]
    assert min(distances) > 15.0  # 2 is just seen
