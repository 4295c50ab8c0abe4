"""The front of compressed networks: who is beaten by whom, and how compare and the page say so."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import pytest
from fixtures.readers.pages import Page
from fixtures.studies.recorded_study import Recorded
from mlflow import MlflowClient

from wwopt.report.compressed_variants import (
    AS_TRAINED,
    CompressedVariants,
    draw_compressed,
    read_compressed,
)
from wwopt.report.page import render_report
from wwopt.report.text import format_compressed
from wwopt.tracking.compressions import LoggedCompression, log_compression
from wwopt.tracking.tracked_studies import TrackedStudy, read_study


def variant(name: str, size: float, accuracy: float, noise: float) -> LoggedCompression:
    numbers = {"bytes": size, "bytes_before": 9000.0, "ratio": 9000.0 / size, "noise": noise}
    return LoggedCompression(
        name=name,
        passed=noise < 0.2,
        note="",
        params={},
        metrics=numbers | {"broken": float(noise > 0.2)},
        quality={} if math.isnan(accuracy) else {"accuracy": accuracy},
        layers=pd.DataFrame({"layer": ["fc"]}),
        document={},
    )


@pytest.fixture
def compressed(recorded: Recorded) -> Iterator[TrackedStudy]:
    """The recorded study with variants of its trials 0 (accuracy .9) and 3 (.87)."""
    uri = recorded[1]
    study = read_study(uri)
    runs = [
        log_compression(uri, made, trial=study[number])
        for number, made in (
            (0, variant("8 bits", 2500.0, 0.9, 0.01)),
            (0, variant("4 bits, clipped", 1300.0, 0.85, 0.1)),
            (3, variant("4 bits", 1300.0, 0.8, 0.05)),
            (3, variant("2 bits", 700.0, 0.4, 0.5)),
        )
    ]
    yield read_study(uri)
    for run in runs:  # others read this study
        MlflowClient(uri).delete_run(run)


def test_by_a_metric_the_networks_of_all_trials_are_compared(compressed: TrackedStudy) -> None:
    found = read_compressed(compressed)
    assert found is not None and found.metric is not None and found.metric.name == "accuracy"
    by_name = {(v.trial, v.name): v for v in found.variants}
    assert [name for name, v in by_name.items() if v.on_front] == [
        (0, "8 bits"),
        (0, "4 bits, clipped"),
        (3, "2 bits"),
    ]
    assert by_name[0, AS_TRAINED].bytes == 9000.0 and by_name[0, AS_TRAINED].quality == 0.9
    assert by_name[3, "4 bits"].times_smaller == pytest.approx(9000 / 1300)


def test_without_a_metric_by_noise_and_each_trial_alone(compressed: TrackedStudy) -> None:
    bare = replace(compressed, trials=tuple(replace(t, metrics={}) for t in compressed.trials))
    found = read_compressed(bare)
    assert found is not None and found.metric is None
    assert all(v.on_front for v in found.variants)
    assert "quality" not in found.to_frame()
    assert "noise" in draw_compressed(found).figure.layout.yaxis.title.text


def test_compare_and_the_page_show_it(compressed: TrackedStudy) -> None:
    found = read_compressed(compressed)
    assert found is not None
    text = format_compressed(found, width=200)
    row = next(line for line in text.splitlines() if "clipped" in line)
    assert "1,300" in row and row.rstrip().endswith("*")
    page = Page(render_report(compressed))
    assert "Compressed networks" in page.words and "4 bits, clipped" in page.words
    traces = draw_compressed(found).figure.data
    assert [len(trace.x) for trace in traces] == [2, 3, 1]


def test_nothing_compressed_nothing_said(tracked: TrackedStudy) -> None:
    assert read_compressed(tracked) is None
    assert "Compressed" not in Page(render_report(tracked)).words


def test_a_front_of_nothing_known_is_drawn_empty() -> None:
    assert draw_compressed(CompressedVariants((), None)).alt.startswith(
        "noise that compressing added against bytes"
    )
