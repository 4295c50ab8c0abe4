"""What a reader of a ranking should know of a candidate before believing its score."""

import math
from collections.abc import Sequence

from wwopt.metrics.model_metrics import OK, ModelMetrics
from wwopt.metrics.text import list_estimates
from wwopt.metrics.verdicts import judge_layer
from wwopt.selection.kinship import Kin
from wwopt.wording import write_names

LOW_COVERAGE = 0.9  # of the parameters; below it the score is silent about much of the model
LISTED = 3  # layers that a warning names


def find_warnings(metrics: ModelMetrics, coverage: float) -> tuple[str, ...]:
    """Broken layers, traps, untrained layers, unreliable fits, and what the score does not see.

    Args:
        metrics: of the candidate.
        coverage: share of its parameters that the counted layers hold; NaN: not known.
    """
    counted = metrics.counted
    verdicts = {layer.name: judge_layer(layer).verdict for layer in counted}
    kinds = {
        "broken or without a fit": [x.name for x in counted if x.status != OK],
        "with correlation traps": [x.name for x in counted if x.num_traps > 0],
        "like a random matrix": [n for n, found in verdicts.items() if found == "looks untrained"],
        "whose alpha is not reliable": [n for n, v in verdicts.items() if v == "unreliable"],
    }
    found = [
        f"{len(names)} of {len(counted)} layers {words}: {write_names(names, LISTED)}"
        for words, names in kinds.items()
        if names
    ]
    found += list_estimates(metrics.layers)
    if not math.isnan(coverage) and coverage < LOW_COVERAGE:
        found.append(f"the layers that count hold {coverage:.0%} of the parameters")
    return tuple(found)


def describe_kin(name: str, kin: Sequence[Kin]) -> tuple[str, ...]:
    """That other candidates are made of this one, or of what it was made of."""
    return tuple(
        f"one of {len(group.names)} candidates that {group.words}"
        for group in kin
        if name in group.names
    )
