"""A sampler sees rewritten trials and leaves decided values alone; the study itself stays whole."""

from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from wwopt.tuning.samplers.trials_view import TrialsView, ViewingSampler


def odd_ones(trials: list[FrozenTrial], trial: FrozenTrial) -> list[FrozenTrial]:
    return [t for t in trials if t.number % 2]


@pytest.fixture
def study() -> optuna.Study:
    """Five complete trials and, in their middle, one that failed."""
    study = optuna.create_study()
    for number in range(6):
        study.add_trial(
            create_trial(state=TrialState.FAIL) if number == 3 else create_trial(value=1.0)
        )
    return study


def test_only_the_rewritten_trials_are_seen_in_the_states_asked_for(study: optuna.Study) -> None:
    view = TrialsView(study, odd_ones, study.trials[-1])
    assert [t.number for t in view.trials] == [1, 3, 5]
    complete = view.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    assert [t.number for t in complete] == [1, 5]
    assert view.study_name == study.study_name
    assert [t.number for t in study.trials] == list(range(6))


def test_a_view_of_a_view_is_rewritten_by_both(study: optuna.Study) -> None:
    view = TrialsView(study, odd_ones, study.trials[-1])
    both = TrialsView(view, lambda trials, _: trials[1:], study.trials[-1])
    assert [t.number for t in both.trials] == [3, 5]


class Watching(optuna.samplers.RandomSampler):
    """Notes which trials it is shown."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.seen: list[list[int]] = []

    def sample_independent(self, study: optuna.Study, *arguments: Any) -> Any:
        self.seen.append([t.number for t in study.get_trials(deepcopy=False)])
        return super().sample_independent(study, *arguments)


def test_what_is_decided_is_not_sampled_and_the_rest_is_from_what_is_seen(
    study: optuna.Study,
) -> None:
    def decide(study: optuna.Study, trial: FrozenTrial) -> Mapping[str, Any]:
        return {"x": float(len(study.get_trials(deepcopy=False)))}  # of all, not of those seen

    inner = Watching()
    study.sampler = ViewingSampler(inner, rewrite=odd_ones, decide=decide)
    trial = study.ask()
    assert trial.suggest_float("x", 0.0, 9.0) == 7.0  # this one among them
    assert inner.seen == []
    assert 0.0 <= trial.suggest_float("y", 0.0, 1.0) <= 1.0
    assert inner.seen == [[1, 3, 5]]
    study.tell(trial, 0.0)


def test_what_is_decided_is_left_out_of_what_is_sampled_together() -> None:
    for decided in ({}, {"x": 0.5}):
        sampler = ViewingSampler(
            optuna.samplers.TPESampler(seed=0, n_startup_trials=2, multivariate=True),
            decide=lambda study, trial, decided=decided: decided,
        )
        study = optuna.create_study(sampler=sampler)
        for _ in range(4):
            trial = study.ask()
            x, y = trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 0.0, 1.0)
            study.tell(trial, x + y)
        frozen = study.trials[-1]
        sampler.before_trial(study, frozen)
        space = sampler.infer_relative_search_space(study, frozen)
        assert set(space) == {"x", "y"} - set(decided)
        assert all(t.params["x"] == 0.5 for t in study.trials) is bool(decided)
