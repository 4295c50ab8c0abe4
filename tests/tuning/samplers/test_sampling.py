"""Which sampler and pruner a study gets, and what the sampler is shown of rejected trials."""

import importlib.util

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from wwopt.tuning.samplers import sampling
from wwopt.tuning.samplers.sampling import choose_sampler, count_rejected, make_pruner, make_sampler

UNIT = optuna.distributions.FloatDistribution(0.0, 1.0)


def trial_at(x: float, value: float, **options: object) -> FrozenTrial:
    return create_trial(params={"x": x}, distributions={"x": UNIT}, value=value, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dimensions", "trials", "options", "kind"),
    [
        (9, 20, {}, "gp"),
        (30, 300, {}, "gp"),
        (31, 300, {}, "tpe"),
        (9, 301, {"constrained": True}, "tpe"),
        (9, 20, {"pruning": True}, "tpe"),
        (54, 100, {}, "tpe"),
        (54, 540, {}, "tpe"),
        (54, 5000, {"constrained": True}, "tpe"),
        (54, 5000, {"pruning": True}, "tpe"),
        (9, 20, {"weights_only": True}, "random"),
        (54, 5000, {"weights_only": True, "constrained": True}, "random"),
    ],
)
def test_the_choice_by_dimensions_budget_and_pruning(
    dimensions: int, trials: int, options: dict[str, bool], kind: str
) -> None:
    assert choose_sampler(dimensions, trials, **options) == kind


@pytest.mark.parametrize(("installed", "kind"), [(True, "cma"), (False, "tpe")])
def test_many_trials_without_constraints_get_cma_where_it_is_installed(
    installed: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec("optuna") if installed else None
    monkeypatch.setattr(sampling.importlib.util, "find_spec", lambda name: found)
    assert choose_sampler(9, 301) == kind
    assert choose_sampler(54, 541) == kind


def test_no_pruner_under_a_sampler_that_ignores_pruned_trials() -> None:
    assert isinstance(make_pruner(make_sampler("gp", 0), epochs=10), optuna.pruners.NopPruner)
    cma = optuna.samplers.CmaEsSampler(seed=0)
    assert isinstance(make_pruner(cma, epochs=10), optuna.pruners.NopPruner)


@pytest.mark.parametrize(("step", "pruned"), [(4, False), (5, True)])
def test_the_default_pruner_waits_for_half_of_training(step: int, pruned: bool) -> None:
    pruner = make_pruner(make_sampler("tpe", 0), epochs=10)
    study = optuna.create_study(pruner=pruner)
    for _ in range(5):
        study.add_trial(trial_at(0.5, 0.0, intermediate_values={4: 0.0, 5: 0.0}))
    trial = study.ask()
    trial.report(1.0, step)
    assert bool(trial.should_prune()) is pruned


def test_rejected_trials_are_shown_just_worse_than_the_worst() -> None:
    trials = [
        trial_at(0.1, -0.5),
        trial_at(0.2, -0.1),
        trial_at(0.3, 10.0, state=TrialState.PRUNED, intermediate_values={3: 10.0}),
        trial_at(0.4, -0.9, system_attrs={"constraints:traps": 1.5}),
        trial_at(0.5, -0.3, system_attrs={"constraints:traps": -1.0}),
        create_trial(state=TrialState.FAIL),
    ]
    shown = count_rejected(trials, trials[0])
    assert [t.state.name for t in shown] == ["COMPLETE"] * 5 + ["FAIL"]
    assert [t.value for t in shown[:5]] == pytest.approx([-0.5, -0.1, -0.06, -0.06, -0.3])
    assert not any(t.constraints for t in shown)
    assert trials[2].state == TrialState.PRUNED and trials[3].constraints == {"traps": 1.5}


def test_a_gaussian_process_learns_to_avoid_what_is_rejected() -> None:
    """Two thirds of the range are rejected; the process stops sampling there."""

    def run(sampler: optuna.samplers.BaseSampler) -> list[float]:
        study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.NopPruner())

        def objective(trial: optuna.Trial) -> float:
            x = trial.suggest_float("x", 0.0, 1.0)
            if x > 1 / 3:
                trial.report(10.0, 1)
                raise optuna.TrialPruned
            return (x - 0.2) ** 2

        study.optimize(objective, n_trials=22)
        return [t.params["x"] for t in study.trials[12:]]

    assert np.mean(np.array(run(make_sampler("gp", 0))) > 1 / 3) <= 0.2


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown sampler 'grid'; known: gp, tpe, cma"):
        make_sampler("grid", 0)  # type: ignore[arg-type]


def test_cma_is_optunas_own() -> None:
    pytest.importorskip("cmaes", reason="needs the package cmaes")
    study = optuna.create_study(sampler=make_sampler("cma", 0))
    study.optimize(lambda t: sum(t.suggest_float(f"x{i}", -1, 1) ** 2 for i in range(3)), 60)
    assert study.best_value < 0.05
