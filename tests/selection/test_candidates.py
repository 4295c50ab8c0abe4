"""A candidate knows its size, what of it counts, and its type, whatever it is read from."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import wwopt
from wwopt.metrics.model_metrics import LayerMetrics, ModelMetrics
from wwopt.selection.candidates import Candidate, read_candidate
from wwopt.selection.selection import rank
from wwopt.weights.matrices import read_weights


def test_coverage_is_the_share_of_parameters_that_count() -> None:
    model = nn.Sequential(nn.Linear(100, 80), nn.Linear(80, 10))
    candidate = read_candidate("a", model)
    assert candidate.parameters == 100 * 80 + 80 + 80 * 10 + 10
    assert candidate.coverage == pytest.approx(8000 / candidate.parameters)
    state = read_candidate("b", model.state_dict())
    assert (state.parameters, state.coverage) == (candidate.parameters, candidate.coverage)
    metrics = read_candidate("c", wwopt.analyze(model))
    assert metrics.parameters == 8000 + 800 and math.isnan(metrics.coverage)


def test_tied_weights_and_buffers_count_once_and_never() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64))
    model[2].weight = model[0].weight
    candidate = read_candidate("a", model)
    assert candidate.parameters == 64 * 64 + 2 * 64 + 2 * 64


def test_a_candidate_that_was_read_already_keeps_what_is_known_of_it() -> None:
    layer = LayerMetrics(name="fc", N=9, M=9, num_evals=9, alpha_weighted=1.0)
    given = Candidate(
        name="old", metrics=ModelMetrics((layer,)), parameters=7.0, coverage=0.5, model_type="bert"
    )
    (candidate,) = rank({"new": given}, objective="alpha_hat")
    assert (candidate.name, candidate.parameters, candidate.family) == ("new", 7.0, "bert")


class Wrapper(nn.Module):
    """Holds a model, as DistributedDataParallel does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_a_wrapped_model_is_of_the_type_that_its_configuration_names() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(80, 60))
    model.config = SimpleNamespace(model_type="gpt2")  # type: ignore[assignment]
    for source in (model, Wrapper(model)):
        assert read_candidate("a", source).model_type == "gpt2"
        assert read_weights(source).model_type == "gpt2"
    other = nn.Sequential(nn.Linear(80, 60))
    other.config = SimpleNamespace(model_type="bert")  # type: ignore[assignment]
    ranking = wwopt.rank({"a": Wrapper(model), "b": Wrapper(other)})
    assert len(ranking.families) == 2
    assert ranking.splits == ("a is a gpt2, b a bert",)
