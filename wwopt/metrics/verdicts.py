"""What the spectrum says of a layer, in a word or two."""

from wwopt.metrics.model_metrics import OK, OVER_TRAINED, UNDER_TRAINED, LayerMetrics
from wwopt.metrics.random_bulk import looks_random
from wwopt.metrics.shapes import find_outlier


def verdict(layer: LayerMetrics) -> str:
    """What the spectrum says of a layer, in a word or two."""
    if layer.status != OK:
        return layer.status
    if "null" in layer.reliability or looks_random(layer):
        return "looks untrained"  # alpha of a random matrix is often between 2 and 6
    if layer.reliability != "reliable":
        return f"unreliable: {layer.reliability}"
    if find_outlier(layer) is not None:
        return "unreliable: a single outlier"
    # Only a difference that the fit's own error does not explain is called one.
    if layer.alpha + 2.0 * layer.sigma < OVER_TRAINED:
        return "over-trained"
    if layer.alpha - 2.0 * layer.sigma > UNDER_TRAINED:
        return "under-trained"
    return "well trained"
