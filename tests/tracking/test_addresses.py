"""MLflow's addresses stand for the run, or the logged model of a run, that is registered there."""

import pytest
from fixtures.studies.recorded_study import Recorded
from mlflow import MlflowClient

from wwopt import TrackingError
from wwopt.tracking.addresses import find_address, is_address
from wwopt.tracking.models import find_models, register_model
from wwopt.tracking.tracked_studies import TrackedStudy


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("runs:/abc", True),
        ("models:/m-1", True),
        ("model.safetensors", False),
        ("runs/abc", False),
        ("sqlite:///runs:/x", False),
    ],
)
def test_an_address_is_told_by_how_it_begins(name: str, answer: bool) -> None:
    assert is_address(name) is answer


def test_a_run_stands_for_its_trial_and_the_studys_run_for_all(tracked: TrackedStudy) -> None:
    trial = tracked[2]
    assert find_address(tracked.uri, f"runs:/{trial.run_id}") == (trial,)
    assert find_address(tracked.uri, f"runs:/{trial.run_id}/model/weights") == (trial,)
    assert find_address(tracked.uri, f"runs:/{tracked.run_id}") == tracked.trials


def test_a_model_by_its_id_its_version_or_its_alias_is_the_run_that_made_it(
    tracked: TrackedStudy,
) -> None:
    (model, *_) = find_models(tracked[2])
    version = register_model(tracked.uri, model, "by name")
    client = MlflowClient(tracked.uri, registry_uri=tracked.uri)
    client.set_registered_model_alias("by name", "champion", version)
    (found,) = find_address(tracked.uri, f"models:/{model}")
    assert (found.run_id, found.model_id) == (tracked[2].run_id, model)
    for rest in (f"by name/{version}", "by name@champion"):
        (found,) = find_address(tracked.uri, f"models:/{rest}")
        assert found.run_id == tracked[2].run_id


def test_a_version_that_was_registered_with_its_run_alone_is_that_run(
    tracked: TrackedStudy,
) -> None:
    client = MlflowClient(tracked.uri, registry_uri=tracked.uri)
    client.create_registered_model("of a run")
    for run_id in (tracked[1].run_id, None):
        client.create_model_version("of a run", source="file:///elsewhere", run_id=run_id)
    assert find_address(tracked.uri, "models:/of a run/1") == (tracked[1],)
    with pytest.raises(TrackingError, match="registered without a run or a logged model"):
        find_address(tracked.uri, "models:/of a run/2")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("models:/digits", "name a version, models:/digits/1"),
        ("models:/nobody/1", "nobody"),
        ("models:/nobody@best", "nobody"),
        ("models:/m-nothing", "m-nothing"),
        ("runs:/00000000000000000000000000000000", "not found"),
    ],
)
def test_what_stands_for_nothing_is_one_line(
    recorded: Recorded, address: str, message: str
) -> None:
    with pytest.raises(TrackingError, match=message) as said:
        find_address(recorded[1], address)
    assert "\n" not in str(said.value)
