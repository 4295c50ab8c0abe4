"""Layer tables of our own, of WeightWatcher and of its older versions, read as metrics."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.paths import REFERENCE
from torch import nn

import wwopt
from wwopt.metrics.layer_tables import UNNAMED
from wwopt.metrics.model_metrics import LayerMetrics, ModelMetrics

# One layer of three slices and one of a single one, as WeightWatcher 0.2 wrote them: a row a slice
# and a row a layer, whose values are the slices' means and whose N and M are their sums.
OLD = pd.DataFrame(
    {
        "layer_id": [3, 3, 3, 3, 7, 7],
        "layer_type": ["CONV2D"] * 4 + ["DENSE"] * 2,
        "N": [128, 128, 128, 384, 512, 512],
        "M": [64, 64, 64, 192, 100, 100],
        "level": ["LEVEL.SLICE"] * 3 + ["LEVEL.LAYER"] + ["LEVEL.SLICE", "LEVEL.LAYER"],
        "alpha": [2.0, 3.0, 4.0, 3.0, 5.0, 5.0],
        "alpha_weighted": [0.2, 0.3, 0.7, 0.4, 1.0, 1.0],
        "lognorm": [1.0, 2.0, 3.0, 2.0, 4.0, 4.0],
        "logpnorm": [0.5, 0.5, 0.8, 0.6, 2.0, 2.0],
        "numofSpikes": [1, 2, 3, 2.0, 9, 9.0],
    }
)


@pytest.fixture(scope="module")
def metrics() -> ModelMetrics:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(640, 80))
    model.append(nn.Linear(80, 10))
    return wwopt.analyze(model)


def test_our_own_table_comes_back_whole(metrics: ModelMetrics) -> None:
    frame = metrics.to_frame()
    again = ModelMetrics.from_frame(frame)
    pd.testing.assert_frame_equal(again.to_frame(), frame, check_dtype=False)
    assert [layer.status for layer in again.layers] == ["ok", "ok", "too few eigenvalues"]
    score = wwopt.SpectralObjective()
    assert score(again) == score(metrics)


def test_our_own_table_survives_a_file(metrics: ModelMetrics, tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    metrics.to_frame().to_csv(path)  # with an index column
    again = ModelMetrics.from_frame(pd.read_csv(path))
    assert wwopt.SpectralObjective()(again).value == pytest.approx(
        wwopt.SpectralObjective()(metrics).value, rel=1e-12
    )


def test_weightwatchers_own_table_of_a_real_transformer() -> None:
    frame = pd.read_csv(REFERENCE / "weightwatcher-minilm.csv")
    read = ModelMetrics.from_frame(frame)
    assert [layer.name for layer in read.layers] == list(frame["longname"])
    assert {layer.kind for layer in read.layers} == {"linear", "embedding"}
    for name, value in read.summary().items():
        assert value == pytest.approx(frame[name].mean(), rel=1e-12), name
    assert read.layers[2].num_pl_spikes == frame["num_pl_spikes"][2]


def test_columns_are_found_in_any_spelling() -> None:
    frame = pd.DataFrame(
        {"LongName": ["a", "b"], "ALPHA": [2.0, 3.0], "Log_Norm": [1.0, 2.0], "n": [9, 8], "m": 5}
    )
    read = ModelMetrics.from_frame(frame)
    assert [layer.name for layer in read.layers] == ["a", "b"]
    assert [layer.alpha for layer in read.layers] == [2.0, 3.0]
    assert [layer.log_norm for layer in read.layers] == [1.0, 2.0]
    assert [(layer.N, layer.M) for layer in read.layers] == [(9, 5), (8, 5)]


def test_a_foreign_lambda_is_not_the_rate_of_a_cutoff() -> None:
    frame = pd.DataFrame({"longname": ["a"], "alpha": [2.0], "lambda": [17.0], "softrank": [3.0]})
    layer = ModelMetrics.from_frame(frame).layers[0]
    assert math.isnan(layer.Lambda)
    assert math.isnan(layer.stable_rank) and math.isnan(layer.mp_softrank)


@pytest.mark.parametrize("alpha", [math.nan, -1.0, 0.0])
def test_a_failed_fit_is_no_number(alpha: float) -> None:
    frame = pd.DataFrame(
        {
            "longname": ["good", "failed"],
            "alpha": [2.5, alpha],
            "alpha_weighted": [1.5, -7.0],
            "sigma": [0.1, -1.0],
            "log_norm": [2.0, 3.0],
            "status": ["success", "failed"],
        }
    )
    read = ModelMetrics.from_frame(frame)
    failed = read["failed"]
    assert failed.status == "no power law"
    assert math.isnan(failed.alpha) and math.isnan(failed.alpha_weighted)
    assert math.isnan(failed.sigma)
    summary = read.summary()
    assert summary["alpha_weighted"] == 1.5
    assert summary["log_norm"] == 2.5  # its norm is as good as the others'


def test_logarithms_and_alpha_weighted_follow_where_their_columns_lack() -> None:
    frame = pd.DataFrame({"longname": ["a"], "alpha": [3.0], "lambda_max": [100.0], "norm": [1e4]})
    layer = ModelMetrics.from_frame(frame).layers[0]
    assert layer.log_spectral_norm == pytest.approx(2.0)
    assert layer.alpha_weighted == pytest.approx(6.0)
    assert layer.log_norm == pytest.approx(4.0)
    assert layer.spectral_norm == 100.0


def test_a_column_that_is_there_is_never_computed_again() -> None:
    frame = pd.DataFrame(
        {"longname": ["a"], "alpha": [3.0], "lambda_max": [100.0], "alpha_weighted": [5.0]}
    )
    assert ModelMetrics.from_frame(frame).layers[0].alpha_weighted == 5.0


def test_old_tables_of_slices_have_a_row_a_layer() -> None:
    read = ModelMetrics.from_frame(OLD)
    conv, dense = read.layers
    assert (conv.N, conv.M, conv.num_slices, conv.num_evals) == (128, 64, 3, 192)
    assert (dense.N, dense.M, dense.num_slices) == (512, 100, 1)
    assert (conv.kind, dense.kind) == ("conv2d", "linear")
    assert (conv.alpha, conv.alpha_weighted, conv.log_norm) == (3.0, 0.4, 2.0)
    assert (conv.log_alpha_norm, conv.num_spikes) == (0.6, 2.0)
    assert read.summary()["alpha_weighted"] == pytest.approx(0.7)


def test_slices_without_a_row_of_their_layer_are_averaged() -> None:
    slices = OLD[OLD["level"] == "LEVEL.SLICE"]
    for table in (slices, slices.drop(columns="level").assign(slice_id=[0, 1, 2, 0])):
        conv, dense = ModelMetrics.from_frame(table).layers
        assert (conv.N, conv.M, conv.num_slices) == (128, 64, 3)
        assert conv.alpha == pytest.approx(3.0)
        assert conv.alpha_weighted == pytest.approx(0.4)
        assert dense.alpha == 5.0


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("LAYER_TYPE.DENSE", "linear"),
        ("<LAYER_TYPE.CONV2D: 4>", "conv2d"),
        ("embedding", "embedding"),
        ("hf_conv1d", "hf_conv1d"),
        ("unknown", ""),
    ],
)
def test_kinds_of_layers(written: str, kind: str) -> None:
    frame = pd.DataFrame({"longname": ["a"], "alpha": [2.0], "layer_type": [written]})
    assert ModelMetrics.from_frame(frame).layers[0].kind == kind


def test_a_table_without_shapes_has_zeros_and_no_complaint_of_few_eigenvalues() -> None:
    layer = ModelMetrics.from_frame(pd.DataFrame({"longname": ["a"], "alpha": [2.2]})).layers[0]
    assert (layer.N, layer.M, layer.num_evals, layer.num_slices) == (0, 0, 0, 1)
    assert layer.status == "ok"
    assert "few eigenvalues" not in layer.reliability
    assert math.isnan(ModelMetrics((layer,)).to_frame()["Q"][0])


def test_shapes_are_turned_and_slices_follow_from_the_eigenvalues() -> None:
    frame = pd.DataFrame({"longname": ["a"], "alpha": [2.0], "N": 32, "M": 64, "num_evals": 288})
    layer = ModelMetrics.from_frame(frame).layers[0]
    assert (layer.N, layer.M, layer.num_slices) == (64, 32, 9)


def test_layers_without_a_name_have_a_number() -> None:
    read = ModelMetrics.from_frame(OLD)
    assert [layer.name for layer in read.layers] == [f"{UNNAMED}3", f"{UNNAMED}7"]
    classes = pd.DataFrame(
        {"layer_id": range(5), "name": ["Conv2d"] * 4 + ["Linear"], "alpha": 2.0}
    )
    assert ModelMetrics.from_frame(classes).layers[1].name == f"{UNNAMED}1"


def test_names_given_twice_are_told_apart() -> None:
    frame = pd.DataFrame({"longname": ["fc", "fc"], "alpha": [2.0, 3.0]})
    read = ModelMetrics.from_frame(frame)
    assert (read["fc"].alpha, read["fc'"].alpha) == (2.0, 3.0)


def test_what_holds_no_spectrum_is_skipped_by_name() -> None:
    frame = pd.DataFrame(
        {
            "longname": ["fc", "bn", "tiny"],
            "layer_type": ["dense", "norm", "dense"],
            "alpha": [2.0, math.nan, math.nan],
            "has_esd": [True, True, False],
        }
    )
    read = ModelMetrics.from_frame(frame)
    assert [layer.name for layer in read.layers] == ["fc"]
    assert read.skipped == {"bn": "vector", "tiny": "no spectrum in the table"}


def test_the_index_is_read_where_it_has_a_name() -> None:
    frame = pd.DataFrame({"alpha": [2.0]}, index=pd.Index(["fc"], name="longname"))
    assert ModelMetrics.from_frame(frame).layers[0].name == "fc"


def test_infinite_values_are_unknown() -> None:
    frame = pd.DataFrame({"longname": ["a"], "alpha": [2.0], "log_norm": [-np.inf]})
    assert math.isnan(ModelMetrics.from_frame(frame).layers[0].log_norm)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"alpha": []}), "no rows"),
        (pd.DataFrame({"loss": [1.0]}), "columns are loss"),
        (pd.DataFrame({"source": ["a", "b"], "alpha": [2.0, 3.0]}), "holds 2 models"),
        (pd.DataFrame({"longname": ["a"], "alpha": ["?"]}), "none of the columns alpha"),
    ],
)
def test_says_what_is_wrong_with_a_table(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelMetrics.from_frame(frame)


def test_every_number_of_ours_is_a_column_that_is_read() -> None:
    """A field that is added to the metrics must not be lost on the way through a table."""
    layer = LayerMetrics(name="a", N=3, M=2, num_evals=2, **{n: 1.5 for n in numbers()})
    again = ModelMetrics.from_frame(ModelMetrics((layer,)).to_frame()).layers[0]
    assert again == layer


def numbers() -> list[str]:
    default = LayerMetrics(name="a", N=3, M=2, num_evals=2)
    return [name for name, value in vars(default).items() if isinstance(value, float)]
