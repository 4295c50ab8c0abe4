"""Guards become constraints of every trial, and the best trial is one that keeps to them."""

import math
from pathlib import Path

import optuna
import pytest
from fixtures.studies.recordings import runs_of, study, train
from optuna.trial import create_trial

from wwopt.study.choice import find_best
from wwopt.study.constraints import constraints_of, find_least_infeasible, is_feasible
from wwopt.tracking import TRIAL_TAG
from wwopt.tuning.samplers.trials_view import ViewingSampler

GUARDS = ("train_loss", "memorising", "lambda_max", "stable_rank", "mean_spike", "traps")


def test_guards_become_constraints_of_the_trial(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    s = optuna.create_study(study_name="guarded")
    s.optimize(lambda trial: train(trial, 1.0, 0.5, tracking=uri), n_trials=1)
    constraints = s.trials[0].constraints
    assert list(constraints) == [f"guards/{name}" for name in GUARDS]
    assert constraints["guards/train_loss"] == pytest.approx(0.5 - 0.95)
    assert constraints["guards/lambda_max"] == 0.0  # unknown: step 0 was not shown
    assert all(value <= 0.0 for value in constraints.values())
    assert s.trials[0].user_attrs["constraints"] == {n: constraints[f"guards/{n}"] for n in GUARDS}
    (run,) = [r for r in runs_of(uri, "guarded") if TRIAL_TAG in r.data.tags]
    logged = {name: run.data.metrics[f"guards/{name}"] for name in GUARDS}
    assert logged == pytest.approx(s.trials[0].user_attrs["constraints"])


def test_optunas_best_trial_is_one_that_no_guard_refuses(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    s = optuna.create_study(study_name="refused")

    def objective(trial: optuna.Trial) -> float:
        losses = (1.0, 0.5) if trial.number == 1 else (1.0, 1.0)  # only one learns
        value = train(trial, *losses, tracking=uri)
        return value + trial.number

    s.optimize(objective, n_trials=3)
    assert min(s.trials, key=lambda t: t.value or math.inf).number == 0
    assert s.best_trial.number == 1
    (parent,) = [r for r in runs_of(uri, "refused") if "mlflow.parentRunId" not in r.data.tags]
    assert parent.data.tags["wwopt.best_trial"] == "1"


def test_one_loss_alone_is_compared_with_nothing() -> None:
    s = study()
    train(s.ask(), 1.0)
    assert s.trials[0].constraints["guards/train_loss"] == 0.0


@pytest.mark.parametrize(
    ("losses", "pruner", "value"),
    [
        ((1.0, math.nan), None, 10.0),
        ((1.0, 0.7, 0.6, 0.5), optuna.pruners.ThresholdPruner(lower=100.0), 0.7 - 0.95),
    ],
)
def test_a_trial_that_does_not_end_carries_its_guards_too(
    losses: tuple[float, ...], pruner: optuna.pruners.BasePruner | None, value: float
) -> None:
    s = study(pruner)
    s.optimize(lambda trial: train(trial, *losses), n_trials=1)
    assert s.trials[0].state == optuna.trial.TrialState.PRUNED
    assert s.trials[0].constraints["guards/train_loss"] == pytest.approx(value)


@pytest.mark.parametrize("wrapped", [False, True])
def test_under_cma_es_there_are_no_constraints_that_it_would_warn_of(wrapped: bool) -> None:
    cma = optuna.samplers.CmaEsSampler(seed=0)
    s = optuna.create_study(sampler=ViewingSampler(cma) if wrapped else cma)
    s.optimize(lambda trial: train(trial, 1.0, 1.0), n_trials=1)  # a warning would be an error
    assert s.trials[0].constraints == {}
    assert s.trials[0].user_attrs["constraints"]["train_loss"] == pytest.approx(0.05)
    assert find_best(s.trials) is None  # all the same


def test_without_guards_there_are_no_constraints() -> None:
    s = study()
    train(s.ask(), 1.0, 2.0, guards=None)
    assert s.trials[0].constraints == {} and "constraints" not in s.trials[0].user_attrs


def test_a_retried_trial_has_its_own_constraints(tmp_path: Path) -> None:
    s = optuna.create_study(storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    dead = s.ask()
    train(dead, 1.0, 1.0)
    assert s.trials[0].constraints["guards/train_loss"] > 0.0
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback()
    retry(s, s.trials[0])  # as Optuna does when the heartbeat of a trial stops
    again = s.ask()
    assert again.constraints == s.trials[0].constraints  # copied from the dead one
    s.tell(again, train(again, 1.0, 0.5))
    assert s.trials[1].constraints["guards/train_loss"] == pytest.approx(0.5 - 0.95)
    assert is_feasible(s.trials[1])


def test_constraints_hold_in_a_study_of_two_objectives() -> None:
    s = optuna.create_study(directions=["minimize", "minimize"])

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        value = train(trial, 1.0, 0.5 if trial.number else 1.0)
        return value + trial.number, 1.0

    s.optimize(objective, n_trials=2)
    assert [t.number for t in s.best_trials] == [1]


def test_the_best_trial_is_feasible_and_else_the_least_infeasible_is_known() -> None:
    trials = [
        create_trial(value=value, user_attrs={"constraints": guards}, system_attrs=own)
        for value, guards, own in [
            (1.0, {"traps": 0.5, "mean_spike": -2.0}, {}),
            (3.0, {"traps": 0.0}, {}),
            (2.0, {"traps": -1.0}, {"constraints:time": 0.25}),  # of the study's owner
        ]
    ]
    assert [is_feasible(t) for t in trials] == [False, True, False]
    assert constraints_of(trials[2]) == {"guards/traps": -1.0, "time": 0.25}
    assert find_best(trials) is trials[1]
    infeasible = [trials[0], trials[2]]
    assert find_best(infeasible) is None
    assert find_least_infeasible(infeasible) is trials[2]
    assert find_best([]) is None and find_least_infeasible([]) is None
