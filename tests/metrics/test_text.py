"""What is said of a layer and of a model."""

import pytest
from fixtures.weights.layers import well_trained

from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.text import describe, format_table, say_verdict


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "well trained"),
        ({"alpha": 1.5}, "over-trained"),
        ({"alpha": 1.8}, "well trained"),  # within two standard errors of 2
        ({"alpha": 6.5}, "under-trained"),
        ({"alpha": 6.3}, "well trained"),
        ({"hill": 4.0}, "looks untrained"),
        ({"hill": 2.2, "hill_shuffled": 2.2}, "looks untrained"),
        ({"num_pl_spikes": 9}, "unreliable: short tail"),
        ({"D": 0.2, "num_pl_spikes": 5}, "unreliable: short tail; high D"),
        ({"status": "collapsed"}, "collapsed"),
        ({"status": "too few eigenvalues"}, "too few eigenvalues"),
    ],
)
def test_the_verdict_on_a_layer(values: dict[str, object], said: str) -> None:
    assert say_verdict(well_trained(**values)) == said


def test_collapse_of_a_few_layers_is_a_warning_and_of_many_the_networks() -> None:
    collapsed = [well_trained(name=name, status="collapsed") for name in ("read-out", "other")]
    sound = [well_trained(name=str(index)) for index in range(5)]
    few = describe(ModelMetrics((*sound, collapsed[0])))
    assert "Suspicious, though the network may be fine (collapsed): read-out." in few
    assert "Broken (collapsed): read-out, other." in describe(ModelMetrics((*sound, *collapsed)))


def test_the_description_names_what_matters() -> None:
    metrics = ModelMetrics(
        (
            well_trained(name="good"),
            well_trained(name="over", alpha=1.4),
            well_trained(name="noise", hill=4.0),
            well_trained(name="trapped", num_traps=2, trap_z=30.0),
            well_trained(name="dead", status="zero", alpha=float("nan")),
            well_trained(name="head", status="too few eigenvalues", tied=("embedding",)),
        ),
        {"bias": "vector", "act.scale": "quantized: int8"},
    )
    text = describe(metrics)
    assert "2 of 5 layers look well trained, mean alpha 2.60." in text
    assert "Over-trained: over." in text
    assert "Like a random matrix: noise." in text
    assert "with correlation traps: trapped." in text
    assert "Broken (zero): dead." in text
    assert "Not counted (too few eigenvalues): head." in text
    assert "Tied and counted once: embedding (with head)." in text
    assert "act.scale (quantized: int8)" in text and "bias (vector)" in text


def test_a_model_without_layers_is_said_to_have_none() -> None:
    assert format_table(ModelMetrics(())) == "no layer with a weight matrix"
    assert describe(ModelMetrics(())) == "No layer has enough eigenvalues to say anything."
