"""Every score is the one that its name promises: the objective's own, or a mean over layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from fixtures.paths import REFERENCE
from fixtures.weights.layer_tables import make_table
from fixtures.weights.layers import spectrum_with_tops
from torch import nn

import wwopt
from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.objective import Preset, SpectralObjective
from wwopt.selection.rankings import Ranking
from wwopt.selection.scores import STATISTICS, Score, resolve_objective, score_model
from wwopt.selection.selection import rank


def test_the_score_is_the_objectives_own(ranking: Ranking, sources: Mapping[str, Path]) -> None:
    for name, path in sources.items():
        value = wwopt.SpectralObjective()(wwopt.analyze(path))
        assert ranking[name].score == value.value
        assert ranking[name].terms == value.terms


@pytest.mark.parametrize("objective", ["alpha", "log_norm", "log_spectral_norm", "stable_rank"])
def test_statistics_are_means_over_layers_lower_first(objective: str) -> None:
    tables = {"a": make_table(3.0), "b": make_table(2.5, scale=2.0), "c": make_table(4.0)}
    ranking = rank(tables, objective=objective)
    for name, table in tables.items():
        assert ranking[name].score == pytest.approx(table[objective].mean())
    assert [c.score for c in ranking] == sorted(c.score for c in ranking)
    assert {c.objective for c in ranking} == {objective}


def test_a_real_table_has_weightwatchers_own_mean() -> None:
    path = REFERENCE / "weightwatcher-minilm.csv"
    for objective in ("alpha_hat", "alpha_weighted"):
        (candidate,) = rank([path], objective=objective)
        frame = pd.read_csv(path)
        assert candidate.score == pytest.approx(frame["alpha_weighted"].mean(), rel=1e-12)
        assert candidate.place is None


def test_every_name_of_a_score_is_known() -> None:
    metrics = wwopt.analyze(nn.Sequential(nn.Linear(100, 80), nn.Linear(80, 64)))
    presets = [p for p in get_args(Preset) if not wwopt.SpectralObjective(p).reads_train_loss]
    for name in (*presets, *STATISTICS):
        assert math.isfinite(score_model(metrics, resolve_objective(name)).value)
    own = wwopt.SpectralObjective(trap_weight=2.0)
    (candidate,) = rank({"a": metrics}, objective=own)
    assert candidate.score == own(metrics).value
    assert candidate.objective == "weights-only, other options"


def test_a_score_is_the_mean_of_its_layers_and_what_the_first_one_adds() -> None:
    metrics = metrics_from_spectra(
        [spectrum_with_tops(name, [500.0 + 100.0 * i]) for i, name in enumerate("abc")]
    )
    score: Score = score_model(metrics, SpectralObjective())
    assert len(set(score.layers.values())) > 1
    mean = np.mean(list(score.layers.values()))
    assert score.value == pytest.approx(mean + score.terms["cutoff"])
    assert score.value == SpectralObjective()(metrics).value
