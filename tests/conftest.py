"""What is for all tests: threads, examples, the fixtures that wings share, and the zoo."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.recorded.zoo import ZooMetricsOf, ZooOf, unpack_zoo
from hypothesis import settings
from threadpoolctl import threadpool_limits

from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.spectra.spectrum import LayerSpectrum

# Fixtures that several wings share, each after those that it is made of; their asserts explain
# themselves, as a test's do.
pytest_plugins = (
    "fixtures.machines.browser",
    "fixtures.weights.checkpoints",
    "fixtures.networks.compressed",
    "fixtures.machines.file_servers",
    "fixtures.weights.layers",
    "fixtures.readers.pictures",
    "fixtures.studies.probed_study",
    "fixtures.machines.servers",
    "fixtures.machines.stores",
    "fixtures.studies.quick_studies",
    "fixtures.studies.recorded_study",
)

# The same examples in every run: a failure is a bug of the change, never of the day.
settings.register_profile("wwopt", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("wwopt")

# Threads that wait for each other on a busy machine: one test took 26 s with two and .4 s with one.
torch.set_num_threads(1)
threadpool_limits(1, user_api="blas")  # numpy's and scipy's; comes with scikit-learn


@pytest.fixture(scope="session")
def zoo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a zoo of 84 MLPs on MNIST."""
    return unpack_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="session")
def zoo_records(zoo_folder: Path) -> list[dict[str, Any]]:
    """Configuration and losses of the 77 networks of the MNIST zoo that did not diverge."""
    lines = (zoo_folder / "mnist-mlp_0.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if not record.get("diverged")]


@pytest.fixture(scope="session")
def zoo(zoo_folder: Path, zoo_records: list[dict[str, Any]]) -> ZooOf:
    """Return a function: checkpoint "0", "0.25", "0.5" or "1.0" → spectra of every network.

    Networks are in the order of `zoo_records`, layers in that of the network.
    """
    from harness.zoos.records import read_zoo

    networks = [n for n in read_zoo(zoo_folder) if not n.diverged]
    assert [n.index for n in networks] == [record["k"] for record in zoo_records]

    @cache
    def load(checkpoint: str) -> tuple[tuple[LayerSpectrum, ...], ...]:
        return tuple(network.spectra(checkpoint) for network in networks)

    return load


@pytest.fixture(scope="session")
def zoo_metrics(zoo: ZooOf) -> ZooMetricsOf:
    """Return a function: checkpoint → metrics of every network; 3 s a checkpoint, once."""

    @cache
    def measure(checkpoint: str) -> tuple[ModelMetrics, ...]:
        return tuple(metrics_from_spectra(spectra) for spectra in zoo(checkpoint))

    return measure
