"""The sampler and the pruner of a study: its own, or those that suit it, size by size."""

import copy

import optuna
from optuna.trial import FrozenTrial

from wwopt.study.guides import FIRST_STEP, GUIDE_ATTR
from wwopt.study.score_version import held_score
from wwopt.study.space.layer_space import LayerSpace
from wwopt.study.spec import StudySpec
from wwopt.study.tries import is_replaced, place_of
from wwopt.tuning.samplers.refinement import make_refining_sampler
from wwopt.tuning.samplers.sampling import SamplerKind, choose_sampler, make_pruner, make_sampler
from wwopt.tuning.samplers.strata import StratifiedPruner, list_sizes, make_stratified_sampler
from wwopt.tuning.samplers.trials_view import ViewingSampler

Sampler = optuna.samplers.BaseSampler
SAMPLER_ATTR = "wwopt.sampler"  # of the study: kind of sampler that was chosen for it


def choose_study_sampler(spec: StudySpec, space: LayerSpace, *, trials: int) -> SamplerKind:
    """Which sampler suits a study, where it names none and shall have so many trials.

    Args:
        spec: the study.
        space: under its own conditions.
        trials: that it shall have.
    """
    if spec.second is not None:
        return "tpe"  # knows several objectives and constraints at once
    pruning = spec.pruner is not None and not isinstance(spec.pruner, optuna.pruners.NopPruner)
    dimensions = len(space.distributions(0))
    return choose_sampler(
        dimensions,
        trials,
        pruning=pruning,
        constrained=spec.guards is not None,
        weights_only=spec.objective is not None and spec.objective.preset == "weights-only",
    )


def sampler_kind_of(study: optuna.Study) -> SamplerKind:
    """The kind of sampler that was chosen for a study, and is kept with it.

    Where the first trial's first step found no training loss, the weights-only score is the
    objective, which nobody knew when the study was created.
    """
    kind: SamplerKind = study.user_attrs.get(SAMPLER_ATTR, "tpe")
    if study.user_attrs.get(GUIDE_ATTR) != FIRST_STEP or len(study.directions) > 1:
        return kind
    held = held_score(study)
    return "random" if held is not None and held.preset == "weights-only" else kind


def make_study_sampler(
    spec: StudySpec, space: LayerSpace, *, seed: int, kind: SamplerKind = "tpe"
) -> Sampler:
    """The study's sampler; one of the given kind unless the study names its own."""
    sampler = _own_sampler(spec, seed, kind)
    if space.tie == "coarse-to-fine":
        return make_refining_sampler(space, sampler, seed=seed)
    sizes = list_sizes(space)
    return make_stratified_sampler(sampler, sizes) if sizes else sampler


def make_study_pruner(
    spec: StudySpec, space: LayerSpace, *, kind: SamplerKind = "tpe"
) -> optuna.pruners.BasePruner:
    """The study's pruner; by default the one that suits its sampler."""
    drawn = kind == "random" and spec.sampler is None and spec.pruner is None
    if drawn or spec.second is not None:
        return optuna.pruners.NopPruner()  # what is drawn at random is chosen from in the end
    epochs = spec.conditions.epochs
    pruner = spec.pruner or make_pruner(_own_sampler(spec, 0, kind), epochs=epochs)
    return StratifiedPruner(pruner) if list_sizes(space) else pruner


def show_in_order(sampler: Sampler) -> Sampler:
    """Show the sampler the trials with their places as numbers, and none that was replaced.

    Samplers draw from what they see in the order of its numbers: with a trial that was tried again
    at the end of it, an interrupted study would go on otherwise than one that was not.
    """

    def number(trial: FrozenTrial) -> FrozenTrial:
        if trial.number == place_of(trial):
            return trial
        shown = copy.copy(trial)
        shown.number = place_of(trial)
        return shown

    def order(trials: list[FrozenTrial], _trial: FrozenTrial) -> list[FrozenTrial]:
        return sorted(map(number, (t for t in trials if not is_replaced(t))), key=place_of)

    return ViewingSampler(sampler, rewrite=order, show=number)


def _own_sampler(spec: StudySpec, seed: int, kind: SamplerKind) -> Sampler:
    if spec.sampler is None:
        return make_sampler(kind, seed)
    return spec.sampler if isinstance(spec.sampler, Sampler) else spec.sampler(seed)
