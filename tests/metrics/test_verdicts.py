"""A verdict follows from the first thing that decides it: status, null, doubts, outlier, alpha."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fixtures.weights.layers import SpectrumOf, plant, well_trained

from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.verdicts import LayerVerdict, judge_layer


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, LayerVerdict("well trained")),
        # Two standard errors of .2 from either end of [2, 6].
        ({"alpha": 1.61}, LayerVerdict("well trained")),
        ({"alpha": 1.59}, LayerVerdict("over-trained")),
        ({"alpha": 6.39}, LayerVerdict("well trained")),
        ({"alpha": 6.41}, LayerVerdict("under-trained")),
        # What comes first decides, and the worst alpha changes nothing.
        ({"alpha": 9.0, "D": 0.2}, LayerVerdict("unreliable", ("high D",))),
        ({"alpha": math.nan}, LayerVerdict("unreliable", ("no alpha",))),
        ({"num_evals": 49, "num_pl_spikes": 9}, None),
        ({"alpha": 9.0, "D": 0.2, "hill": 4.0}, LayerVerdict("looks untrained")),
        ({"hill": 4.0, "status": "collapsed"}, LayerVerdict("not judged")),
    ],
)
def test_the_first_that_decides_is_the_verdict(
    changes: dict[str, Any], verdict: LayerVerdict | None
) -> None:
    several = LayerVerdict("unreliable", ("few eigenvalues", "short tail"))
    assert judge_layer(well_trained(**changes)) == (verdict or several)


def test_an_outlier_is_a_doubt_only_where_the_spectrum_shows_it(spectrum_of: SpectrumOf) -> None:
    (layer,) = metrics_from_spectra([spectrum_of(plant((300, 200), [30.0], seed=3))]).layers
    assert judge_layer(layer) == LayerVerdict("unreliable", ("a single outlier",))
    assert "a single outlier" not in judge_layer(replace(layer, spectrum=None)).doubts


def test_a_random_bulk_is_seen_where_the_averaged_hill_estimate_does_not(
    spectrum_of: SpectrumOf,
) -> None:
    weights = np.random.default_rng(0).standard_normal((256, 256))
    (layer,) = metrics_from_spectra([spectrum_of(weights)]).layers
    sure = replace(layer, hill=1.5, hill_shuffled=math.nan, D=0.05, num_pl_spikes=60.0)
    assert not sure.doubts
    assert judge_layer(sure) == LayerVerdict("looks untrained")
