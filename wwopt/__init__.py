"""wwopt tunes, picks and judges neural networks without test data, from their weights' spectra.

weights → spectrum → (power law, bulk, traps) → layer metrics → objective → recorder → study
"""

from wwopt.gate import GateResult, check
from wwopt.layer_metrics import LayerMetrics, ModelMetrics, analyze, metrics_from_spectra
from wwopt.layer_space import LayerHyperparameters, LayerSpace
from wwopt.objective import ObjectiveValue, SpectralObjective
from wwopt.recorder import Advice, Conditions, Recorder, record
from wwopt.spectrum import LayerSpectrum
from wwopt.study import StudyError, StudySpec
from wwopt.tracking import TrackingError
from wwopt.tuning import StudyResult, tune
from wwopt.weights import WeightMatrix, WeightsError

__all__ = [
    "Advice",
    "Conditions",
    "GateResult",
    "LayerHyperparameters",
    "LayerMetrics",
    "LayerSpace",
    "LayerSpectrum",
    "ModelMetrics",
    "ObjectiveValue",
    "Recorder",
    "SpectralObjective",
    "StudyError",
    "StudyResult",
    "StudySpec",
    "TrackingError",
    "WeightMatrix",
    "WeightsError",
    "analyze",
    "check",
    "metrics_from_spectra",
    "record",
    "tune",
]
