"""wwopt tunes, picks and judges neural networks without test data, from their weights' spectra.

weights → spectrum → (power law, bulk, traps) → layer metrics → objective → recorder → study
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Where the public names live; a name is imported when it is first used. A command that only reads
# MLflow starts in half the time without torch. Type checkers read the second list, and a test
# compares the two.
_HOMES = {
    "Advice": "study.advice",
    "Conditions": "study.conditions",
    "GateResult": "gate.checks",
    "Guards": "metrics.guards",
    "LayerHyperparameters": "study.layer_hyperparameters",
    "LayerMetrics": "metrics.model_metrics",
    "LayerSpace": "study.layer_space",
    "LayerSpectrum": "spectra.spectrum",
    "ModelMetrics": "metrics.model_metrics",
    "ObjectiveValue": "metrics.objective",
    "Prices": "recommendation.decisions",
    "Ranking": "selection.rankings",
    "Recommendation": "recommendation.recommendation",
    "Recorder": "study.recorder",
    "SpectralObjective": "metrics.objective",
    "StudyError": "study.spec",
    "StudyResult": "tuning.tuning",
    "StudySpec": "study.spec",
    "TrackedStudy": "tracking.tracked_studies",
    "TrackedTrial": "tracking.tracked_trials",
    "TrackingError": "tracking",
    "WeightMatrix": "weights.matrices",
    "WeightsError": "weights.stored_tensors",
    "analyze": "metrics.analysis",
    "check": "gate.checks",
    "metrics_from_spectra": "metrics.analysis",
    "rank": "selection.selection",
    "read_study": "tracking.tracked_studies",
    "recommend": "recommendation.recommendation",
    "record": "study.recording",
    "tune": "tuning.tuning",
}

if TYPE_CHECKING:
    from wwopt.gate.checks import GateResult as GateResult
    from wwopt.gate.checks import check as check
    from wwopt.metrics.analysis import analyze as analyze
    from wwopt.metrics.analysis import metrics_from_spectra as metrics_from_spectra
    from wwopt.metrics.guards import Guards as Guards
    from wwopt.metrics.model_metrics import LayerMetrics as LayerMetrics
    from wwopt.metrics.model_metrics import ModelMetrics as ModelMetrics
    from wwopt.metrics.objective import ObjectiveValue as ObjectiveValue
    from wwopt.metrics.objective import SpectralObjective as SpectralObjective
    from wwopt.recommendation.decisions import Prices as Prices
    from wwopt.recommendation.recommendation import Recommendation as Recommendation
    from wwopt.recommendation.recommendation import recommend as recommend
    from wwopt.selection.rankings import Ranking as Ranking
    from wwopt.selection.selection import rank as rank
    from wwopt.spectra.spectrum import LayerSpectrum as LayerSpectrum
    from wwopt.study.advice import Advice as Advice
    from wwopt.study.conditions import Conditions as Conditions
    from wwopt.study.layer_hyperparameters import LayerHyperparameters as LayerHyperparameters
    from wwopt.study.layer_space import LayerSpace as LayerSpace
    from wwopt.study.recorder import Recorder as Recorder
    from wwopt.study.recording import record as record
    from wwopt.study.spec import StudyError as StudyError
    from wwopt.study.spec import StudySpec as StudySpec
    from wwopt.tracking import TrackingError as TrackingError
    from wwopt.tracking.tracked_studies import TrackedStudy as TrackedStudy
    from wwopt.tracking.tracked_studies import read_study as read_study
    from wwopt.tracking.tracked_trials import TrackedTrial as TrackedTrial
    from wwopt.tuning.tuning import StudyResult as StudyResult
    from wwopt.tuning.tuning import tune as tune
    from wwopt.weights.matrices import WeightMatrix as WeightMatrix
    from wwopt.weights.stored_tensors import WeightsError as WeightsError

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name on its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wwopt' has no attribute {name!r}")
    value = getattr(import_module(f"wwopt.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
