"""What runs keep as files: a study's settings whole and exact, a trial's layers and spectra."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.studies.quick_studies import LAYERS, make_network
from mlflow import MlflowClient

import wwopt
from wwopt.report.cautions import read_ranges
from wwopt.tracking import open_study, read_settings, read_study
from wwopt.tracking.artifacts import FORMAT, read_layer_table, read_spectra
from wwopt.tracking.keys import unique_keys
from wwopt.tracking.tracked_studies import TrackedStudy


def test_settings_longer_than_mlflow_keeps_survive(tmp_path: Path) -> None:
    """120 long names are 6,000 characters and more: as a parameter they are cut, and no JSON."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    layers = [f"encoder.blocks.{i}.attention.projection.weight_{'x' * 30}" for i in range(150)]
    space = {"layers": layers, "ranges": {"lr": [0.1 + 0.2, 1.0]}}
    open_study(uri, name="long", study="u", settings={"space": space, "seed": 3})
    study = read_study(uri, "long")
    with pytest.raises(ValueError, match="delimiter: line 1 column 6001"):
        json.loads(study.params["space"])
    settings = read_settings(study)
    assert settings["space"] == space and settings["seed"] == 3
    assert settings["format"] == FORMAT
    assert read_ranges(settings) == {"lr": (0.1 + 0.2, 1.0)}
    # A study of version 0.1.0 has the parameters alone.
    old = read_settings(replace(study, run_id=None))
    assert old["seed"] == 3 and read_ranges(old) == {}


def test_resuming_replaces_the_settings_and_masks_passwords(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    open_study(uri, name="s", study="u", settings={"jobs": 1})
    nested = {"jobs": 2, "more": {"urls": ["postgresql://me:s3cret@db/x"]}}
    run = open_study(uri, name="s", study="u", settings=nested)
    open_study(uri, name="s", study="u")  # a recorder that knows of no settings
    settings = read_settings(read_study(uri, "s"))
    assert settings["jobs"] == 2
    assert settings["more"] == {"urls": ["postgresql://me:***@db/x"]}
    files = [file.path for file in MlflowClient(uri).list_artifacts(run.run_id)]
    assert files == ["study.json"]


def test_layers_spectra_and_weights_are_those_of_the_network(tracked: TrackedStudy) -> None:
    trial = tracked[3]
    rate = float(trial.params[unique_keys([f"lr/{LAYERS[0]}"])[0]])
    metrics = wwopt.analyze(make_network(3, rate))
    table = read_layer_table(trial)
    assert table is not None and list(table["longname"]) == list(LAYERS)
    assert table["alpha"].to_numpy() == pytest.approx([x.alpha for x in metrics.layers], rel=1e-4)
    spectra = read_spectra(trial)
    assert spectra is not None and list(spectra) == list(LAYERS)
    for layer in metrics.layers:
        assert layer.spectrum is not None
        values, shares = spectra[layer.name]
        assert values == pytest.approx(layer.spectrum.eigenvalues, rel=1e-12)
        assert shares == pytest.approx(np.arange(layer.num_evals, 0, -1) / layer.num_evals)
