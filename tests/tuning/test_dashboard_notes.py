"""What users of optuna-dashboard find: names, terms, and a note with the layer table."""

from pathlib import Path

import optuna
import pytest

from wwopt.tuning.dashboard_notes import write_notes
from wwopt.tuning.tuning import tune

optuna_dashboard = pytest.importorskip("optuna_dashboard", reason="needs optuna-dashboard")

STUDY = """
import torch, wwopt
def make():
    return torch.nn.Sequential(torch.nn.Linear(64, 80), torch.nn.ReLU(), torch.nn.Linear(80, 10))
def train(hp, conditions, recorder):
    recorder.step(make(), train_loss=1.0)
study = wwopt.StudySpec(
    "noted", train, wwopt.LayerSpace.from_model(make(), lr=(0.1, 1.0), dropout=None, momentum=None),
    conditions=wwopt.Conditions(seed=0, epochs=1),
)
"""


def test_a_tuned_study_is_named_and_noted(tmp_path: Path) -> None:
    file = tmp_path / "noted_study.py"
    file.write_text(STUDY)
    result = tune(str(file), trials=2, out=tmp_path / "out", progress=False)
    study, best = result.study, result.best_trial
    assert study.metric_names == ["objective"]
    note = optuna_dashboard.get_note(study)
    assert best is not None
    assert f"**Best: trial {best.number}.** Objective {best.value:.4f} (" in note
    assert "| layer | lr | alpha | D | traps | status |" in note
    assert "too few eigenvalues" in note
    trial = optuna.Trial(study, best._trial_id)
    assert note.endswith(optuna_dashboard.get_note(trial)) and optuna_dashboard.get_note(trial)


def test_a_study_without_a_best_trial_gets_no_note() -> None:
    assert write_notes(optuna.create_study(), None) is False
