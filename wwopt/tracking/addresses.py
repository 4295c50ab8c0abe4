"""What MLflow's addresses stand for: runs, logged models, versions and aliases of the registry."""

from wwopt.tracking.store import TrackingError, connect, explained
from wwopt.tracking.tracked_studies import find_runs
from wwopt.tracking.tracked_trials import TrackedTrial


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
    model, at, alias = rest.partition("@")
    with explained(uri):
        client = connect(uri)
        if at:
            version = client.get_model_version_by_alias(model, alias)
        else:
            model, _, number = rest.rpartition("/")
            if not model:
                raise TrackingError(f"{address}: name a version, models:/{rest}/1")
            version = client.get_model_version(model, number)
        if version.model_id:
            return find_runs(uri, model_id=version.model_id)
        if version.run_id:
            return find_runs(uri, run_id=version.run_id)
    raise TrackingError(f"{address} was registered without a run or a logged model")
