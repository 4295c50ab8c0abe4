"""A trial's weights are logged once, or its run says why they are not."""

from pathlib import Path

import optuna
import safetensors.torch
import torch
from fixtures.studies.quick_studies import make_network

import wwopt
from wwopt.study.trial.trial_log import log_weights
from wwopt.tracking import open_study, open_trial
from wwopt.tracking.models import download_weights, find_models
from wwopt.tracking.tracked_studies import find_runs


def test_weights_above_the_limit_are_not_logged_and_the_run_says_so(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = open_trial(open_study(uri, name="s", study="u"), number=0, hyperparameters={})
    network = make_network(0)
    size = sum(p.numel() * 4 for p in network.parameters())
    assert log_weights(run, network, limit=size - 1, step=1) is None
    trial = find_runs(uri, run_id=run.run_id)[0]
    assert trial.tags["wwopt.weights"].startswith("not logged: 0 MB are more than the limit")
    assert download_weights(trial, tmp_path / "none") is None
    assert log_weights(run, network, limit=size, step=1) is not None


class Wordless(torch.nn.Module):
    """Its state cannot be taken, and it says nothing about it."""

    def state_dict(self, *_: object, **__: object) -> dict[str, torch.Tensor]:
        raise RuntimeError


def test_weights_that_cannot_be_saved_are_told_even_without_words(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = open_trial(open_study(uri, name="s", study="u"), number=0, hyperparameters={})
    assert log_weights(run, Wordless(), limit=10**6, step=1) is None
    trial = find_runs(uri, run_id=run.run_id)[0]
    assert trial.tags["wwopt.weights"] == "not logged: RuntimeError"


def test_no_weights_are_logged_where_none_are_wanted(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = optuna.create_study()
    with wwopt.record(study.ask(), epochs=1, tracking=uri, max_weights=0) as recorder:
        recorder.step(make_network(0))
    assert recorder.run_id is not None
    trial = find_runs(uri, run_id=recorder.run_id)[0]
    assert find_models(trial) == [] and trial.tags["wwopt.weights"].startswith("not logged")


def test_shared_weights_are_kept_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = open_trial(open_study(uri, name="s", study="u"), number=0, hyperparameters={})
    network = make_network(0)
    network.add_module("tied", network[0])
    model_id = log_weights(run, network, limit=10**6, step=1)
    path = download_weights(find_runs(uri, model_id=model_id)[0], tmp_path)
    assert path is not None and len(safetensors.torch.load_file(path)) == 6
