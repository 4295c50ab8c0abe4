"""After a study of its own objective: what Optuna knows of it stands in MLflow and in a report."""

from pathlib import Path

import optuna
import pytest
from fixtures.studies.recordings import model
from mlflow import MlflowClient

import wwopt
from wwopt.study.errors import StudyError
from wwopt.study.trial.recording import record
from wwopt.tuning.observed_studies import judge_scores


@pytest.mark.slow
def test_how_well_the_scores_agreed(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.1, 1.0)
        with record(trial, observe=True, epochs=1, tracking=uri) as recorder:
            recorder.step(model(), train_loss=1.0 - x)
        return x  # which the recorder is not told

    study = optuna.create_study(
        study_name="own", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(objective, n_trials=8)
    judged = judge_scores(study, tracking=uri)
    found = {a.score: a for a in judged.scores}
    assert set(found) == {"validation-free", "weights-only", "training loss"}
    assert list(found)[-1] == "training loss"
    for score in ("training loss", "validation-free"):
        assert found[score].tau == pytest.approx(1.0)
    assert found["training loss"].chosen == study.best_trial.number
    assert found["weights-only"].verdict == "unclear"  # one network for all
    assert "validation-free: would have chosen trial" in str(judged)
    tracked = wwopt.read_study(uri, "own")
    assert [t.metrics["metrics/own_objective"] for t in tracked.trials] == [
        t.value for t in study.trials
    ]
    assert tracked.run_id is not None
    path = MlflowClient(uri).download_artifacts(tracked.run_id, "report.html", str(tmp_path))
    page = Path(path).read_text()
    assert "validation-free: would have chosen trial" in page
    assert "The study has an objective of its own" in page
    assert tracked.tags["wwopt.best_trial"] == str(study.best_trial.number)


def test_what_cannot_be_judged_says_why() -> None:
    with pytest.raises(StudyError, match="0 complete trials, of which 0 were observed"):
        judge_scores(optuna.create_study())
    with pytest.raises(StudyError, match="has 2 objectives"):
        judge_scores(optuna.create_study(directions=["minimize", "maximize"]))
