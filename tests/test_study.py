"""Study files and references: what loads, and what is said of what does not."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from torch import nn

import wwopt
from wwopt.study import StudyError, derive_seed, load_study, reference_of

DIGITS = Path(__file__).parents[1] / "studies" / "digits.py"

STUDY = """
import torch
from torch import nn
import wwopt

def make():
    return nn.Sequential(nn.Linear(64, 80), nn.ReLU(), nn.Dropout(), nn.Linear(80, 10))

def train(hp, conditions, recorder):
    model = hp.apply_dropout(make())
    optimizer = hp.optimizer(model, torch.optim.SGD)
    for _ in range(conditions.epochs):
        x = torch.randn(32, 64)
        loss = (model(x) - x[:, :10]).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        recorder.step(model, train_loss=loss.item())

study = wwopt.StudySpec(
    "tiny", train,
    wwopt.LayerSpace.from_model(make(), lr=(.01, .1), dropout=(0., .5), momentum=(0., .9)),
    conditions=wwopt.Conditions(seed=0, epochs=2),
)
"""


def test_a_file_and_an_attribute_are_references(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STUDY + "other = study\n")
    assert load_study(str(tmp_path / "mine.py")).name == "tiny"
    assert load_study(f"{tmp_path / 'mine.py'}:other").name == "tiny"


def test_a_loaded_study_knows_its_own_reference(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(STUDY)
    assert reference_of(load_study(str(path))) == f"{path}:study"


def test_a_study_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "wwopt_test_neighbour.py").write_text(STUDY)
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
    code = STUDY + "from wwopt.study import reference_of\nreference_of(study)\n"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "defined in __main__" in result.stderr


def test_a_study_without_a_countable_layer_is_refused() -> None:
    small = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    space = wwopt.LayerSpace.from_model(small, lr=(0.01, 0.1), dropout=None, momentum=None)
    spec = wwopt.StudySpec("small", print, space)
    with pytest.raises(StudyError, match="no layer has 50 eigenvalues \\(0 20, 1 10\\)"):
        spec.check()


def test_the_plain_objective_trains_from_the_trials_seed_and_leaves_torchs_alone(
    tmp_path: Path,
) -> None:
    import torch

    (tmp_path / "mine.py").write_text(STUDY)
    spec = load_study(str(tmp_path / "mine.py"))
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


def test_no_pruner_under_a_sampler_that_ignores_pruned_trials() -> None:
    spec = load_study(str(DIGITS))
    assert isinstance(spec.make_pruner(), optuna.pruners.MedianPruner)
    import dataclasses

    gp = dataclasses.replace(spec, sampler=optuna.samplers.GPSampler(seed=0))
    assert isinstance(gp.make_pruner(), optuna.pruners.NopPruner)
    random = dataclasses.replace(spec, sampler=lambda seed: optuna.samplers.RandomSampler(seed))
    assert isinstance(random.make_sampler(0), optuna.samplers.RandomSampler)
