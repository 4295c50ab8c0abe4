"""A trial's hyperparameters as MLflow keeps them: each layer's own, and what the sampler chose."""

from wwopt.tracking.keys import SUGGESTED
from wwopt.tracking.tracked_trials import TrackedTrial

# Act by their factor, not by their difference: sampled, interpolated and drawn in logarithms.
BY_FACTOR = frozenset({"lr", "weight_decay"})
Setting = float | str  # a hyperparameter's value


def read_hyperparameters(trial: TrackedTrial) -> dict[str, Setting]:
    """The trial's hyperparameters, each layer's own; numbers where they are."""
    prefix = f"{SUGGESTED}/"
    return {k: _parse(v) for k, v in trial.params.items() if not k.startswith(prefix)}


def read_knobs(trial: TrackedTrial) -> dict[str, Setting]:
    """What the sampler chose: knots or blocks of a tied space, else the hyperparameters."""
    prefix = f"{SUGGESTED}/"
    knobs = {k.removeprefix(prefix): v for k, v in trial.params.items() if k.startswith(prefix)}
    return {k: _parse(v) for k, v in knobs.items()} if knobs else read_hyperparameters(trial)


def _parse(text: str) -> Setting:
    try:
        return float(text)
    except ValueError:
        return text
