"""Figures of layers show each layer's own alpha, hyperparameters and spectrum."""

import math

import numpy as np
import pandas as pd
import pytest
from fixtures.by_hand.report_data import data_of
from fixtures.by_hand.trials import study, trial

from wwopt.report.layer_figures import MAX_LAYERS, draw_alphas, draw_depth, draw_spectra
from wwopt.report.page_data import Exemplar


def alphas(**layers: float) -> dict[str, float]:
    return {f"layer_alpha/{name}": alpha for name, alpha in layers.items()}


def test_the_map_has_a_row_a_layer_and_a_column_a_trial_complete_ones_first() -> None:
    trials = [
        trial(0, 5.0, metrics=alphas(a=3.0, b=4.0)),
        trial(1, 1.0, metrics=alphas(a=2.0)),
        trial(2, 0.0, state="PRUNED", metrics=alphas(b=7.0)),
    ]
    picture = draw_alphas(data_of(study(*trials), layers=("a", "silent", "b")))
    assert picture is not None
    (heatmap,) = picture.figure.data
    assert list(heatmap.x) == ["#1", "#0", "#2"]
    expected = [[2.0, 3.0, math.nan], [math.nan, 4.0, 7.0]]
    np.testing.assert_array_equal(np.array(heatmap.z, dtype=float), expected)
    assert list(picture.figure.layout.yaxis.ticktext) == ["a", "b"]
    assert draw_alphas(data_of(study(trial(0, 1.0)), layers=("a",))) is None


def test_lines_by_depth_stop_between_trials_and_a_factor_is_on_a_logarithmic_axis() -> None:
    trials = [
        trial(n, float(n), params={"lr/a": f"{n + 1}", "lr/b": "0.1", "momentum/a": "0.9"})
        for n in range(7)
    ]
    picture = draw_depth(data_of(study(*trials), layers=("a", "b")))
    assert picture is not None
    rates = {trace.name: list(trace.y) for trace in picture.figure.data if trace.yaxis == "y"}
    assert rates["best"] == [1.0, 0.1, None]
    assert rates["next four"][:6] == [2.0, 0.1, None, 3.0, 0.1, None]
    assert rates["other complete trials"] == [6.0, 0.1, None, 7.0, 0.1, None]
    momenta = {trace.name: list(trace.y) for trace in picture.figure.data if trace.yaxis == "y2"}
    assert momenta["best"] == [0.9, None, None]
    assert picture.figure.layout.yaxis.type == "log"
    assert picture.figure.layout.yaxis2.type is None
    assert draw_depth(data_of(study(*trials), layers=("a",))) is None  # no depth
    assert draw_depth(data_of(study(trial(0, 1.0)), layers=("a", "b"))) is None


def exemplar(role: str, number: int, names: list[str], alpha: list[float]) -> Exemplar:
    curve = np.array([[1.0, 2.0, 8.0], [1.0, 2 / 3, 1 / 3]], dtype=np.float32)
    table = pd.DataFrame({"longname": names, "alpha": alpha, "sigma": 0.25})
    return Exemplar(role, trial(number, float(number)), table, dict.fromkeys(names, curve))


def test_a_layers_spectra_lie_over_each_other_with_their_alphas() -> None:
    best = exemplar("best", 3, ["a", "b"], [2.5, math.nan])
    worst = exemplar("worst", 7, ["a"], [4.0])
    first, second = draw_spectra(data_of(study(), exemplars=(best, worst), layers=("a", "b")))
    assert (first.title, second.title) == ("a", "b")
    assert [trace.name for trace in first.figure.data] == [
        "best #3: α 2.50 ± 0.25",
        "worst #7: α 4.00 ± 0.25",
    ]
    assert [trace.name for trace in second.figure.data] == ["best #3: no alpha"]
    assert list(first.figure.data[0].x) == [1.0, 2.0, 8.0]
    low, high = first.figure.layout.xaxis.range
    assert high == pytest.approx(math.log10(1.3 * 8.0))
    assert 10.0**low == pytest.approx(1.0 + 0.05 / (1 / 3))  # a twentieth lies below


def test_of_many_layers_those_that_best_and_worst_differ_in_most_are_drawn() -> None:
    names = [f"l{i:02}" for i in range(MAX_LAYERS + 5)]
    rising = [2.0 + 0.1 * i for i in range(len(names))]
    ends = exemplar("best", 0, names, [2.0] * len(names)), exemplar("worst", 1, names, rising)
    pictures = draw_spectra(data_of(study(), exemplars=ends, layers=names))
    assert [picture.title for picture in pictures] == names[5:]


def test_without_spectra_there_is_none_to_draw() -> None:
    bare = Exemplar("best", trial(0, 1.0), None, None)
    assert draw_spectra(data_of(study(), exemplars=(bare,), layers=("a",))) == []
