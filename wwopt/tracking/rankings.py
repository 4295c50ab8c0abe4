"""A ranking in MLflow: every candidate a run with a logged model, found by its spectral metrics."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pandas as pd

from wwopt.tracking.artifacts import log_layer_table
from wwopt.tracking.keys import KIND_TAG, NOTE_TAG
from wwopt.tracking.models import log_model
from wwopt.tracking.runs import log_params, open_run
from wwopt.tracking.store import connect, explained, reach
from wwopt.tracking.studies import open_experiment

EXPERIMENT = "wwopt rank"
RANKING_TAG = "wwopt.ranking"  # UUID that the candidates of one ranking share


@dataclass(frozen=True)
class LoggedCandidate:
    """What is logged of one candidate; its weights stay where they are."""

    name: str
    note: str  # Markdown; the description of its run
    params: Mapping[str, str]  # source, family, score, ...
    metrics: Mapping[str, float]
    layers: pd.DataFrame  # as `ModelMetrics.to_frame`


def log_ranking(uri: str, candidates: Iterable[LoggedCandidate]) -> str:
    """Log each candidate as a run of the experiment "wwopt rank", with a logged model.

    The model holds the layer table, so that it can be ranked again without its weights:
    `search_logged_models([experiment], "metrics.`alpha/mean` < 3")` finds it by its metrics.

    Returns:
        The ranking's id, which the tag `wwopt.ranking` of its runs holds.

    Raises:
        TrackingError: if the store cannot be reached or does not accept them.
    """
    reach(uri)
    ranking = uuid4().hex
    with explained(uri):
        client = connect(uri)
        experiment = open_experiment(client, uri, EXPERIMENT)
        for candidate in candidates:
            tags = {KIND_TAG: "candidate", RANKING_TAG: ranking, NOTE_TAG: candidate.note}
            run = open_run(uri, experiment, candidate.name, tags)
            log_params(uri, run.run_id, candidate.params)
            run.log(candidate.metrics, step=0)
            log_layer_table(run, candidate.layers)
            with tempfile.TemporaryDirectory() as folder:
                candidate.layers.to_csv(Path(folder) / "layers.csv", index=False)
                log_model(run, Path(folder), step=0)
            client.set_terminated(run.run_id, "FINISHED")
    return ranking
