"""MLflow's screens open with the columns and charts that matter, or as they always do."""

import base64
import json
import random
import zlib
from pathlib import Path

import pytest
from mlflow import MlflowClient

from wwopt.tracking import (
    StudyRun,
    link_to,
    open_study,
    save_view,
    views,
)
from wwopt.tracking.views import VIEW_TAG


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
