"""How a trial ended: decided once, then left in Optuna and in MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna

from wwopt.metrics.guards import violation
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.metrics.objective import ObjectiveValue
from wwopt.plain_data import make_plain
from wwopt.study.constraints import set_constraints
from wwopt.study.trial.trial_log import log_spectra
from wwopt.study.trial.trial_summary import summarize_layer
from wwopt.tracking import TrialRun
from wwopt.tracking.keys import GUARDS, GUIDE_TAG, SCORES

Ending = Literal[
    "complete",
    "pruned",  # by Optuna's pruner, for its value
    "refused",  # training broke a layer, or its loss is not finite
    "unscored",  # no layer counts, so there is nothing to judge it by
    "failed",  # its training raised; of observed trials, whose run alone says so else
]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is known of a trial when it ends."""

    ending: Ending
    status: str  # "ok", or why it ended otherwise, in words
    step: int  # of the last network
    metrics: Mapping[str, float]  # last value of each that training logged, its loss among them
    result: ObjectiveValue | None  # of the last analysis; None before one
    spectra: ModelMetrics | None  # of that analysis
    analysed: int  # its step; -1 before one
    guards: Mapping[str, float] | None  # guard → value, positive where violated; None: not judged
    guide: str | None = None  # preset of the objective; None where no step decided it
    scores: Mapping[str, float] = field(
        default_factory=dict
    )  # what every score says: see `wwopt.study.guides`

    @property
    def is_feasible(self) -> bool:
        """Whether no guard is violated."""
        return self.guards is None or violation(self.guards) == 0.0


def leave_outcome(outcome: Outcome, trial: optuna.trial.BaseTrial, run: TrialRun | None) -> None:
    """Store an outcome in the trial's user attributes and constraints, and in its MLflow run."""
    attributes: dict[str, Any] = {
        "ending": outcome.ending,
        "status": outcome.status,
        "metrics": make_plain(dict(outcome.metrics)),
        "guide": outcome.guide,
        "scores": dict(outcome.scores),
    }
    result, spectra = outcome.result, outcome.spectra
    if result is not None and spectra is not None:
        attributes["terms"] = make_plain(result.terms)
        attributes["alpha"] = make_plain({layer.name: layer.alpha for layer in spectra.layers})
        attributes["layers"] = {layer.name: summarize_layer(layer) for layer in spectra.layers}
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    if outcome.guards is not None:
        set_constraints(trial, outcome.guards)
    if run is None:
        return
    if outcome.guide is not None:
        run.tag({GUIDE_TAG: outcome.guide})
    run.log({f"{SCORES}/{name}": v for name, v in outcome.scores.items()}, step=outcome.step)
    if outcome.guards is not None:
        values = {f"{GUARDS}/{name}": value for name, value in outcome.guards.items()}
        run.log(values, step=outcome.step)
    log_spectra(
        run,
        result,
        spectra,
        ending=outcome.ending,
        status=outcome.status,
        hyperparameters=hyperparameters_of(trial),
        step=outcome.analysed,
    )


def hyperparameters_of(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """Each layer's own values where a `LayerSpace` left them, else what Optuna suggested."""
    known: dict[str, Any] = trial.user_attrs.get("hyperparameters", trial.params)
    return known
