"""The textbook configuration: what people take who do not tune, a study's first trial.

A search that ends worse than this one was worth less than nothing, and about one in ten does
(Schneider, Bischl & Feurer 2025, "Overtuning in hyperparameter optimization"). So it is run first,
and the end says whether the choice beats it.
"""

from collections.abc import Mapping

from optuna.distributions import FloatDistribution, IntDistribution

from wwopt.study.errors import StudyError
from wwopt.study.space.layer_space import LayerSpace

TEXTBOOK_ATTR = "wwopt.textbook"  # of the Optuna trial, and the tag of its run in MLflow

# Of SGD, as in the documentation of torch.optim (rate, momentum) and of GPT-2 and BERT (dropout).
# Where the optimizer is another one, the study states its own: AdamW's rate is .001.
TEXTBOOK: Mapping[str, float] = {
    "lr": 0.01,
    "momentum": 0.9,
    "dropout": 0.1,
    "weight_decay": 1e-4,
    "batch_size": 64,
}


def check_textbook(values: Mapping[str, float]) -> None:
    """Refuse a kind of hyperparameter that there is not.

    Raises:
        StudyError: that names it and the known ones.
    """
    unknown = sorted(set(values) - set(TEXTBOOK))
    if unknown:
        raise StudyError(f"textbook states {unknown[0]!r}; it may state {', '.join(TEXTBOOK)}")


def textbook_params(
    space: LayerSpace, values: Mapping[str, float] | None = None
) -> dict[str, float | int]:
    """What a trial of that configuration is asked for, the same value for every layer.

    Args:
        space: that is searched; values are moved into its ranges, sizes are the nearest to 1.
        values: kind of hyperparameter → value, as far as it is not the usual one.

    Returns:
        Name of the parameter in Optuna → value.
    """
    wanted = {**TEXTBOOK, **(values or {})}
    params: dict[str, float | int] = {}
    for name, distribution in space.distributions(0).items():
        value = wanted[name.partition("/")[0]]
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        moved = min(max(value, distribution.low), distribution.high)
        params[name] = round(moved) if isinstance(distribution, IntDistribution) else moved
    for name, factors in (("width", space.widths), ("depth", space.depths)):
        if factors:
            params[name] = min(factors, key=lambda factor: abs(factor - 1.0))
    return params
