"""Candidates that lie in MLflow: runs, logged models, the trials of a study or an experiment.

A trial's checkpoint is fetched, analysed and deleted before the next one is. Where no weights were
logged its layer table is read, which holds the same metrics, but not whether there is batch norm,
nor what share of the parameters they cover.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from wwopt.selection.candidates import Candidate, read_candidate
from wwopt.tracking import TrackingError
from wwopt.tracking.addresses import find_address
from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.models import download_weights
from wwopt.tracking.tracked_studies import read_study
from wwopt.tracking.tracked_trials import TrackedTrial


def read_tracked(
    uri: str,
    *,
    names: Sequence[str] = (),
    study: str | None = None,
    experiment: str | None = None,
    layers: Sequence[str] | None = None,
    key: str | None = None,
    seed: int = 0,
    shuffles: int = 3,
    quick: bool = False,
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Read candidates from a tracking store, one after another.

    Args:
        uri: of the tracking store.
        names: `runs:/RUN_ID`, `models:/MODEL_ID`, `models:/NAME/VERSION` of its registry, or
            `models:/NAME@ALIAS`.
        study: its name; all its trials are candidates.
        experiment: its name; all its runs are candidates.
        layers: names to analyse; None for all.
        key: dotted path of the model in checkpoints that hold several.
        seed: of the shuffles.
        shuffles: of every layer.
        quick: estimate large layers quickly, as `analyze` does.

    Returns:
        The candidates by name, and name → why there is nothing to rank.

    Raises:
        TrackingError: if the store cannot be read, or holds no such study or experiment.
    """
    trials: dict[str, TrackedTrial] = {}
    lost: dict[str, str] = {}
    for name in names:
        try:
            trials |= _name_trials(find_address(uri, name), name)
        except TrackingError as error:
            lost[name] = str(error)
    for group in dict.fromkeys(name for name in (study, experiment) if name is not None):
        trials |= _name_trials(read_study(uri, group).trials, "")
    read = partial(
        read_candidate, layers=layers, key=key, seed=seed, shuffles=shuffles, quick=quick
    )
    found: dict[str, Candidate] = {}
    for name, trial in tqdm(trials.items(), desc="from MLflow", delay=2, leave=False):
        try:
            found[name] = _read_trial(name, trial, read, named=layers is not None)
        except (ValueError, OSError) as error:
            lost[name] = str(error)
    return found, lost


def _name_trials(trials: Sequence[TrackedTrial], name: str) -> Mapping[str, TrackedTrial]:
    """Names of the trials: the one given, or, where it stands for several, their own."""
    if name and len(trials) == 1:
        return {name: trials[0]}
    named: dict[str, TrackedTrial] = {}
    for trial in trials:
        state = "" if trial.state == "COMPLETE" else f" ({trial.state.lower()})"
        own = f"{trial.name or f'run {trial.number}'}{state}"
        named[own if own not in named else f"{own} {trial.run_id}"] = trial
    return named


def _read_trial(
    name: str,
    trial: TrackedTrial,
    read: Callable[[str, Path], Candidate],
    *,
    named: bool,
) -> Candidate:
    with tempfile.TemporaryDirectory() as folder:
        path = download_weights(trial, Path(folder))
        if path is not None:
            return read(name, path)
    table = read_layer_table(trial)
    if table is None:
        raise TrackingError("its run has neither weights nor a layer table")
    if named:  # layers
        raise TrackingError("its run has a layer table and no weights, which --layers needs")
    return read_candidate(name, table)
