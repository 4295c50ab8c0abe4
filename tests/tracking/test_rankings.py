"""A ranking in MLflow: a run and a logged model for each candidate, its table without weights."""

from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.models import download_weights, find_models
from wwopt.tracking.rankings import EXPERIMENT, RANKING_TAG, LoggedCandidate, log_ranking
from wwopt.tracking.tracked_studies import read_study

TABLE = pd.DataFrame({"longname": ["a", "b"], "alpha": [2.5, 3.5]})


def candidate(name: str, score: float) -> LoggedCandidate:
    metrics = {"rank/score": score, "alpha/mean": 3.0}
    return LoggedCandidate(name, f"**{name}**", {"source": f"{name}.pt"}, metrics, TABLE)


def test_every_candidate_is_a_run_that_its_model_is_found_by(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    ranking = log_ranking(uri, [candidate("first", -0.5), candidate("second", 0.5)])
    again = log_ranking(uri, [candidate("third", 1.5)])
    assert ranking != again
    study = read_study(uri, EXPERIMENT)
    assert [trial.name for trial in study.trials] == ["first", "second", "third"]
    assert [t.tags[RANKING_TAG] for t in study.trials] == [ranking, ranking, again]
    first = study.trials[0]
    assert (first.state, first.params) == ("COMPLETE", {"source": "first.pt"})
    assert first.tags["mlflow.note.content"] == "**first**"
    client = MlflowClient(uri)
    models = client.search_logged_models([study.experiment_id], "metrics.`rank/score` < 0")
    assert [model.model_id for model in models] == find_models(first)
    pd.testing.assert_frame_equal(read_layer_table(first), TABLE, check_dtype=False)
    assert download_weights(first, tmp_path / "none") is None  # they stay where they are
