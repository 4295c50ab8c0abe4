"""Study files and references: what loads, and what is said of what does not."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from fixtures.paths import STUDIES
from fixtures.studies import TINY_STUDY, write_tiny_study
from torch import nn

import wwopt
from wwopt.study.errors import StudyError
from wwopt.study.references import load_study, reference_of
from wwopt.study.spec import derive_seed
from wwopt.tuning.study_samplers import choose_study_sampler, make_study_pruner, make_study_sampler
from wwopt.tuning.trial_runs import run_trial

DIGITS = STUDIES / "digits.py"


def test_a_file_and_an_attribute_are_references(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TINY_STUDY + "other = study\n")
    assert load_study(str(tmp_path / "mine.py")).name == "tiny"
    assert load_study(f"{tmp_path / 'mine.py'}:other").name == "tiny"


def test_a_loaded_study_knows_its_own_reference(study_file: str) -> None:
    assert reference_of(load_study(study_file)) == f"{study_file}:study"


def test_a_study_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "wwopt_test_neighbour.py").write_text(TINY_STUDY)
    (tmp_path / "mine.py").write_text("from wwopt_test_neighbour import study\n")
    assert load_study(str(tmp_path / "mine.py")).name == "tiny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no attribute 'study'"),
        ("study = 3", "study is a int, not a StudySpec"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named .* \\(line 1\\)"),
        ("\n\n1/0", "ZeroDivisionError: division by zero \\(line 3\\)"),
        ("def f(:", "SyntaxError: .* \\(line 1\\)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_file_without_a_study_is_refused_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(StudyError, match=message) as caught:
        load_study(str(tmp_path / "mine.py"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nofile.py", "study file nofile.py does not exist"),
        ("digits", "'digits' is no study: name a file"),
        ("no.such.module:study", "ModuleNotFoundError"),
    ],
)
def test_a_reference_to_nothing_is_refused(reference: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        load_study(reference)


def test_a_study_in_main_cannot_be_referred_to() -> None:
    code = TINY_STUDY + "from wwopt.study import reference_of\nreference_of(study)\n"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "defined in __main__" in result.stderr


def test_a_study_without_a_countable_layer_is_refused() -> None:
    small = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    space = wwopt.LayerSpace.from_model(small, lr=(0.01, 0.1), dropout=None, momentum=None)
    spec = wwopt.StudySpec("small", print, space)
    with pytest.raises(StudyError, match="no layer has 50 eigenvalues \\(0 20, 1 10\\)"):
        spec.check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"second": "accuracy"}, "unknown second objective 'accuracy'; known: train_loss, size"),
        ({"second": "size", "pruner": optuna.pruners.MedianPruner()}, "names a pruner, and Optuna"),
        ({"second": "size", "sampler": optuna.samplers.CmaEsSampler()}, "names CMA-ES, which"),
    ],
)
def test_a_second_objective_that_cannot_be_is_refused(
    options: dict[str, Any], message: str
) -> None:
    import dataclasses

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
    import torch

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


def test_sampler_and_pruner_are_chosen_together_unless_the_study_names_its_own() -> None:
    spec = load_study(str(DIGITS))
    space = spec.space_at(spec.conditions)

    def choose(spec: wwopt.StudySpec) -> str:
        return choose_study_sampler(spec, space, trials=20)

    assert choose(spec) == "gp"  # 9 depth knots less one: the output has no dropout
    assert isinstance(make_study_pruner(spec, space, kind="gp"), optuna.pruners.NopPruner)
    assert isinstance(make_study_pruner(spec, space, kind="tpe"), optuna.pruners.MedianPruner)
    wanted = dataclasses.replace(spec, pruner=optuna.pruners.PercentilePruner(25.0))
    assert choose(wanted) == "tpe"  # a Gaussian process would forget what is pruned
    assert make_study_pruner(wanted, space, kind="tpe") is wanted.pruner
    off = dataclasses.replace(spec, pruner=optuna.pruners.NopPruner())
    assert choose(off) == "gp"
    own = dataclasses.replace(spec, sampler=optuna.samplers.GPSampler(seed=0))
    assert make_study_sampler(own, space, seed=1, kind="tpe") is own.sampler
    assert isinstance(make_study_pruner(own, space, kind="tpe"), optuna.pruners.NopPruner)
    random = dataclasses.replace(spec, sampler=lambda seed: optuna.samplers.RandomSampler(seed))
    sampler = make_study_sampler(random, space, seed=0, kind="gp")
    assert isinstance(sampler, optuna.samplers.RandomSampler)
    assert isinstance(make_study_pruner(random, space, kind="gp"), optuna.pruners.MedianPruner)
