"""A watch's memory in MLflow: a checkpoint counts when its run is finished, and not before."""

from pathlib import Path

import pandas as pd
import pytest
from fixtures.machines.stores import StoreIn
from mlflow import MlflowClient

from wwopt.tracking import watches
from wwopt.tracking.checks import LoggedCheck
from wwopt.tracking.store import TrackingError


def check(name: str, *, passed: bool = True) -> LoggedCheck:
    table = pd.DataFrame({"longname": ["fc"], "alpha": [2.5]})
    return LoggedCheck(name, passed, "", {"after": name}, {"gate/passed": 1.0}, table, {"a": name})


def test_a_watch_is_found_again_and_remembers(tmp_path: Path, store_in: StoreIn) -> None:
    uri = store_in(tmp_path)
    watch = watches.open_watch(uri, "/it's here")
    assert watches.open_watch(uri, "/it's here") == watch
    assert watches.open_watch(uri, "/elsewhere").run_id != watch.run_id
    watches.log_checkpoint(watch, check("a"), identity="a|1", step=0)
    watches.log_unreadable(watch, "b", identity="b|1", reason="broken")
    watches.log_checkpoint(watch, check("c", passed=False), identity="c|1", step=1)
    a, b, c = watches.read_watched(watch)
    assert [(x.name, x.identity, x.step, x.passed, x.scored) for x in (a, b, c)] == [
        ("a", "a|1", 0, True, True),
        ("b", "b|1", -1, False, False),
        ("c", "c|1", 1, False, True),
    ]
    assert watches.read_document(watch, a) == {"a": "a"}
    assert list(watches.read_table(watch, a)["alpha"]) == [2.5]
    with pytest.raises(TrackingError, match="has no layer table"):
        watches.read_table(watch, b)
    assert MlflowClient(uri).get_run(watch.run_id).info.status == "FINISHED"


def test_what_was_left_open_is_deleted(tmp_path: Path, store_in: StoreIn) -> None:
    watch = watches.open_watch(store_in(tmp_path), "/here")
    client = MlflowClient(watch.uri)
    run = watches._create(watch, "a", "a|1").run_id  # and here its watcher dies
    assert watches.read_watched(watch) == []
    assert client.get_run(run).info.lifecycle_stage == "deleted"


def test_charts_have_one_value_a_step(tmp_path: Path, store_in: StoreIn) -> None:
    watch = watches.open_watch(store_in(tmp_path), "/here")
    assert watches.read_charted(watch) == set()
    for step in (0, 1):
        watches.chart(watch, {"gate/passed": 1.0, "hill/fc": 2.5}, step=step, time=1000 + step)
    assert watches.read_charted(watch) == {0, 1}
    history = MlflowClient(watch.uri).get_metric_history(watch.run_id, "hill/fc")
    assert [(p.step, p.timestamp, p.value) for p in history] == [(0, 1000, 2.5), (1, 1001, 2.5)]
