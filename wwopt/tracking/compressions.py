"""Compressed variants of a network in MLflow: each a run under the run of what was compressed.

That is the trial's where a study's network was compressed; otherwise a run of the experiment
"wwopt compress" for each source, by its name.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wwopt.plain_data import make_plain
from wwopt.tracking.keys import (
    COMPRESSED_TAG,
    COMPRESSION_KIND,
    KIND_TAG,
    NOTE_TAG,
    PARENT_TAG,
    PASSED_TAG,
)
from wwopt.tracking.runs import log_params, open_run
from wwopt.tracking.store import connect, explained, reach
from wwopt.tracking.studies import open_experiment
from wwopt.tracking.tracked_studies import TrackedStudy, search_runs
from wwopt.tracking.tracked_trials import TrackedTrial, read_numbers

EXPERIMENT = "wwopt compress"
SOURCE_KIND = "compressed"  # of the parent run that stands for a source
DOCUMENT = "compression.json"  # artifact: all that was measured
TABLE = "layers.json"  # artifact: a row a layer, as MLflow's screens show tables
GROUP = "compression/"  # of metrics and parameters


@dataclass(frozen=True)
class LoggedCompression:
    """What is logged of one variant; its file stays where it is."""

    name: str  # of the run
    passed: bool  # whether the gate calls no layer broken
    note: str  # Markdown; the description of the run
    params: Mapping[str, Any]  # what was asked for
    metrics: Mapping[str, float]  # bytes, ratio, seconds, spectral change
    quality: Mapping[str, float]  # as a trial logs it: validation metrics, and train_loss
    layers: pd.DataFrame
    document: Mapping[str, Any]  # plain data


@dataclass(frozen=True)
class TrackedVariant:
    """A compressed variant of a trial's network, as its run tells it."""

    trial: int  # whose network
    run_id: str
    name: str
    passed: bool
    params: Mapping[str, str]
    metrics: Mapping[str, float]  # as the run has them: "compression/bytes", "metrics/accuracy"

    @property
    def bytes(self) -> float:
        """Of its file; NaN where it was not logged."""
        return self.metrics.get(f"{GROUP}bytes", math.nan)


def log_compression(
    uri: str,
    variant: LoggedCompression,
    *,
    source: str = "",
    trial: TrackedTrial | None = None,
) -> str:
    """Log a variant as a run.

    Args:
        uri: of the tracking store; the trial's own where there is one.
        variant: what to log.
        source: what was compressed, by name; its parent run is found by it.
        trial: whose network it was, instead.

    Returns:
        The run's id.

    Raises:
        TrackingError: if the store cannot be reached or does not accept it.
    """
    reach(uri)
    with explained(uri):
        client = connect(uri)
        if trial is None:
            experiment = open_experiment(client, uri, EXPERIMENT)
            parent = _find_source(uri, experiment, source)
        else:
            parent = trial.run_id
            experiment = client.get_run(parent).info.experiment_id
        tags = {KIND_TAG: COMPRESSION_KIND, PARENT_TAG: parent}
        run = open_run(uri, experiment, variant.name, tags)
        run.tag({NOTE_TAG: variant.note, PASSED_TAG: str(variant.passed).lower()})
        log_params(uri, run.run_id, variant.params)
        numbers = {f"{GROUP}{name}": value for name, value in variant.metrics.items()}
        for name, value in variant.quality.items():  # under the names that a trial's have
            numbers["train/loss" if name == "train_loss" else f"metrics/{name}"] = value
        run.log(numbers, step=0)
        run.log_frame(variant.layers, TABLE)
        run.log_text(json.dumps(make_plain(dict(variant.document)), indent=1), DOCUMENT)
        client.set_terminated(run.run_id, "FINISHED")
    return run.run_id


def read_variants(study: TrackedStudy) -> list[TrackedVariant]:
    """The compressed variants of a study's trials, by trial, the largest first.

    Raises:
        TrackingError: if the store cannot be read.
    """
    if study.run_id is None:  # runs that wwopt did not write
        return []
    numbers = {trial.run_id: trial.number for trial in study.trials}
    with explained(study.uri):
        query = f"tags.`{KIND_TAG}` = '{COMPRESSION_KIND}'"
        runs = search_runs(connect(study.uri), [study.experiment_id], query)
    found = [
        TrackedVariant(
            trial=numbers[parent],
            run_id=run.info.run_id,
            name=run.info.run_name or "",
            passed=run.data.tags.get(PASSED_TAG) == "true",
            params=dict(run.data.params),
            metrics=read_numbers(run.data.metrics.items()),
        )
        for run in runs
        if (parent := run.data.tags.get(PARENT_TAG, "")) in numbers
        and run.info.status == "FINISHED"
    ]
    return sorted(found, key=lambda variant: (variant.trial, -variant.bytes, variant.name))


def _find_source(uri: str, experiment: str, source: str) -> str:
    """The run that stands for a source; made where there is none."""
    client = connect(uri)
    # A query has no way to write a name with both kinds of quotes.
    for run in search_runs(client, [experiment], f"tags.`{KIND_TAG}` = '{SOURCE_KIND}'"):
        if run.data.tags.get(COMPRESSED_TAG) == source:
            return str(run.info.run_id)
    tags = {KIND_TAG: SOURCE_KIND, COMPRESSED_TAG: source}
    run = open_run(uri, experiment, source.rpartition("/")[2] or source, tags)
    client.set_terminated(run.run_id, "FINISHED")
    return run.run_id
