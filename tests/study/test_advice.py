"""Advice at an analysis: layers are judged by the steps since the last one and those to come."""

from collections.abc import Callable

import numpy as np
import pytest
from fixtures.weights.layers import SpectrumOf

from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.study.advice import Advice, advise

TRAINED = np.random.default_rng(0).standard_t(2.5, (100, 80))
MetricsOf = Callable[[float], ModelMetrics]


@pytest.fixture(scope="module")
def scaled(spectrum_of: SpectrumOf) -> MetricsOf:
    """Return a function: factor → metrics of a trained layer times that factor."""
    return lambda factor: metrics_from_spectra(
        [spectrum_of(factor * TRAINED, name="fc", shuffles=0)]
    )


@pytest.mark.parametrize(
    ("step_before", "step", "epochs", "converged"),
    [
        # The singular values moved by .0011 since: all of it in one step, or in eleven.
        (10, 11, 20, True),  # nine further steps: .0099
        (10, 11, 21, False),  # ten: .011
        (10, 21, 120, True),  # .0001 a step
        (10, 21, 122, False),
        (10, 11, 11, True),  # at the end: by as many steps as there were
        (8, 9, None, True),  # unknown length: as many as were done
        (9, 10, None, False),
    ],
)
def test_what_the_rest_of_training_would_move_decides(
    scaled: MetricsOf, step_before: int, step: int, epochs: int | None, converged: bool
) -> None:
    given = {"step": step, "step_before": step_before, "epochs": epochs}
    advice = advise(-0.5, scaled(1.0011), before=scaled(1.0), **given)
    assert (advice.convergence["fc"] == "stopped moving") is converged
    assert advice.converged == (("fc",) if converged else ())
    assert advice.value == -0.5


def test_at_the_first_analysis_nothing_is_known_to_stop(scaled: MetricsOf) -> None:
    now = scaled(1.0)
    advice = advise(1.0, now, before=None, step=5, step_before=-1, epochs=10)
    assert advice.convergence == {"fc": "unknown"} and advice.converged == ()
    assert advice.metrics is now and advice.lr_factors == {"fc": 1.0}


def test_without_an_analysis_advice_is_empty() -> None:
    assert Advice() == Advice(None, None, {}, {})
    assert Advice(convergence={"a": "rising", "b": "stopped moving"}).converged == ("b",)
