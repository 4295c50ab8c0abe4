"""Studies that sample a network's width or depth: searched and judged size by size.

Spectral scores order networks of one architecture; pooled over sizes the order can even turn round
(Simpson's paradox: mean alpha against accuracy over VGG networks of several depths has the wrong
sign, while it orders the networks of each one). So no score is compared across sizes here: the
trials take the sizes in turn, the sampler and the pruner of a trial see the trials of its own size
only, and there is one best trial for each size. Which size to take is a question for the training
loss or for a validation metric.
"""

from collections.abc import Iterable
from itertools import product

import optuna
from optuna.trial import FrozenTrial, TrialState

from wwopt.study.constraints import is_feasible
from wwopt.study.space.layer_space import LayerSpace
from wwopt.study.tries import place_of
from wwopt.tuning.samplers.trials_view import TrialsView, ViewingSampler

Size = tuple[tuple[str, float], ...]  # (("width", 2.0), ("depth", 1.0)), as far as sampled


def list_sizes(space: LayerSpace) -> list[Size]:
    """All sizes of a space; none where it has no choices."""
    choices = {"width": space.widths, "depth": space.depths}
    named = [[(name, factor) for factor in fs] for name, fs in choices.items() if fs]
    return list(product(*named)) if named else []


def size_of(trial: FrozenTrial) -> Size:
    """The size that a trial sampled; empty where it sampled none."""
    return tuple((n, float(trial.params[n])) for n in ("width", "depth") if n in trial.params)


def describe_size(size: Size) -> str:
    """The size in words: "width 2, depth 0.5"."""
    return ", ".join(f"{name} {factor:g}" for name, factor in size)


def best_by_size(trials: Iterable[FrozenTrial]) -> dict[Size, FrozenTrial]:
    """Size → its complete trial of lowest value, a feasible one if there is any; smallest first."""

    def order(trial: FrozenTrial) -> tuple[bool, float, int]:
        return not is_feasible(trial), trial.values[0], trial.number

    best: dict[Size, FrozenTrial] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and size_of(trial):
            best[size_of(trial)] = min(best.get(size_of(trial), trial), trial, key=order)
    return dict(sorted(best.items()))


def make_stratified_sampler(
    sampler: optuna.samplers.BaseSampler, sizes: list[Size]
) -> optuna.samplers.BaseSampler:
    """Take the sizes in turn, and sample the rest from the trials of the same size."""

    def size_at(trial: FrozenTrial) -> Size:
        return size_of(trial) or sizes[place_of(trial) % len(sizes)]

    return ViewingSampler(
        sampler,
        rewrite=lambda trials, trial: [t for t in trials if size_at(t) == size_at(trial)],
        decide=lambda study, trial: dict(size_at(trial)),
    )


class StratifiedPruner(optuna.pruners.BasePruner):
    """Judges a trial among those of its own size."""

    def __init__(self, pruner: optuna.pruners.BasePruner) -> None:
        self.pruner = pruner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Ask the pruner, who sees the trials of this size."""
        view = TrialsView(study, _keep_size, trial)
        return bool(self.pruner.prune(view, trial))


def _keep_size(trials: list[FrozenTrial], trial: FrozenTrial) -> list[FrozenTrial]:
    return [t for t in trials if size_of(t) == size_of(trial)]
