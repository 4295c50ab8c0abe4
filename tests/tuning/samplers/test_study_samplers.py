"""A study's sampler and pruner suit each other, unless the study names its own."""

import dataclasses
from typing import Any

import optuna
import pytest
from fixtures.networks.sizes import make_space
from fixtures.paths import STUDIES

import wwopt
from wwopt.study.guides import settle_score
from wwopt.study.references import load_study
from wwopt.study.score_version import keep_score
from wwopt.study.space.layer_space import LayerSpace
from wwopt.study.tries import INTERRUPTED_ATTR, PLACE_ATTR
from wwopt.tuning.samplers.strata import StratifiedPruner
from wwopt.tuning.samplers.study_samplers import (
    SAMPLER_ATTR,
    choose_study_sampler,
    make_study_pruner,
    make_study_sampler,
    sampler_kind_of,
    show_in_order,
)

DIGITS = STUDIES / "digits.py"


def test_sampler_and_pruner_are_chosen_together_unless_the_study_names_its_own() -> None:
    spec = load_study(str(DIGITS))
    space = spec.space_at(spec.conditions)

    def choose(spec: wwopt.StudySpec) -> str:
        return choose_study_sampler(spec, space, trials=20)

    assert choose(spec) == "gp"  # 9 depth knots less one: the output has no dropout
    assert isinstance(make_study_pruner(spec, space, kind="gp"), optuna.pruners.NopPruner)
    assert isinstance(make_study_pruner(spec, space, kind="tpe"), optuna.pruners.MedianPruner)
    wanted = dataclasses.replace(spec, pruner=optuna.pruners.PercentilePruner(25.0))
    assert choose(wanted) == "tpe"  # a Gaussian process would forget what is pruned
    assert make_study_pruner(wanted, space, kind="tpe") is wanted.pruner
    off = dataclasses.replace(spec, pruner=optuna.pruners.NopPruner())
    assert choose(off) == "gp"
    own = dataclasses.replace(spec, sampler=optuna.samplers.GPSampler(seed=0))
    assert make_study_sampler(own, space, seed=1, kind="tpe") is own.sampler
    assert isinstance(make_study_pruner(own, space, kind="tpe"), optuna.pruners.NopPruner)
    random = dataclasses.replace(spec, sampler=lambda seed: optuna.samplers.RandomSampler(seed))
    sampler = make_study_sampler(random, space, seed=0, kind="gp")
    assert isinstance(sampler, optuna.samplers.RandomSampler)
    assert isinstance(make_study_pruner(random, space, kind="gp"), optuna.pruners.MedianPruner)


def test_under_the_weights_only_score_trials_are_drawn_at_random() -> None:
    spec = load_study(str(DIGITS))
    space = spec.space_at(spec.conditions)
    named = dataclasses.replace(spec, objective=wwopt.SpectralObjective("weights-only"))
    assert choose_study_sampler(named, space, trials=20) == "random"
    loss_too = dataclasses.replace(spec, objective=wwopt.SpectralObjective("validation-free"))
    assert choose_study_sampler(loss_too, space, trials=20) == "gp"
    sampler = make_study_sampler(named, space, seed=0, kind="random")
    assert isinstance(sampler, optuna.samplers.RandomSampler)
    assert isinstance(make_study_pruner(named, space, kind="random"), optuna.pruners.NopPruner)
    pruned = dataclasses.replace(named, pruner=optuna.pruners.PercentilePruner(25.0))
    assert make_study_pruner(pruned, space, kind="random") is pruned.pruner


@pytest.mark.parametrize(("train_loss", "kind"), [(1.0, "gp"), (None, "random")])
def test_the_first_step_decides_the_sampler_too(train_loss: float | None, kind: str) -> None:
    study = optuna.create_study()
    study.set_user_attr(SAMPLER_ATTR, "gp")
    assert sampler_kind_of(study) == "gp"  # before any step
    settle_score(study.ask(), train_loss=train_loss)
    assert sampler_kind_of(study) == kind


def test_a_study_that_was_begun_under_another_sampler_keeps_it() -> None:
    study = optuna.create_study()
    study.set_user_attr(SAMPLER_ATTR, "gp")
    keep_score(study, wwopt.SpectralObjective("weights-only", version=3))  # named, as by 0.1.0
    assert sampler_kind_of(study) == "gp"


def tiny(**options: Any) -> tuple[wwopt.StudySpec, LayerSpace]:
    """A study of square layers, and its space."""
    conditions = wwopt.Conditions(seed=0, epochs=8)
    space = make_space(conditions, **options.pop("space", {}))
    return wwopt.StudySpec("tiny", print, space, conditions=conditions, **options), space


def test_of_two_objectives_trials_are_sampled_by_tpe_and_never_pruned() -> None:
    spec, space = tiny(second="size")
    assert choose_study_sampler(spec, space, trials=20) == "tpe"
    assert isinstance(make_study_pruner(spec, space), optuna.pruners.NopPruner)
    plain, _ = tiny()
    assert choose_study_sampler(plain, space, trials=20) == "gp"


def test_sizes_are_sampled_in_turn_and_judged_apart() -> None:
    spec, space = tiny(space={"widths": (1.0, 2.0)})
    study = optuna.create_study(sampler=make_study_sampler(spec, space, seed=0))
    widths = [space.suggest(study.ask()).width for _ in range(4)]
    assert widths == [1.0, 2.0, 1.0, 2.0]
    pruner = make_study_pruner(spec, space)
    assert isinstance(pruner, StratifiedPruner)
    assert isinstance(pruner.pruner, optuna.pruners.MedianPruner)


def test_a_coarse_to_fine_space_is_refined_around_the_best_trial() -> None:
    spec, space = tiny(space={"tie": "coarse-to-fine", "coarse_trials": 1})
    study = optuna.create_study()
    for _ in range(2):
        study.sampler = make_study_sampler(spec, space, seed=0)
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, 0.0)
    first, second = (trial.user_attrs["hyperparameters"] for trial in study.trials)
    assert "lr/depth=first" in study.trials[0].params
    assert sum(second[name] != first[name] for name in first) == 1  # one layer moved


def test_an_interrupted_study_is_shown_as_one_that_was_not() -> None:
    def trial(place: int, **options: Any) -> optuna.trial.FrozenTrial:
        options = {"value": (place - 3) ** 2 / 10} | options
        return optuna.trial.create_trial(
            params={"x": place / 10},
            distributions={"x": optuna.distributions.FloatDistribution(0.0, 1.0)},
            user_attrs={PLACE_ATTR: place} | options.pop("attributes", {}),
            **options,
        )

    def draw(trials: list[optuna.trial.FrozenTrial]) -> float:
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=2)
        study = optuna.create_study(sampler=show_in_order(sampler))
        study.add_trials(trials)
        return study.ask().suggest_float("x", 0.0, 1.0)

    whole = [trial(place) for place in range(8)]
    stopped = {"state": optuna.trial.TrialState.FAIL, "value": None}
    stopped["attributes"] = {INTERRUPTED_ATTR: "stopped"}
    parts = [trial(3, **stopped) if place == 3 else whole[place] for place in range(8)]
    assert draw([*parts, whole[3]]) == draw(whole)  # it was tried again behind the others


def test_a_sampler_that_the_study_makes_gets_the_seed() -> None:
    seeds: list[int] = []

    def make(seed: int) -> optuna.samplers.BaseSampler:
        seeds.append(seed)
        return optuna.samplers.RandomSampler(seed=seed)

    spec, space = tiny(sampler=make)
    drawn = []
    for seed in (3, 3, 4):
        study = optuna.create_study(sampler=make_study_sampler(spec, space, seed=seed))
        drawn.append(list(space.suggest(study.ask()).lr.values()))
    assert seeds == [3, 3, 4]
    assert drawn[0] == drawn[1] != drawn[2]
