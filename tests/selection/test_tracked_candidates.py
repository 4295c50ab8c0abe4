"""Candidates in MLflow are read by address, study or experiment; what lacks weights says so."""

from pathlib import Path

import pytest
from fixtures.studies.quick_studies import LAYERS
from mlflow import MlflowClient

import wwopt
from wwopt import TrackingError
from wwopt.selection.tracked_candidates import read_tracked
from wwopt.tracking.models import download_weights, find_models
from wwopt.tracking.tracked_studies import TrackedStudy


def test_an_address_keeps_its_name_and_is_read_from_its_weights(
    tracked: TrackedStudy, tmp_path: Path
) -> None:
    run, model = f"runs:/{tracked[0].run_id}", f"models:/{find_models(tracked[1])[0]}"
    found, lost = read_tracked(tracked.uri, names=[run, model, "models:/m-none"], shuffles=0)
    assert list(found) == [run, model]
    assert list(lost) == ["models:/m-none"]
    weights = download_weights(tracked[0], tmp_path)
    assert weights is not None
    alphas = [layer.alpha for layer in wwopt.analyze(weights, shuffles=0).layers]
    assert [layer.alpha for layer in found[run].metrics.layers] == alphas
    parameters = 64 * 80 + 80 + 80 * 64 + 64 + 64 * 10 + 10
    assert found[run].parameters == parameters  # which a layer table does not know


def test_a_studys_trials_have_their_own_names_and_states(tracked: TrackedStudy) -> None:
    found, lost = read_tracked(tracked.uri, study=tracked.name, shuffles=0)
    complete = {f"trial {n}" for n in range(14)} - {"trial 4", "trial 5"}
    assert set(found) == complete | {"trial 5 (pruned)"}  # it left its layer table
    assert lost == {"trial 4 (fail)": "its run has neither weights nor a layer table"}
    again, _ = read_tracked(tracked.uri, experiment=tracked.name, study=tracked.name, shuffles=0)
    assert list(again) == list(found)


def test_layers_can_be_chosen_where_there_are_weights_to_choose_from(
    tracked: TrackedStudy,
) -> None:
    whole, pruned = (f"runs:/{tracked[n].run_id}" for n in (0, 5))
    found, lost = read_tracked(tracked.uri, names=[whole, pruned], layers=[LAYERS[0]], shuffles=0)
    assert [layer.name for layer in found[whole].metrics.layers] == [LAYERS[0]]
    assert lost == {pruned: "its run has a layer table and no weights, which --layers needs"}


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("theirs")
    runs = [client.create_run(experiment, run_name="same").info.run_id for _ in range(2)]
    for run in runs:
        client.set_terminated(run)
    _, lost = read_tracked(uri, experiment="theirs")
    assert set(lost) <= {"same", *(f"same {run}" for run in runs)} and len(lost) == 2


def test_a_study_that_is_not_there_is_an_error(tracked: TrackedStudy) -> None:
    with pytest.raises(TrackingError, match="no study 'nobody'"):
        read_tracked(tracked.uri, study="nobody")
