"""How a trial ended is left once, where Optuna and MLflow show it."""

from pathlib import Path

import optuna
import pytest
from fixtures.studies.recordings import model, rank_one, study
from matplotlib import pyplot as plt

import wwopt
from wwopt.study.trial.recording import record
from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.tracked_studies import find_runs


def test_terms_alphas_and_layers_are_left_in_the_trial() -> None:
    s = study()
    with record(s.ask(), epochs=2) as recorder:
        recorder.step(model(), train_loss=1.0)
        recorder.step(model(), train_loss=0.5, held_out=0.9)
    attributes = s.trials[0].user_attrs
    assert attributes["status"] == "ok"
    assert sum(attributes["terms"].values()) == pytest.approx(recorder.value)
    assert attributes["alpha"]["0"] == pytest.approx(wwopt.analyze(model())["0"].alpha)
    assert attributes["layers"]["2"]["status"] == "too few eigenvalues"
    assert attributes["metrics"] == {"held_out": 0.9, "train_loss": 0.5}


def test_optunas_own_plots_work_on_what_is_left() -> None:
    s = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        scale = trial.suggest_float("scale", 0.5, 2.0)
        with record(trial, epochs=1) as recorder:
            recorder.step(model(trial.number, scale))
        return recorder.value

    s.optimize(objective, n_trials=3)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        axes = optuna.visualization.matplotlib.plot_slice(
            s, target=lambda t: t.user_attrs["alpha"]["0"], target_name="alpha of layer 0"
        )
    assert len(axes.collections[0].get_offsets()) == 3
    plt.close(axes.figure)  # Optuna leaves it open


def test_the_end_of_a_trial_is_told_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    trial = study().ask()
    with pytest.raises(optuna.TrialPruned), record(trial, tracking=uri) as recorder:
        recorder.step(rank_one())  # of unknown length: judged only on leaving the block
    assert recorder.run_id is not None
    (found,) = find_runs(uri, run_id=recorder.run_id)
    table = read_layer_table(found)
    assert table is not None
    assert list(table["longname"]) == ["0", "2"]
    assert found.state == "PRUNED" and found.status == "broken: 0 collapsed"
