"""A study under its `conditions`: what cannot be is refused, and its trials repeat."""

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from fixtures.paths import STUDIES
from fixtures.studies.quick_studies import write_tiny_study
from torch import nn

import wwopt
from wwopt.study.errors import StudyError
from wwopt.study.references import load_study
from wwopt.study.spec import derive_seed

DIGITS = STUDIES / "digits.py"


def test_a_study_without_a_countable_layer_is_refused() -> None:
    small = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    space = wwopt.LayerSpace.from_model(small, lr=(0.01, 0.1), dropout=None, momentum=None)
    spec = wwopt.StudySpec("small", print, space)
    with pytest.raises(StudyError, match="no layer has 50 eigenvalues \\(0 20, 1 10\\)"):
        spec.check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"second": "accuracy"},
            "unknown second objective 'accuracy'; known: train_loss, size",
        ),
        ({"second": "size", "pruner": optuna.pruners.MedianPruner()}, "names a pruner, and Optuna"),
        ({"second": "size", "sampler": optuna.samplers.CmaEsSampler()}, "names CMA-ES, which"),
    ],
)
def test_a_second_objective_that_cannot_be_is_refused(
    options: dict[str, Any], message: str
) -> None:

    with pytest.raises(StudyError, match=message):
        dataclasses.replace(load_study(str(DIGITS)), **options).check()


def test_size_is_the_number_of_parameters_and_a_loss_that_is_missing_is_said(
    tmp_path: Path,
) -> None:
    size = {"epochs=4),": 'epochs=4), second="size",'}
    spec = load_study(write_tiny_study(tmp_path, size))
    study = optuna.create_study(directions=spec.directions)
    study.optimize(spec.optuna_objective(), n_trials=1)
    assert study.trials[0].values[1] == 64 * 80 + 80 + 80 * 10 + 10

    loss = {'"size"': '"train_loss"', ", train_loss=loss.item()": ""}
    objective = load_study(write_tiny_study(tmp_path, size | loss)).optuna_objective()
    with pytest.raises(ValueError, match='second="train_loss" needs the loss'):
        study.optimize(objective, n_trials=1)
    assert "needs the loss" in study.trials[1].user_attrs["error"]


def test_the_plain_objective_trains_from_the_trials_seed_and_leaves_torchs_alone(
    study_file: str,
) -> None:

    spec = load_study(study_file)
    values = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        before = torch.random.get_rng_state()
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(spec.optuna_objective(seed=5), n_trials=2)
        values.append([t.value for t in study.trials])
        assert torch.equal(torch.random.get_rng_state(), before)
    assert values[0] == values[1]
    assert values[0][0] != values[0][1]


def test_seeds_of_trials_differ_and_repeat() -> None:
    seeds = [derive_seed(0, number) for number in range(100)]
    assert len(set(seeds)) == 100
    assert seeds == [derive_seed(0, number) for number in range(100)]
    assert derive_seed(1, 0) != derive_seed(0, 0)
