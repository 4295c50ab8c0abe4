"""A second objective is measured of the network that was judged, or told by who knows better."""

import dataclasses
from pathlib import Path

import optuna
import pytest
import torch
from fixtures.studies.quick_studies import write_tiny_study

from wwopt.metrics.analysis import analyze
from wwopt.study.errors import StudyError
from wwopt.study.references import load_study
from wwopt.study.second_objectives import measure_second
from wwopt.study.spec import StudySpec
from wwopt.study.trial.recording import record

PARAMETERS = 64 * 80 + 80 + 80 * 10 + 10


def spec_of(folder: Path, second: str, *, told: str = "", **options: object) -> StudySpec:
    changes = {"epochs=4),": f'epochs=4), second="{second}",'}
    if told:
        changes["loss.item())"] = f"loss.item(), {told})"
    return dataclasses.replace(load_study(write_tiny_study(folder, changes)), **options)


def second_value(spec: StudySpec) -> float:
    study = optuna.create_study(directions=spec.directions)
    study.optimize(spec.optuna_objective(), n_trials=1)
    return study.trials[0].values[1]


@pytest.mark.parametrize(
    ("second", "told", "expected"),
    [
        ("size", "", PARAMETERS),
        ("bytes", "", 4 * PARAMETERS + 280),  # and the header
        ("bytes", "bytes=777.0", 777.0),
        ("latency", "latency=1.5", 1.5),
    ],
)
def test_counted_or_told(second: str, told: str, expected: float, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, second, told=told, inputs=lambda: torch.randn(2, 64))
    assert second_value(spec) == expected


def test_latency_is_that_of_the_batch_that_the_study_names(tmp_path: Path) -> None:
    few, many = (
        second_value(spec_of(tmp_path, "latency", inputs=lambda rows=rows: torch.randn(rows, 64)))
        for rows in (64, 2048)
    )
    assert many > 4.0 * few > 0.0  # measured 20 to 30 times
    with pytest.raises(ValueError, match="does not take the batch that inputs= makes: "):
        second_value(spec_of(tmp_path, "latency", inputs=lambda: torch.randn(2, 5)))
    with pytest.raises(StudyError, match="names no batch to measure it with; add inputs="):
        spec_of(tmp_path, "latency").check()


def test_of_metrics_alone_there_is_nothing_to_measure_but_what_is_told(study_file: str) -> None:
    found = analyze(torch.nn.Linear(80, 60))
    study = optuna.create_study(directions=["minimize", "minimize"])
    with record(study.ask(), epochs=1) as recorder:
        recorder.step(found, train_loss=1.0)
        with pytest.raises(ValueError, match='second="bytes" needs the network: call'):
            measure_second("bytes", recorder, inputs=None)
        recorder.step(found, train_loss=0.9, bytes=12.0)
        assert measure_second("bytes", recorder, inputs=None) == 12.0
        assert measure_second("train_loss", recorder, inputs=None) == 0.9
        assert measure_second("size", recorder, inputs=None) == 0.0
