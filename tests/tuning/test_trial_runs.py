"""Each trial is run once, from a model of its own, and ends alone, however it ends."""

import dataclasses
from pathlib import Path

import optuna
import pytest
import torch
from fixtures.studies import write_tiny_study
from fixtures.tuned_folders import trial_runs
from optuna.trial import TrialState
from torch import nn

import wwopt
from wwopt.study.errors import StudyError
from wwopt.study.references import load_study
from wwopt.study.spec import derive_seed
from wwopt.tuning.trial_runs import run_trial
from wwopt.tuning.tuning import tune


def test_a_space_that_is_a_function_makes_one_model_a_trial(tmp_path: Path) -> None:
    made: list[wwopt.Conditions] = []
    plain = load_study(write_tiny_study(tmp_path))

    def make_space(conditions: wwopt.Conditions) -> wwopt.LayerSpace:
        made.append(conditions)
        model = nn.Sequential(nn.Linear(64, 80), nn.ReLU(), nn.Dropout(), nn.Linear(80, 10))
        return wwopt.LayerSpace.from_model(
            model, lr=(0.01, 1.0), dropout=(0.0, 0.5), momentum=(0.0, 0.9)
        )

    spec = dataclasses.replace(plain, space=make_space)
    study = optuna.create_study()
    before = torch.random.get_rng_state()
    for number in range(1, 4):
        assert run_trial(spec, study, tracking=None, seed=0).state == "COMPLETE"
        assert len(made) == number
    assert torch.equal(torch.random.get_rng_state(), before)
    made.clear()
    study.optimize(spec.optuna_objective(), n_trials=2)
    assert [conditions.seed for conditions in made] == [derive_seed(0, 3), derive_seed(0, 4)]


def test_a_sampled_size_makes_its_own_model_besides(tmp_path: Path) -> None:
    widths: list[float] = []
    plain = load_study(write_tiny_study(tmp_path))

    def make_space(conditions: wwopt.Conditions) -> wwopt.LayerSpace:
        widths.append(conditions.width)
        space = plain.space
        assert isinstance(space, wwopt.LayerSpace)
        return dataclasses.replace(space, widths=(1.0, 2.0))

    spec = dataclasses.replace(plain, space=make_space)
    run_trial(spec, optuna.create_study(), tracking=None, seed=0)
    assert widths == [1.0, 1.0]  # to know the sizes that there are, then at the first of them


def test_two_jobs_make_the_exact_number_of_trials_and_double_none(
    study_file: str, tmp_path: Path
) -> None:
    # The workers, too, are told which score guides in place of the rule.
    options = {"out": tmp_path, "jobs": 2, "progress": False, "objective": "weights-only"}
    result = tune(study_file, trials=7, **options)
    assert {t.user_attrs["guide"] for t in result.study.trials} == {"weights-only"}
    assert [t.number for t in result.study.trials] == list(range(7))
    assert all(t.state.is_finished() for t in result.study.trials)
    assert trial_runs(tmp_path) == [str(i) for i in range(7)]
    assert len({tuple(t.params.values()) for t in result.study.trials}) == 7
    with pytest.raises(StudyError, match="holds values of another score: preset 'weights-only'"):
        tune(study_file, trials=8, **options | {"objective": "validation-free"})


def test_a_worker_that_dies_takes_only_its_own_trial(tmp_path: Path) -> None:
    # The first trial's worker is killed as the kernel would.
    mark = "import os, signal, pathlib\nMARK = pathlib.Path(__file__).with_suffix('.mark')\n"
    killer = (
        "    try:\n        MARK.touch(exist_ok=False)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    except FileExistsError:\n        pass\n    model = hp"
    )
    path = write_tiny_study(
        tmp_path, {"import torch\n": mark + "import torch\n", "    model = hp": killer}
    )
    result = tune(path, trials=5, out=tmp_path / "out", jobs=2, progress=False)
    finished = [t for t in result.study.trials if t.state.is_finished()]
    assert len(finished) == 5
    assert sum(t.state == TrialState.RUNNING for t in result.study.trials) == 1
