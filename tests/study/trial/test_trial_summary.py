"""A trial's summary: plain numbers of the layers that count, and a table that fits into MLflow."""

import math

import pytest
from fixtures.weights.layers import well_trained

from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.objective import ObjectiveValue
from wwopt.study.trial.trial_summary import (
    MAX_NOTE,
    aggregate,
    describe_trial,
    summarize_layer,
    tabulate_layers,
)

RESULT = ObjectiveValue(value=1.25, terms={"tail": 1.5, "traps": -0.25}, status="ok", layers={})


def test_aggregates_are_of_the_layers_that_count() -> None:
    layers = (
        well_trained(name="a", alpha=2.0, D=0.25, num_traps=2.0, trap_z=9.0, stable_rank=8.0),
        well_trained(name="b", alpha=4.0, D=0.75, num_traps=1.0, trap_z=5.0, stable_rank=4.0),
        well_trained(name="head", alpha=99.0, status="too few eigenvalues", stable_rank=1.0),
    )
    assert aggregate(RESULT, ModelMetrics(layers)) == {
        "objective/value": 1.25,
        "objective/tail": 1.5,
        "objective/traps": -0.25,
        "alpha/mean": 3.0,
        "alpha/min": 2.0,
        "alpha/max": 4.0,
        "alpha/D": 0.5,
        "alpha/hill": 2.2,
        "traps/count": 3.0,
        "traps/worst_z": 9.0,
        "rank/stable_min": 4.0,
    }


def test_what_no_layer_knows_is_left_out() -> None:
    unknown = dict.fromkeys(("alpha", "hill", "trap_z", "stable_rank"), math.nan)
    found = aggregate(RESULT, ModelMetrics((well_trained(**unknown),)))
    assert set(found) == {"objective/value", "objective/tail", "objective/traps"}


def test_a_layer_is_plain_data_whose_unknown_numbers_are_none() -> None:
    summary = summarize_layer(well_trained(alpha=2.5, D=math.nan, num_traps=1))
    assert (summary["alpha"], summary["D"], summary["traps"]) == (2.5, None, 1.0)
    assert summary["status"] == "ok"


def test_a_row_shows_a_layers_own_settings_beside_what_came_of_them() -> None:
    layers = {"qkv.q": summarize_layer(well_trained()), "a|b": {"status": "zero"}}
    table = tabulate_layers(layers, {"lr/qkv": 0.0123, "momentum/a|b": 0.9, "batch_size": 64})
    assert table.splitlines() == [
        "| layer | lr | momentum | alpha | D | traps | status |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| qkv.q | 0.0123 | – | 3.00 ± 0.20 | 0.050 | 0 | ok |",
        "| a\\|b | – | 0.9 | – | – | – | zero |",
    ]


def test_of_many_layers_those_that_do_not_fit_are_counted() -> None:
    layers = {f"encoder.{i:04}": summarize_layer(well_trained()) for i in range(500)}
    note = describe_trial(1.0, {}, layers, status="ok", hyperparameters={})
    assert len(note) <= MAX_NOTE
    shown = sum(line.startswith("| encoder.") for line in note.splitlines())
    assert 50 < shown < 500
    assert note.endswith(f"\n\n{500 - shown} more layers are in the layer table.")


@pytest.mark.parametrize(
    ("value", "status", "said"),
    [
        (1.25, "ok", "Objective 1.2500 (tail +1.500, traps -0.250; lower is better)."),
        (None, "training loss is nan", "Status: training loss is nan."),
        (None, "ok", ""),
    ],
)
def test_a_status_is_said_where_it_says_something(
    value: float | None, status: str, said: str
) -> None:
    terms = {**RESULT.terms, "failure": 0.0}
    assert describe_trial(value, terms, {}, status=status, hyperparameters={}) == said
