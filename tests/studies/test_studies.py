"""The study files and the closed loops: what they say without data, and that they train with it."""

import dataclasses
import importlib
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from fixtures.machines.processes import run_wwopt
from fixtures.paths import ROOT, STUDIES
from fixtures.studies.made_data import write_data

import wwopt
from harness.loops import searches, tables
from harness.loops.trials import TASKS
from harness.score_statistics import Interval, mean_interval
from wwopt.study import LastNetwork
from wwopt.study.errors import StudyError
from wwopt.study.references import load_study
from wwopt.study.spec import derive_seed


@pytest.fixture
def data(made_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images and a text in the formats that the studies expect, given to them."""
    monkeypatch.setenv("WWOPT_DATA", str(made_data))
    return made_data


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def small_loop(data: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The task of the closed loop on MLPs, cut to seconds."""
    small = dataclasses.replace(TASKS["mlp"], epochs=1, fraction=0.05)
    monkeypatch.setitem(TASKS, "mlp", small)
    return small


@pytest.fixture(params=["mnist_mlp", "char_gpt"])
def name(request: pytest.FixtureRequest) -> str:
    """The name of a study file, every one in turn."""
    return str(request.param)


@pytest.fixture
def spec(name: str, data: Path) -> wwopt.StudySpec:
    return load_study(str(STUDIES / f"{name}.py"))


def test_a_study_without_data_says_which_and_how(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WWOPT_DATA", raising=False)
    with pytest.raises(StudyError, match=r"no folder is given for .* --data FOLDER") as caught:
        load_study(str(STUDIES / f"{name}.py"))
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("WWOPT_DATA", str(tmp_path))
    with pytest.raises(StudyError, match=f"{tmp_path} lacks .*--data FOLDER"):
        load_study(str(STUDIES / f"{name}.py"))


def test_a_study_trains_and_is_judged(spec: wwopt.StudySpec) -> None:
    small = dataclasses.replace(spec.conditions, epochs=1, fraction=0.01)
    spec = dataclasses.replace(spec, conditions=small)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(spec.optuna_objective(seed=0), n_trials=1)
    trial = study.trials[0]
    assert math.isfinite(trial.value)
    assert spec.metric in trial.user_attrs["metrics"]


def test_width_and_depth_are_those_of_the_conditions(spec: wwopt.StudySpec) -> None:
    one = spec.space_at(spec.conditions)
    deep = spec.space_at(dataclasses.replace(spec.conditions, depth=2.0))
    wide = spec.space_at(dataclasses.replace(spec.conditions, width=2.0))
    assert len(deep.layers) > len(one.layers) == len(wide.layers)
    assert max(wide.eigenvalues.values()) == 2 * max(one.eigenvalues.values())


def test_training_validation_and_test_data_do_not_overlap(name: str, data: Path) -> None:
    parts = [x for x, _ in importlib.import_module(name).load_data()]
    rows = [{part[i].numpy().tobytes() for i in range(len(part))} for part in parts]
    assert all(rows)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not rows[a] & rows[b]


def test_a_closed_loop_keeps_its_budget_and_runs_once(
    small_loop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searches.run_seed("mlp", 0, 3, tmp_path, guided=True, tied=True, evidence=False)
    path = tmp_path / "mlp-0.jsonl"
    store = searches.Store(path)
    random = store.find_arm("depth", "random")
    assert random is not None and len(random["keys"]) == 3
    for guide in searches.GUIDES:
        arm = store.find_arm("depth", guide)
        assert arm is not None
        assert set(arm["keys"][:2]) <= set(random["keys"])  # the first, random, ones are shared
        last = store[arm["keys"][-1]]["seconds"]
        assert arm["spent"] >= random["spent"]
        assert arm["spent"] - last["train"] - max(last.values()) < random["spent"] + 0.5

    # What is stored suffices for every score, to the last digit.
    record = store[random["keys"][0]]
    last = LastNetwork()
    module, conditions = small_loop.module, small_loop.conditions
    space = module.make_space(conditions)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(derive_seed(0, 0, 0))).ask()
    hp = space.suggest(trial)
    assert hp.to_dict() == record["hp"]
    torch.manual_seed(record["seed"])
    module.train(hp, dataclasses.replace(conditions, seed=record["seed"]), last)
    metrics = wwopt.analyze(last.model, seed=record["seed"])
    for how, (preset, version, _) in searches.SPECTRAL.items():
        direct = wwopt.SpectralObjective(preset, version=version)(
            metrics, train_loss=last.numbers["train_loss"]
        ).value
        found = searches.score(record, how, tmp_path, memorising=math.inf)
        assert found == pytest.approx(direct, rel=1e-9)

    before = path.read_text()
    searches.run_seed("mlp", 0, 3, tmp_path, guided=True, tied=True, evidence=False)
    assert path.read_text() == before
    tables.print_tables("mlp", [searches.Store(path)] * 2, tmp_path)
    table = capsys.readouterr().out
    measured = set(tables.CHOOSERS) - {"evidence", "noisy validation 1000"}
    for row in (*measured, "at random", "textbook"):
        assert f"\n| {row} | " in table
    assert "nan" not in table


def test_without_guided_searches_the_table_has_the_random_one_alone(
    small_loop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searches.run_seed("mlp", 0, 2, tmp_path, guided=False, tied=False, evidence=False)
    store = searches.Store(tmp_path / "mlp-0.jsonl")
    assert len(store) == 3  # the default configuration and two random networks
    tables.print_tables("mlp", [store], tmp_path)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    choosers = len(tables.CHOOSERS) - 2  # no evidence, no wrong labels
    assert len(table) == 2 + choosers + 3 + 2 + choosers  # of the error, then of the loss


def test_a_search_refuses_networks_that_memorise(small_loop: Any, tmp_path: Path) -> None:
    searches.run_seed("mlp", 0, 2, tmp_path, guided=False, tied=False, evidence=False)
    store = searches.Store(tmp_path / "mlp-0.jsonl")
    random = store.find_arm("depth", "random")
    assert random is not None
    record = dict(store[random["keys"][0]], losses=[3.0, 2.0, 9.0, 1.75, 9.0, 9.0, 9.0, 1.25])
    guarded = partial(searches.score, record, folder=tmp_path)
    assert guarded("validation-free", memorising=1.0) == math.inf
    assert guarded("validation-free", memorising=2.0) < math.inf
    assert guarded("validation-free, unguarded", memorising=1.0) < math.inf


def test_wrong_labels_are_the_share_that_was_asked_for_and_always_the_same(data: Path) -> None:
    from harness.loops.image_tasks import NOISY_MLP

    (_, right), *_ = importlib.import_module("mnist_mlp").load_data()
    (_, wrong), (_, validation), _ = NOISY_MLP.load_data()
    assert (wrong != right).double().mean().item() == pytest.approx(0.18, abs=0.02)
    assert torch.equal(wrong, next(NOISY_MLP.load_data())[1])
    noisy = NOISY_MLP.wrong_labels(validation)
    assert (noisy != validation).double().mean().item() == pytest.approx(0.18, abs=0.04)


def test_not_worse_is_the_mean_and_the_end_of_the_interval() -> None:
    assert tables.is_not_worse(Interval(0.1, -0.2, 0.39), "%")
    assert not tables.is_not_worse(Interval(0.11, 0.0, 0.2), "%")
    assert not tables.is_not_worse(Interval(0.0, -0.4, 0.4), "%")
    assert not tables.is_not_worse(Interval(0.02, 0.0, 0.02), "nats")


def test_intervals_over_seeds_are_those_of_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = mean_interval(values)
    half_width = 1.96 * values.std() / math.sqrt(values.size)  # of the normal approximation
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half_width, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half_width, abs=0.02)
    assert f"{mean_interval(np.full(3, -0.5)):+.1f}" == "-0.5 [-0.5, -0.5]"


KILLED = """
import os, signal
from pathlib import Path
import char_gpt
from wwopt.study.references import load_study

HERE = Path(__file__).parent

class Watched:
    def __init__(self, recorder):
        self.recorder = recorder
    def step(self, model, *, step, **numbers):
        with (HERE / "steps").open("a") as file:
            file.write(f"{step}\\n")
        self.recorder.step(model, step=step, **numbers)
        if step == 3 and os.environ.get("KILL"):  # before this epoch's state is kept
            os.kill(os.getpid(), signal.SIGKILL)

def train(hp, conditions, recorder):
    char_gpt.BATCHES = 2
    char_gpt.train(hp, conditions, Watched(recorder))

import dataclasses
study = dataclasses.replace(char_gpt.study, train=train)
"""


@pytest.mark.slow
def test_a_transformer_that_is_killed_in_a_trial_loses_less_than_an_epoch(
    data: Path, tmp_path: Path
) -> None:
    values = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "watched.py").write_text(KILLED)
        arguments = ["tune", folder / "watched.py", "--trials", 1, "--out", folder / "out"]
        variables = {"WWOPT_DATA": str(data), "PYTHONPATH": f"{STUDIES}{os.pathsep}{ROOT}"}
        if name == "killed":
            assert run_wwopt(*arguments, KILL="1", **variables).returncode == -9
        done = run_wwopt(*arguments, "--no-explain", **variables)
        assert done.returncode in (0, 1), done.stderr
        study = optuna.load_study(
            study_name="char-gpt", storage=f"sqlite:///{folder / 'out' / 'optuna.db'}"
        )
        last = study.trials[-1]
        values[name] = last.values, last.intermediate_values, last.user_attrs["constraints"]
        steps = [int(line) for line in (folder / "steps").read_text().splitlines()]
        assert steps == [1, 2, 3, *([3] if name == "killed" else []), 4, 5, 6, 7, 8]
        assert not (folder / "out" / "checkpoints").exists()
    assert values["killed"] == values["whole"]
