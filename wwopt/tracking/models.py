"""A trial's weights as MLflow's logged model: found by its spectral metrics, ready to register."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from wwopt.tracking.keys import LAYER_ALPHA, VALUE
from wwopt.tracking.runs import TrialRun
from wwopt.tracking.store import connect, download, explained
from wwopt.tracking.tracked_trials import TrackedTrial

MODEL_TYPE = "checkpoint"
FIRST = (VALUE, "alpha/mean")


def log_model(run: TrialRun, folder: Path, *, step: int) -> str:
    """Log the files of a folder as the run's model, with the run's parameters and aggregates.

    They make it searchable: `search_logged_models([experiment], "metrics.`alpha/mean` < 3")`. An
    external model would leave the files elsewhere, and `mlflow.pytorch.log_model` takes seconds.

    Args:
        run: of the trial.
        folder: with the model's files.
        step: of the training that the model is from.

    Returns:
        MLflow's id of the model.
    """
    from mlflow.entities import LoggedModelOutput, Metric

    client = connect(run.uri)
    record = client.get_run(run.run_id)
    model = client.create_logged_model(
        record.info.experiment_id,
        name=re.sub(r"[/:.%\"']", "-", record.info.run_name or run.run_id),
        source_run_id=run.run_id,
        params=dict(record.data.params),
        model_type=MODEL_TYPE,
    )
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    # The objective and alpha first: the order is that of the columns on MLflow's page of models.
    values = sorted(record.data.to_proto().metrics, key=lambda m: (m.key not in FIRST, m.key))
    # With their own times: a metric of a model is one of the run too, which must not double.
    metrics = [
        Metric(m.key, m.value, m.timestamp, m.step, model_id=model.model_id)
        for m in values
        if not m.key.startswith(f"{LAYER_ALPHA}/")
    ]
    client.log_batch(run.run_id, metrics=metrics)
    client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step)])
    return str(model.model_id)


def register_model(uri: str, model_id: str, name: str) -> str:
    """Put a logged model into MLflow's registry, as a new version of that name.

    Returns:
        The version.

    Raises:
        TrackingError: if the registry does not accept the name or cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    with explained(uri):
        client = connect(uri)
        model: Any = client.get_logged_model(model_id)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # "models:/ID" as the source would be looked up in the default store, not in this one.
        version = client.create_model_version(
            name,
            source=model.artifact_location,
            run_id=model.source_run_id,
            model_id=model_id,
            await_creation_for=0,
        )
    return str(version.version)


# In order of preference. Not .npz, which among a run's artifacts are spectra and logs.
WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".pt", ".pth", ".ckpt", ".bin")


def download_weights(trial: TrackedTrial, folder: str | Path) -> Path | None:
    """Copy the trial's checkpoint into a folder.

    Its logged models are searched first, then the run's own artifacts, each for an index of shards,
    for a safetensors file, else for one that torch saved.

    Args:
        trial: whose.
        folder: made where it does not exist.

    Returns:
        The file, or the folder of shards; None where no weights were logged.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with explained(trial.uri):
        client = connect(trial.uri)
        for model in _find_models(trial):
            listed = _walk(partial(client.list_logged_model_artifacts, model.model_id))
            chosen = _choose(listed)
            if chosen is not None:
                source = f"{model.artifact_location}/{chosen}".rstrip("/")
                return download(trial.uri, source, folder)
        if not trial.run_id:
            return None
        chosen = _choose(_walk(partial(client.list_artifacts, trial.run_id)))
        if chosen is None:
            return None
        return download(trial.uri, f"runs:/{trial.run_id}/{chosen}".rstrip("/"), folder)


def find_weights(folder: Path) -> Path | None:
    """The checkpoint among the files of a folder, chosen as `download_weights` does."""
    if folder.is_file():
        return folder
    files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))]
    chosen = _choose(files)
    return None if chosen is None else folder / chosen


def find_models(trial: TrackedTrial) -> list[str]:
    """MLflow's ids of the trial's logged models, the newest first."""
    return [model.model_id for model in _find_models(trial)]


def _find_models(trial: TrackedTrial) -> list[Any]:
    with explained(trial.uri):
        client = connect(trial.uri)
        if trial.model_id is not None:
            return [client.get_logged_model(trial.model_id)]
        experiment = client.get_run(trial.run_id).info.experiment_id
        query = f"source_run_id = '{trial.run_id}'"
        newest_first = [{"field_name": "creation_time", "ascending": False}]
        return list(client.search_logged_models([experiment], query, order_by=newest_first))


def _walk(list_folder: Callable[[str | None], Any], folder: str | None = None) -> Iterator[str]:
    for entry in list_folder(folder):
        if entry.is_dir:
            yield from _walk(list_folder, entry.path)
        else:
            yield entry.path


def _choose(paths: Iterable[str]) -> str | None:
    """A file of weights, or the folder of an index and its shards, "" for the uppermost."""
    listed = list(paths)
    for path in listed:
        if path.endswith((".safetensors.index.json", ".bin.index.json")):
            return path.rpartition("/")[0]
    found = [path for path in listed if Path(path).suffix in WEIGHT_SUFFIXES]
    return min(found, key=lambda p: WEIGHT_SUFFIXES.index(Path(p).suffix), default=None)
