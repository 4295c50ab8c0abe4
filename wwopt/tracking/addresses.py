"""What MLflow's addresses stand for: runs, logged models, versions and aliases of the registry."""

from pathlib import Path
from typing import Any

from wwopt.tracking.models import WEIGHT_SUFFIXES, download_weights, find_weights
from wwopt.tracking.store import TrackingError, connect, download, explained, reach
from wwopt.tracking.tracked_studies import find_runs
from wwopt.tracking.tracked_trials import TrackedTrial


class NoWeightsError(TrackingError):
    """An address stands for something, and no weights were logged there."""


def is_address(name: str) -> bool:
    """Whether a name is one of MLflow's addresses."""
    return name.startswith(("runs:/", "models:/"))


def find_address(uri: str, address: str) -> tuple[TrackedTrial, ...]:
    """The run that an address stands for; for the parent run of a study, its trials.

    Args:
        uri: of the tracking store, whose registry is asked for names.
        address: `runs:/RUN_ID`, `models:/MODEL_ID`, `models:/NAME/VERSION` of the registry, or
            `models:/NAME@ALIAS`.

    Raises:
        TrackingError: if the store cannot be read, or holds nothing under that address.
    """
    scheme, _, rest = address.partition(":/")
    if scheme == "runs":
        return find_runs(uri, run_id=rest.strip("/").partition("/")[0])
    if rest.startswith("m-"):
        return find_runs(uri, model_id=rest)
    version = _find_version(uri, address)
    if version.model_id:
        return find_runs(uri, model_id=version.model_id)
    if version.run_id:
        return find_runs(uri, run_id=version.run_id)
    raise TrackingError(f"{address} was registered without a run or a logged model")


def fetch_weights(uri: str, address: str, folder: str | Path) -> Path:
    """Copy the checkpoint that an address stands for into a folder.

    Args:
        uri: of the tracking store, whose registry is asked for names.
        address: as for `find_address`. A version of the registry is what was registered, and not
            whatever else its run logged.
        folder: made where it does not exist.

    Returns:
        The file, or the folder of shards.

    Raises:
        TrackingError: if the store cannot be read, holds nothing under that address, or the address
            stands for several trials; as `NoWeightsError` if it stands for no weights.
    """
    if address.startswith("models:/m-") or address.startswith("runs:/"):
        return _fetch_one(find_address(uri, address), address, folder)
    version = _find_version(uri, address)
    if version.model_id:
        return _fetch_one(find_runs(uri, model_id=version.model_id), address, folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    with explained(uri):
        source = connect(uri).get_model_version_download_uri(version.name, version.version)
        try:
            path = find_weights(download(uri, source, Path(folder)))
        except Exception as error:
            if not _is_missing(error):
                raise
            raise NoWeightsError(f"{address} is gone: there is nothing at {source}") from error
    if path is None:
        raise NoWeightsError(_without_weights(address))
    return path


def list_versions(uri: str, name: str) -> list[tuple[int, int]]:
    """The versions of a registered model that are ready, as (number, milliseconds since 1970).

    Raises:
        TrackingError: if the store cannot be read, or has no model of that name.
    """
    reach(uri, exists=True)
    quote = '"' if "'" in name else "'"
    with explained(uri):
        client = connect(uri)
        client.get_registered_model(name)
        found = []
        token: str | None = None
        while token is None or token:
            page = client.search_model_versions(f"name={quote}{name}{quote}", page_token=token)
            found += [v for v in page if v.status == "READY"]
            token = page.token or ""
    return sorted((int(v.version), int(v.creation_timestamp)) for v in found)


def _find_version(uri: str, address: str) -> Any:
    """The version of the registry that `models:/NAME/VERSION` or `models:/NAME@ALIAS` names."""
    rest = address.partition(":/")[2]
    model, at, alias = rest.partition("@")
    reach(uri, exists=True)
    with explained(uri):
        client = connect(uri)
        if at:
            return client.get_model_version_by_alias(model, alias)
        model, _, number = rest.rpartition("/")
        if not model:
            raise TrackingError(f"{address}: name a version, models:/{rest}/1")
        return client.get_model_version(model, number)


def _fetch_one(trials: tuple[TrackedTrial, ...], address: str, folder: str | Path) -> Path:
    if len(trials) != 1:
        raise TrackingError(f"{address} stands for {len(trials)} trials; name the run of one")
    path = download_weights(trials[0], folder)
    if path is None:
        raise NoWeightsError(_without_weights(address))
    return path


def _is_missing(error: Exception) -> bool:
    """Whether a store answered that there is nothing; of the errors that it has for everything."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    code = getattr(error, "error_code", None)
    return (
        isinstance(error, FileNotFoundError)
        or type(error) is OSError
        or (status == 404 or code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"))
    )


def _without_weights(address: str) -> str:
    return f"{address} was logged without weights (looked for {', '.join(WEIGHT_SUFFIXES)})"
