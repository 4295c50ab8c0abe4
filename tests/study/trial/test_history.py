"""A recorder of a second try knows what the first one knew."""

from pathlib import Path

import optuna
import pytest
import torch
from mlflow import MlflowClient
from torch import nn

import wwopt
from wwopt.study.trial.history import STEPS, History, Step
from wwopt.study.trial.recording import record
from wwopt.tracking import StudyRun, open_study

EPOCHS = 8


class Killed(BaseException):
    """Stands for the end of the process: nothing is caught."""


def train(
    trial: optuna.Trial,
    folder: Path,
    *,
    start: int = 0,
    until: int = EPOCHS,
    tracking: StudyRun | None = None,
) -> wwopt.Recorder:
    """Train as a study that keeps its state does; an epoch's network follows from its number."""
    conditions = wwopt.Conditions(seed=0, epochs=EPOCHS, checkpoint_dir=str(folder))
    with record(trial, conditions=conditions, tracking=tracking) as recorder:
        for epoch in range(start, EPOCHS + 1):
            torch.manual_seed(epoch)
            model = nn.Sequential(nn.Linear(64, 80), nn.ReLU(), nn.Linear(80, 10))
            with torch.no_grad():
                model[0].weight.mul_(1.0 + epoch)
            if epoch == 0:
                recorder.step(model, step=0)
            else:
                recorder.step(model, train_loss=2.0 - epoch / 10, step=epoch, accuracy=epoch / 9)
            if epoch == until:
                raise Killed
    return recorder


def study_of() -> optuna.Study:
    return optuna.create_study(pruner=optuna.pruners.NopPruner())


@pytest.mark.parametrize("until", [3, 4, 6])
def test_a_second_try_ends_as_one_that_was_not_interrupted(tmp_path: Path, until: int) -> None:
    tracking = open_study(f"sqlite:///{tmp_path / 'mlflow.db'}", name="s", study="u")
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
    study = study_of()
    whole = study.ask()
    expected = train(whole, folders[0], until=99, tracking=tracking)
    killed, again = study.ask(), study.ask()
    with pytest.raises(Killed):
        train(killed, folders[1], until=until, tracking=tracking)
    # Its own checkpoint is one epoch older than what the recorder has seen.
    found = train(again, folders[1], start=until, until=99, tracking=tracking)
    assert found.value == expected.value
    ours, theirs = study.trials[again.number], study.trials[whole.number]
    assert ours.intermediate_values == theirs.intermediate_values
    same = ("constraints", "scores", "terms", "metrics", "alpha", "ending")
    assert {k: ours.user_attrs[k] for k in same} == {k: theirs.user_attrs[k] for k in same}
    client = MlflowClient(tracking.uri)
    for key in ("train/loss", "objective/value", "metrics/accuracy", "alpha/mean"):
        curves = [
            [(m.step, m.value) for m in client.get_metric_history(r.run_id or "", key)]
            for r in (found, expected)
        ]
        assert sorted(curves[0]) == sorted(curves[1]) and curves[0], key


def test_a_training_that_begins_anew_forgets_the_tries_before(tmp_path: Path) -> None:
    study = study_of()
    with pytest.raises(Killed):
        train(study.ask(), tmp_path, until=5)
    trial = study.ask()
    train(trial, tmp_path, until=99)
    assert sorted(study.trials[1].intermediate_values) == [4, 6, 8]
    steps = (tmp_path / STEPS).read_text().splitlines()
    assert len(steps) == EPOCHS + 1


def test_a_line_that_was_not_finished_is_left_out(tmp_path: Path) -> None:
    history = History(tmp_path)
    for number in (1, 2):
        history.add(Step(number, {"train/loss": 0.5}, {"train_loss": 0.5}))
    with (tmp_path / STEPS).open("a") as file:
        file.write('{"number": 3, "log')
    assert [step.number for step in History(tmp_path).take(before=9)] == [1, 2]
    again = History(tmp_path)
    assert [step.number for step in again.take(before=2)] == [1] and again.take(before=9) == []
    assert [step.number for step in History(tmp_path).take(before=9)] == [1]


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    assert History(tmp_path).read_spectra("last") is None
    trial = study_of().ask()
    with record(trial, epochs=1) as recorder:
        recorder.step(nn.Linear(64, 80), train_loss=1.0)
    assert list(tmp_path.iterdir()) == []
