"""Show a sampler or pruner a study with other trials than it has, and decide values in its place.

Optuna's samplers learn from all trials of a study, and sample all values. Some of ours must learn
from a part of the trials, or count some of them otherwise (`sampling`: rejected trials, `strata`:
sizes), or leave values to somebody else (`strata`, `refinement`). Optuna's own HyperbandPruner
looks at its brackets in the same way.
"""

from collections.abc import Callable, Container, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

Rewrite = Callable[[list[FrozenTrial], FrozenTrial], list[FrozenTrial]]  # (all, the current one)
Decide = Callable[[optuna.Study, FrozenTrial], Mapping[str, Any]]  # values of the current trial


class TrialsView(optuna.Study):
    """A study as seen through a function on its trials."""

    def __init__(self, study: optuna.Study, rewrite: Rewrite, trial: FrozenTrial) -> None:
        # The parent's constructor would ask the storage for what the study knows.
        self.__dict__.update(study.__dict__)
        self._seen, self._rewrite, self._trial = study, rewrite, trial  # study may be a view too

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The rewritten trials in the given states."""
        return self._get_trials(deepcopy=deepcopy, states=states)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        every = self._seen._get_trials(deepcopy=deepcopy, use_cache=use_cache)
        trials = self._rewrite(every, self._trial)
        return [t for t in trials if states is None or t.state in states]


class ViewingSampler(optuna.samplers.BaseSampler):
    """A sampler that learns from rewritten trials and leaves the decided values alone."""

    def __init__(
        self,
        sampler: optuna.samplers.BaseSampler,
        *,
        rewrite: Rewrite = lambda trials, trial: trials,
        decide: Decide = lambda study, trial: {},
        show: Callable[[FrozenTrial], FrozenTrial] = lambda trial: trial,
    ) -> None:
        self.sampler = sampler
        self._rewrite, self._decide = rewrite, decide
        self._show = show  # the current trial, as the rewritten ones are shown
        self._decided: dict[int, Mapping[str, Any]] = {}  # trial number → values; threads share us

    def __str__(self) -> str:
        return str(self.sampler)

    def reseed_rng(self) -> None:
        """As Optuna asks for before it starts threads."""
        self.sampler.reseed_rng()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Decide what is not left to the sampler."""
        self._decided[trial.number] = self._decide(study, trial)
        self.sampler.before_trial(self._view(study, trial), self._show(trial))

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The sampler's, less what was decided."""
        view = self._view(study, trial)
        found = self.sampler.infer_relative_search_space(view, self._show(trial))
        decided = self._decided.get(trial.number, {})
        return {name: d for name, d in found.items() if name not in decided}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sampler's values for what it samples together."""
        view = self._view(study, trial)
        return self.sampler.sample_relative(view, self._show(trial), search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The decided value, else the sampler's."""
        decided = self._decided.get(trial.number, {})
        if param_name in decided:
            return decided[param_name]
        view = self._view(study, trial)
        shown = self._show(trial)
        return self.sampler.sample_independent(view, shown, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any
    ) -> None:
        """Let the sampler keep its records."""
        self._decided.pop(trial.number, None)
        self.sampler.after_trial(self._view(study, trial), self._show(trial), state, values)

    def _view(self, study: optuna.Study, trial: FrozenTrial) -> TrialsView:
        return TrialsView(study, self._rewrite, trial)
