"""Labels, columns and means are WeightWatcher's; what is unknown stays unknown."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fixtures.networks.small_networks import small_model
from fixtures.weights.layers import well_trained

from wwopt.metrics.analysis import analyze, metrics_from_spectra
from wwopt.metrics.model_metrics import (
    RANK_DEFICIENT,
    TOO_FEW,
    LayerMetrics,
    ModelMetrics,
)


@pytest.mark.parametrize(
    ("alpha", "warning"),
    [(1.99, "over-trained"), (2.0, ""), (6.0, ""), (6.01, "under-trained"), (math.nan, "")],
)
def test_labels_are_those_of_weightwatcher(alpha: float, warning: str) -> None:
    assert LayerMetrics(name="fc", N=9, M=9, num_evals=9, alpha=alpha).warning == warning


def test_an_unknown_layer_is_named_beside_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"no layer 'fc'; the layers are 0, 2, 3"):
        analyze(small_model())["fc"]


def test_the_frame_has_the_columns_of_weightwatcher() -> None:
    metrics = analyze(small_model())
    frame = metrics.to_frame()
    # Columns of its analyze(mp_fit=True, detX=True) for quantities that are computed here too.
    theirs = {"N", "M", "Q", "rf", "num_evals", "alpha", "sigma", "D", "xmin", "xmax"}
    theirs |= {"num_pl_spikes", "norm", "log_norm", "spectral_norm", "log_spectral_norm"}
    theirs |= {"lambda_max", "stable_rank", "alpha_weighted", "log_alpha_norm", "entropy"}
    theirs |= {"matrix_rank", "rank_loss", "weak_rank_loss", "sigma_mp", "bulk_min"}
    theirs |= {"bulk_max", "num_spikes", "mp_softrank", "W_scale", "detX_num", "ERG_gap"}
    theirs |= {"longname", "layer_type", "warning", "status"}
    assert theirs <= set(frame.columns)
    assert frame["longname"].tolist() == ["0", "2", "3"]
    assert frame["Q"].tolist() == [90 / 60, 90 / 70, 7.0]
    assert frame["alpha"].tolist() == [layer.alpha for layer in metrics.layers]


def test_an_empty_model_has_an_empty_frame_with_all_columns() -> None:
    empty = metrics_from_spectra([])
    assert empty.layers == ()
    assert set(empty.to_frame().columns) == set(analyze(small_model()).to_frame().columns)
    assert all(math.isnan(value) for value in empty.summary().values())


def test_the_summary_is_the_mean_over_counted_layers_that_know_the_value() -> None:
    def layer(name: str, **values: Any) -> LayerMetrics:
        return LayerMetrics(name=name, N=60, M=60, num_evals=60, **values)

    metrics = ModelMetrics(
        (
            layer("a", alpha=3.0, stable_rank=10.0),
            layer("b", alpha=5.0, mp_softrank=0.25),
            layer("c", stable_rank=20.0, status=RANK_DEFICIENT),
            layer("d", alpha=99.0, stable_rank=99.0, status=TOO_FEW),
        )
    )
    summary = metrics.summary()
    assert (summary["alpha"], summary["stable_rank"]) == (4.0, 15.0)
    assert summary["mp_softrank"] == 0.25
    assert math.isnan(summary["log_norm"])


@pytest.mark.parametrize(
    ("changes", "doubts"),
    [
        ({}, ()),
        ({"alpha": math.nan, "D": 0.9}, ("no alpha",)),  # the others are doubts about an alpha
        ({"num_evals": 49}, ("few eigenvalues",)),
        ({"num_evals": 0, "hill": math.nan}, ()),  # a table did not say
        ({"num_pl_spikes": 9, "D": 0.16}, ("short tail", "high D")),
        # (h - 1)/(null - 1) at e^(-6/200) = .9704 and below it.
        ({"hill": 1.0 + 3.0 * 0.971}, ("within its own null",)),
        ({"hill": 1.0 + 3.0 * 0.970}, ()),
        ({"hill": 2.2, "hill_shuffled": 2.2}, ("within its own null",)),  # its own shuffle counts
        ({"hill": 4.0, "hill_shuffled": 9.0}, ()),
    ],
)
def test_doubts_about_an_alpha_are_named(
    changes: dict[str, float], doubts: tuple[str, ...]
) -> None:
    layer = well_trained(**changes)
    assert layer.doubts == doubts
    assert layer.reliability == ("; ".join(doubts) or "reliable")
