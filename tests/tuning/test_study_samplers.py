"""A study's sampler and pruner suit each other, unless the study names its own."""

import dataclasses

import optuna
from fixtures.paths import STUDIES

import wwopt
from wwopt.study.references import load_study
from wwopt.tuning.study_samplers import choose_study_sampler, make_study_pruner, make_study_sampler

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
