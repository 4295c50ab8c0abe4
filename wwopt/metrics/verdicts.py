"""The verdict on a layer as data: well trained or not, and what speaks against believing it.

How it is said: `wwopt.metrics.text.say_verdict`.
"""

from dataclasses import dataclass
from typing import Literal

from wwopt.metrics.model_metrics import OK, OVER_TRAINED, UNDER_TRAINED, Doubt, LayerMetrics
from wwopt.metrics.random_bulk import looks_random
from wwopt.metrics.shapes import find_outlier

Verdict = Literal[
    "well trained",
    "over-trained",
    "under-trained",
    "looks untrained",  # like a random matrix
    "unreliable",  # alpha is not to be believed
    "not judged",  # its status says why
]


@dataclass(frozen=True, slots=True)
class LayerVerdict:
    """What the spectrum says of a layer."""

    verdict: Verdict
    doubts: tuple[Doubt | Literal["a single outlier"], ...] = ()  # of an unreliable alpha


def judge_layer(layer: LayerMetrics) -> LayerVerdict:
    """Judge a layer by its status, its own null, the doubts about its alpha, and alpha itself."""
    if layer.status != OK:
        return LayerVerdict("not judged")
    if "within its own null" in layer.doubts or looks_random(layer):
        return LayerVerdict("looks untrained")  # alpha of a random matrix is often between 2 and 6
    if layer.doubts:
        return LayerVerdict("unreliable", layer.doubts)
    if find_outlier(layer) is not None:
        return LayerVerdict("unreliable", ("a single outlier",))
    # Only a difference that the fit's own error does not explain is called one.
    if layer.alpha + 2.0 * layer.sigma < OVER_TRAINED:
        return LayerVerdict("over-trained")
    if layer.alpha - 2.0 * layer.sigma > UNDER_TRAINED:
        return LayerVerdict("under-trained")
    return LayerVerdict("well trained")
