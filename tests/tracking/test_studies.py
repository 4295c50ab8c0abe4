"""MLflow: names it accepts, values it can chart, runs that are found again."""

import base64
import json
import math
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.utils.validation import _validate_metric_name, _validate_param_name

from wwopt.tracking import (
    StudyRun,
    TrackingError,
    hide_password,
    hide_passwords,
    link_to,
    open_study,
    open_trial,
    safe_key,
    save_view,
    views,
)
from wwopt.tracking.store import explained
from wwopt.tracking.views import VIEW_TAG


@given(st.text(max_size=600))
def test_every_name_becomes_one_that_mlflow_accepts(name: str) -> None:
    key = safe_key(name)
    _validate_metric_name(key)
    _validate_param_name(key)
    assert len(key) <= 250


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("alpha/encoder.layers.0.fc1", "alpha/encoder.layers.0.fc1"),
        ("lr/block[0](conv)", "lr/block_0__conv_"),
        ("lr/a/b/c", "lr/a.b.c"),
        ("lr/../../etc", "lr/etc"),
        ("lr/größe", "lr/größe"),
        ("lr/", "lr"),
    ],
)
def test_names_stay_readable(name: str, key: str) -> None:
    assert safe_key(name) == key


def test_two_long_names_stay_apart() -> None:
    first, second = (safe_key(f"alpha/{'x' * 300}{end}") for end in "ab")
    assert first != second


def test_layers_whose_names_become_equal_stay_apart(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'mlflow.db'}", name="s", study="u")
    run = open_trial(study, number=0, hyperparameters={"lr/a(b": 0.1, "lr/a)b": 0.2})
    params = MlflowClient(study.uri).get_run(run.run_id).data.params
    assert params == {"lr/a_b": "0.1", "lr/a_b-2": "0.2"}


def test_opening_again_finds_the_same_runs(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = open_study(uri, name="s", study="uuid", settings={"seed": 0})
    trial = open_trial(study, number=3, hyperparameters={"lr/fc": 0.1})
    assert open_study(uri, name="s", study="uuid") == study
    assert open_trial(study, number=3, hyperparameters={"lr/fc": 0.1}) == trial
    assert open_study(uri, name="s", study="another") != study
    runs = MlflowClient(uri).search_runs([study.experiment_id])
    assert len(runs) == 3


def test_infinity_and_nan_never_reach_a_chart(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'mlflow.db'}", name="s", study="u")
    run = open_trial(study, number=0, hyperparameters={})
    run.log({"a/x": math.inf, "a/y": math.nan, "a/z": 1.0}, step=1)
    assert MlflowClient(study.uri).get_run(run.run_id).data.metrics == {"a/z": 1.0}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cret@db/optuna",
        "https://me:s3cret@mlflow.example/path",
        "https://mlflow.example?token=s3cret",
        "postgresql://db/optuna?user=me&password=s3cret",
        "http://me:s3cret@[broken",
    ],
)
def test_passwords_are_hidden(url: str) -> None:
    assert "s3cret" not in hide_password(url)


def test_passwords_in_a_text_are_hidden() -> None:
    text = "OperationalError: (postgresql+psycopg://me:s3cret@db/x) and https://u:s3cret@h are down"
    assert hide_passwords(text) == text.replace("s3cret", "***")
    assert hide_passwords("at 12:30 me@example.org wrote") == "at 12:30 me@example.org wrote"


def test_a_view_is_a_link_to_the_experiment() -> None:
    study = StudyRun("sqlite:///x", "7", "r", "u")
    link = link_to(study, "http://host:5000/")
    assert link == (
        "http://host:5000/#/experiments/7/runs?viewStateShareKey=wwopt&workflowType=machine_learning"
    )


def test_of_another_mlflow_no_view_is_written_and_the_link_is_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = open_study(uri, name="s", study="u")
    monkeypatch.setattr(views, "version", lambda _: "3.18.0")
    save_view(study, metrics=["objective/value"], params=[])
    assert VIEW_TAG not in MlflowClient(uri).get_experiment(study.experiment_id).tags
    assert link_to(study, "http://h").endswith("/runs?workflowType=machine_learning")


def test_a_view_that_mlflow_would_cut_is_not_saved(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = open_study(uri, name="s", study="u")
    client = MlflowClient(uri)
    rng = random.Random(0)
    names = ["".join(rng.choices("abcdefghij", k=240)) for _ in range(300)]
    save_view(study, metrics=[f"{name}/x" for name in names], params=[])
    assert VIEW_TAG not in client.get_experiment(study.experiment_id).tags
    save_view(study, metrics=["objective/value", "train/loss"], params=["lr/a"])
    tag = client.get_experiment(study.experiment_id).tags[VIEW_TAG]
    packed = json.loads(tag)["state"].removeprefix("deflate;")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert state["orderByKey"] == "metrics.`objective/value`"
    assert state["selectedColumns"][:2] == ["metrics.`objective/value`", "metrics.`train/loss`"]
    assert [chart["type"] for chart in state["compareRunCharts"]] == ["BAR", "PARALLEL", "SCATTER"]


def test_a_deleted_experiment_is_said(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = open_study(uri, name="gone", study="u")
    MlflowClient(uri).delete_experiment(study.experiment_id)
    with pytest.raises(ValueError, match="experiment 'gone' was deleted"):
        open_study(uri, name="gone", study="v")


@pytest.mark.parametrize(
    "error", [OSError(), OSError("\n"), OSError("the disk is full\nat 3 bytes")]
)
def test_whatever_the_store_raises_is_one_line_even_without_words(error: OSError) -> None:
    said = "the disk is full" if "full" in str(error) else "OSError"
    with pytest.raises(TrackingError, match=f"cannot be used: {said}$"), explained("sqlite:///x"):
        raise error
