"""The one point where training meets the spectra: `record(trial)` and its `Recorder.step(model)`.

wwopt is pushed to, it does not pull: the training loop stays its owner's. Each step logs; at an
analysis the spectra are computed, scored, logged, reported to Optuna and perhaps the trial is
pruned. With a known length, analyses come at ½, ¾ and the end: alpha means nothing early (half-way
the score orders the final test error with Kendall's tau .79 on the MNIST zoo; earlier is not
shown), so nothing is reported before half-way, and a study whose pruner has no warm-up is safe.
When the trial ends, its guards (see `wwopt.guards`) become Optuna's constraints.
"""

import math
import threading
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import optuna
from torch import nn

from wwopt.advice import Advice, advise
from wwopt.guards import Guards, check_guards, violation
from wwopt.layer_metrics import OK, ModelMetrics, analyze
from wwopt.objective import ObjectiveValue, SpectralObjective
from wwopt.score_version import keep_score
from wwopt.tracking import (
    StudyRun,
    TrackingError,
    TrialRun,
    finish_study,
    hide_passwords,
    mirror_best,
    open_study,
    open_trial,
)
from wwopt.tracking.keys import VALUE
from wwopt.trial_constraints import GUARDS, set_constraints
from wwopt.trial_log import log_spectra, log_weights
from wwopt.trial_summary import aggregate, finite, summarize_layer

STUDY_ATTR = "wwopt.study"  # UUID in the Optuna study's user attributes
_GUARDS = Guards()
_naming = threading.Lock()  # two threads of one study must not name it twice


@dataclass(frozen=True)
class Conditions:
    """Under which a network is trained; probes vary what a study holds fixed."""

    seed: int  # of initialisation, data order and shuffles
    epochs: int
    fraction: float = 1.0  # of the training data
    width: float = 1.0  # factor on the layers' widths
    depth: float = 1.0  # factor on the number of layers
    device: str | None = None
    checkpoint_dir: str | None = None


@dataclass
class Recorder:
    """Records one trial; `record` makes, finishes and closes it."""

    trial: optuna.trial.BaseTrial
    objective: SpectralObjective
    run: TrialRun | None
    epochs: int | None
    every: int | None
    seed: int
    max_weights: int = 0  # bytes up to which the weights of a complete trial are logged
    guards: Guards | None = None  # None for no constraints

    _step: int = 0
    _analysed: int = -1  # the step of _metrics
    _reported: int = -1  # the last step Optuna knows
    _model: nn.Module | None = None
    _metrics: ModelMetrics | None = None
    _result: ObjectiveValue | None = None
    _last: dict[str, float] = field(default_factory=dict)  # last value of each training metric
    _initial: ModelMetrics | None = None  # of step 0
    _first_loss: float | None = None  # known from the second training loss on
    _train_loss: float | None = None  # the last one
    _violation: float = 0.0  # of the guards; positive where the trial is not feasible
    _finished: bool = False

    @property
    def run_id(self) -> str | None:
        """MLflow's id of this trial's run; None without tracking."""
        return None if self.run is None else self.run.run_id

    @property
    def value(self) -> float:
        """The objective of the model of the last step; known once the block was left."""
        if not self._finished or self._result is None:
            raise RuntimeError("recorder.value is known after the `with` block, not inside it")
        return self._result.value

    @property
    def metrics(self) -> ModelMetrics | None:
        """Spectral metrics of the last analysis, None before the first."""
        return self._metrics

    @property
    def train_loss(self) -> float | None:
        """The last training loss, None before the first."""
        return self._train_loss

    @property
    def size(self) -> int:
        """Parameters of the model of the last step; those that layers share count once."""
        return 0 if self._model is None else sum(p.numel() for p in self._model.parameters())

    def step(
        self,
        model: nn.Module,
        *,
        train_loss: float | None = None,
        step: int | None = None,
        **metrics: float,
    ) -> Advice:
        """Log an epoch; analyse, report and prune where it is time.

        Args:
            model: as it is now; the one of the last step is judged in the end.
            train_loss: of this epoch. Only guarded here: it must be finite, and fall.
            step: its number; one more than the last by default, the first being 1. Step 0, before
                training, shows the guards what the model starts with; it is analysed, and neither
                reported nor refused.
            metrics: anything else to log, as `val_accuracy=.9`; never seen by the objective.

        Raises:
            optuna.TrialPruned: if the pruner says so, the loss is not finite or a layer is broken.
        """
        self._step = self._step + 1 if step is None else int(step)
        self._model = model
        logged = {f"metrics/{name}": float(value) for name, value in metrics.items()}
        self._last = {name: float(value) for name, value in metrics.items()}
        if train_loss is not None:
            logged["train/loss"] = self._last["train_loss"] = float(train_loss)
            if self._first_loss is None:
                self._first_loss = self._train_loss
            self._train_loss = float(train_loss)
        if train_loss is not None and not math.isfinite(train_loss):
            self._reject(f"training loss is {float(train_loss)}")
        if not self._due():
            if self.run is not None:
                self.run.log(logged, step=self._step)
            return Advice()
        before, step_before = self._metrics, self._analysed
        result, spectra = self._analyse(model)
        if self.run is not None:
            self.run.log(logged | aggregate(result, spectra), step=self._step)
        if self._step == 0:
            self._initial = spectra  # layers may start at zero, as those of some adapters do
        elif result.status != OK and result.value == self.objective.penalty:
            self._reject(result.status)
        self._report_and_prune(result.value)
        return advise(
            result.value,
            spectra,
            before=before,
            step=self._step,
            step_before=step_before,
            epochs=self.epochs,
        )

    def finish(self) -> None:
        """Judge the model of the last step; called on leaving the block.

        Raises:
            ValueError: if there was no step, or no layer counts.
            optuna.TrialPruned: if a layer is broken.
        """
        if self._model is None:
            raise ValueError("recorder.step(model) was never called: there is nothing to judge")
        if self._analysed != self._step or self._result is None or self._metrics is None:
            result, spectra = self._analyse(self._model)
            if self.run is not None:
                self.run.log(aggregate(result, spectra), step=self._step)
        else:
            result, spectra = self._result, self._metrics
        self._describe(result, spectra)
        if math.isnan(result.value):
            raise ValueError(f"{result.status}: every layer has fewer than 50 eigenvalues")
        if result.status != OK:
            self._reject(result.status)
        if self.run is not None:
            log_weights(self.run, self._model, limit=self.max_weights, step=self._step)
        self._finished = True

    def _due(self) -> bool:
        if self._step == 0:
            return True
        if self.every is not None:
            return self._step % self.every == 0 or self._step == self.epochs
        if self.epochs is None:
            return False
        return self._step in {
            math.ceil(self.epochs / 2),
            math.ceil(0.75 * self.epochs),
            self.epochs,
        }

    def _analyse(self, model: nn.Module) -> tuple[ObjectiveValue, ModelMetrics]:
        self._metrics = analyze(model, seed=self.seed)
        self._result = self.objective(self._metrics, train_loss=self._last.get("train_loss"))
        self._analysed = self._step
        return self._result, self._metrics

    def _report_and_prune(self, value: float) -> None:
        if self.epochs is None or 2 * self._step < self.epochs or math.isnan(value):
            return
        if not _single_objective(self.trial):
            return  # Optuna's multi-objective trials can neither report nor be pruned
        self.trial.report(value, self._step)
        self._reported = self._step
        # At the end the work is done: a complete trial says more than a pruned one.
        if self._step < self.epochs and self.trial.should_prune():
            status = f"pruned at step {self._step} with value {value:.4g}"
            self._describe(self._result, self._metrics, status=status)
            raise optuna.TrialPruned(status)

    def _reject(self, status: str) -> None:
        """Prune by name, with the penalty as the last value: no earlier, better one survives."""
        self._describe(self._result, self._metrics, status=status)
        if self.run is not None:
            self.run.log({VALUE: self.objective.penalty}, step=self._step)
        if _single_objective(self.trial):
            # Optuna ignores a second report at the same step.
            self.trial.report(self.objective.penalty, max(self._step, self._reported + 1))
        raise optuna.TrialPruned(status)

    def _describe(
        self,
        result: ObjectiveValue | None,
        spectra: ModelMetrics | None,
        *,
        status: str | None = None,
    ) -> None:
        """Store what is known in the trial's user attributes and as MLflow's layer table."""
        named = status or (OK if result is None else result.status)
        attributes: dict[str, Any] = {"status": named, "metrics": finite(self._last)}
        if result is not None and spectra is not None:
            attributes["terms"] = finite(result.terms)
            attributes["alpha"] = finite({layer.name: layer.alpha for layer in spectra.layers})
            attributes["layers"] = {layer.name: summarize_layer(layer) for layer in spectra.layers}
        for name, value in attributes.items():
            self.trial.set_user_attr(name, value)
        self._constrain(spectra)
        if self.run is not None:
            log_spectra(
                self.run,
                result,
                spectra,
                status=named,
                hyperparameters=_hyperparameters(self.trial),
                step=self._analysed,
            )

    def _constrain(self, spectra: ModelMetrics | None) -> None:
        if self.guards is None:
            return
        found = check_guards(
            spectra,
            initial=self._initial,
            train_loss=self._train_loss,
            first_train_loss=self._first_loss,
            guards=self.guards,
        )
        self._violation = violation(found)
        set_constraints(self.trial, found)
        if self.run is not None:
            self.run.log({f"{GUARDS}/{name}": v for name, v in found.items()}, step=self._step)


@contextmanager
def record(
    trial: optuna.trial.BaseTrial,
    *,
    epochs: int | None = None,
    objective: SpectralObjective | None = None,
    tracking: str | StudyRun | None = None,
    conditions: Conditions | None = None,
    every: int | None = None,
    max_weights: int | None = None,
    guards: Guards | None = _GUARDS,
) -> Iterator[Recorder]:
    """Record one trial, as in `with wwopt.record(trial, epochs=20) as recorder:`.

    Args:
        trial: Optuna's; values suggested through a `LayerSpace` are logged from it.
        epochs: how many steps there will be; by default those of the conditions.
        objective: None for the default preset.
        tracking: MLflow's tracking URI, or a study's parent run; None for no MLflow.
        conditions: of this training; their seed is that of the shuffles.
        every: analyse at every so many steps; None for ½, ¾ and the end.
        max_weights: bytes up to which the weights of a complete trial are logged, 0 for never;
            None for what the parent run says, which is 100 MB unless it was opened otherwise.
        guards: limits that become the trial's constraints when it ends; None for no constraints.

    Raises:
        ScoreError: if the study holds values of another objective, or of another version of it.
        TrackingError: if MLflow cannot be reached.
    """
    length = epochs if epochs is not None or conditions is None else conditions.epochs
    if length is not None and length < 1:
        raise ValueError(f"epochs must be at least 1, got {length}")
    if every is not None and every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    objective = objective or SpectralObjective()
    if (owner := getattr(trial, "study", None)) is not None:
        keep_score(owner, objective)
    study = _study_run(trial, tracking) if isinstance(tracking, str) else tracking
    seed = 0 if conditions is None else conditions.seed
    run = None
    if study is not None:
        run = open_trial(
            study,
            number=trial.number,
            hyperparameters=_hyperparameters(trial),
            suggested=trial.params,
            seed=seed,
        )
        trial.set_user_attr("mlflow_run_id", run.run_id)
    recorder = Recorder(
        trial=trial,
        objective=objective,
        run=run,
        epochs=length,
        every=every,
        seed=seed,
        max_weights=_choose_limit(study, max_weights),
        guards=guards,
    )
    try:
        yield recorder
        recorder.finish()
    except optuna.TrialPruned:
        _close(run, "KILLED", state="PRUNED")
        raise
    except BaseException as error:
        message = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        trial.set_user_attr("error", message)
        _close(run, "FAILED", state="FAIL", error=message)
        raise
    else:
        _close(run, "FINISHED", state="COMPLETE")
        # Scores of different sizes do not compare (wwopt.strata).
        one_size = not {"width", "depth"} & trial.params.keys()
        comparable = one_size and _single_objective(trial) and recorder._violation == 0.0
        if study is not None and run is not None and comparable:
            mirror_best(study, number=trial.number, best=run, value=recorder.value)
    finally:
        if study is not None and isinstance(tracking, str):
            finish_study(study)


def _close(run: TrialRun | None, status: str, *, state: str, error: str | None = None) -> None:
    if run is None:
        return
    try:
        if error is not None:
            run.tag({"wwopt.error": hide_passwords(error)})
            run.log_text(hide_passwords(traceback.format_exc()), "error.txt")
        run.close(status, state=state)
    except Exception as failure:
        if error is None:
            raise TrackingError(
                f"the run of this trial could not be closed: {failure}"
            ) from failure
        # The training's own error matters more than MLflow's, and is on its way up.


def _study_run(trial: optuna.trial.BaseTrial, uri: str) -> StudyRun:
    study = getattr(trial, "study", None)
    if study is None:
        return open_study(uri, name="wwopt", study=str(uuid.uuid4()))
    return open_study(uri, name=study.study_name, study=study_uuid(study))


def study_uuid(study: optuna.Study) -> str:
    """The study's UUID, given to it where it has none."""
    with _naming:
        known = study.user_attrs.get(STUDY_ATTR)
        if known is None:
            known = str(uuid.uuid4())
            study.set_user_attr(STUDY_ATTR, known)
        return str(known)


def _hyperparameters(trial: optuna.trial.BaseTrial) -> dict[str, Any]:
    """Each layer's own values where a `LayerSpace` left them, else what Optuna suggested."""
    known: dict[str, Any] = trial.user_attrs.get("hyperparameters", trial.params)
    return known


def _choose_limit(study: StudyRun | None, max_weights: int | None) -> int:
    if max_weights is not None or study is None:
        return max_weights or 0
    return study.max_weights


def _single_objective(trial: optuna.trial.BaseTrial) -> bool:
    study = getattr(trial, "study", None)
    return study is None or len(study.directions) == 1
