"""A trial's weights are a logged model: found by its metrics, loaded back as they were."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from fixtures.studies.quick_studies import make_network
from fixtures.studies.recorded_study import Recorded
from mlflow import MlflowClient

import wwopt
from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.models import download_weights
from wwopt.tracking.tracked_studies import TrackedStudy


def test_logged_weights_load_into_the_network(tracked: TrackedStudy, tmp_path: Path) -> None:
    path = download_weights(tracked[3], tmp_path)
    assert path is not None and path.name == "weights.safetensors"
    network = make_network(99)
    safetensors.torch.load_model(network, str(path))
    table = read_layer_table(tracked[3])
    assert table is not None
    alphas = [layer.alpha for layer in wwopt.analyze(network).layers]
    assert alphas == pytest.approx(list(table["alpha"]))


def test_models_are_found_by_their_spectral_metrics(
    recorded: Recorded, tracked: TrackedStudy
) -> None:
    client = MlflowClient(recorded[1])
    complete = [t for t in tracked.trials if t.state == "COMPLETE"]
    middle = float(np.median([t.metrics["alpha/mean"] for t in complete]))
    query = f"metrics.`alpha/mean` < {middle}"
    models = client.search_logged_models([tracked.experiment_id], query)
    expected = {t.run_id for t in complete if t.metrics["alpha/mean"] < middle}
    assert {model.source_run_id for model in models} == expected and expected
    assert all(model.params and model.model_type == "checkpoint" for model in models)
