"""What happens at each step of a trial, and at its end: log, analyse, judge, report, prune, guard.

Each step logs. At an analysis the spectra are computed, scored, logged and reported to Optuna, and
perhaps the trial is pruned. With a known length, analyses come at ½, ¾ and the end: alpha means
nothing early (half-way the score orders the final test error with Kendall's tau .79 on the MNIST
zoo; earlier is not shown), so nothing is reported before half-way, and a study whose pruner has no
warm-up is safe. Steps need not be consecutive: an analysis comes at the first step that is at its
time or beyond it. When the trial ends, its guards (`wwopt.metrics.guards`) become Optuna's
constraints.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import optuna
from torch import nn

from wwopt.metrics.analysis import analyze
from wwopt.metrics.guards import Guards, check_guards
from wwopt.metrics.model_metrics import OK, ModelMetrics
from wwopt.metrics.objective import ObjectiveValue, SpectralObjective
from wwopt.study.advice import Advice, advise
from wwopt.study.guides import score_by_all, settle_score
from wwopt.study.history import History, Step, Which
from wwopt.study.kept_networks import Judged, KeptNetwork, fingerprint
from wwopt.study.outcomes import Ending, Outcome, leave_outcome
from wwopt.study.trial_log import log_weights
from wwopt.study.trial_summary import aggregate
from wwopt.tracking import TrialRun, activate
from wwopt.tracking.keys import VALUE


class Recorder:
    """Records one trial; `record` makes, finishes and closes it."""

    def __init__(
        self,
        trial: optuna.trial.BaseTrial,
        *,
        objective: SpectralObjective | None = None,
        run: TrialRun | None = None,
        epochs: int | None = None,
        every: int | None = None,
        seed: int = 0,
        max_weights: int = 0,
        guards: Guards | None = None,
        history: History | None = None,
        judge: Judged = "last",
    ) -> None:
        """Begin a trial.

        Args:
            trial: Optuna's.
            objective: scores its networks; None to let the first step decide.
            run: of the trial in MLflow; None without tracking.
            epochs: steps that there will be; None if unknown.
            every: analyse at every so many steps; None for ½, ¾ and the end.
            seed: of the shuffles.
            max_weights: bytes up to which the weights of a complete trial are logged.
            guards: None for no constraints.
            history: the steps of a try before this one; None to keep none.
            judge: the network of the last step, or the best by the score, from half-way on.
        """
        self.trial, self.objective, self.run = trial, objective, run
        self.epochs, self.every, self.seed = epochs, every, seed
        self.max_weights, self.guards = max_weights, guards
        self._history = history
        self._judges_best = judge == "best"
        self._best: KeptNetwork | None = None  # by the score, where that one is judged
        self._step = 0
        self._analysed = -1  # the step of _metrics
        self._fingerprint: tuple[float, ...] = ()  # of the weights of _metrics
        self._reported = -1  # the last step Optuna knows
        self._model: nn.Module | None = None
        self._metrics: ModelMetrics | None = None
        self._result: ObjectiveValue | None = None
        self._last: dict[str, float] = {}  # last value of each training metric
        self._initial: ModelMetrics | None = None  # of step 0
        self._first_loss: float | None = None  # known from the second training loss on
        self._train_loss: float | None = None  # the last one
        self._losses: dict[int, float] = {}  # of all steps
        self._outcome: Outcome | None = None  # decided once, when the trial ends

    @property
    def run_id(self) -> str | None:
        """MLflow's id of this trial's run; None without tracking."""
        return None if self.run is None else self.run.run_id

    @property
    def value(self) -> float:
        """The objective of the model that was judged; known once the block was left."""
        outcome = self._outcome
        if outcome is None or outcome.ending != "complete" or outcome.result is None:
            raise RuntimeError("recorder.value is known after the `with` block, not inside it")
        return outcome.result.value

    @property
    def metrics(self) -> ModelMetrics | None:
        """Spectral metrics of the last analysis, None before the first."""
        return self._metrics

    @property
    def train_loss(self) -> float | None:
        """The last training loss, None before the first."""
        return self._train_loss

    @property
    def is_feasible(self) -> bool:
        """Whether no guard is violated; known once the trial ended."""
        return self._outcome is None or self._outcome.is_feasible

    @property
    def size(self) -> int:
        """Parameters of the model of the last step; those that layers share count once."""
        return 0 if self._model is None else sum(p.numel() for p in self._model.parameters())

    def expect(self, steps: int) -> None:
        """Take the number of steps from a training that knows it only now, as frameworks do.

        It replaces what `record` was told, and is in the unit of `step`'s numbers.

        Raises:
            ValueError: if there is no step to come.
        """
        if steps < 1:
            raise ValueError(f"a training has at least 1 step, got {steps}")
        self.epochs = steps

    def active_run(self) -> AbstractContextManager[None]:
        """Make the trial's run MLflow's active one: what a framework logs then goes into it.

        Around the framework's `train()`, inside the `record` block; without tracking it does
        nothing. How the run ends is decided by the `record` block all the same.
        """
        return nullcontext() if self.run is None else activate(self.run)

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
            train_loss: of this epoch, in nats. It must be finite, and fall. Where the study names
                no objective, whether the first step has one decides which score guides
                (`wwopt.study.guides`).
            step: its number; one more than the last by default, the first being 1. Numbers may be
                left out, and never go back. A training that goes on from its checkpoint must name
                it. Step 0, before training, shows the guards what the model starts with; it is
                analysed, and neither reported nor refused.
            metrics: anything else to log, as `val_accuracy=.9`; never seen by the objective.

        Raises:
            optuna.TrialPruned: if the pruner says so, the loss is not finite or a layer is broken;
                and at every step after that.
            ScoreError: if it logs a training loss and the study's first trial did not, or the other
                way round.
            ValueError: if the objective that was named reads a training loss, and none was logged;
                if a step comes before the last one.
        """
        self._refuse_if_ended()
        before = self._count(step)
        self._model = model
        if self.objective is None and (train_loss is not None or self._step > 0):
            self.objective = settle_score(self.trial, train_loss=train_loss)
        before = self._go_on(before)
        numbers = dict(metrics) | ({} if train_loss is None else {"train_loss": train_loss})
        self._note(self._step, {name: float(value) for name, value in numbers.items()})
        logged = {f"metrics/{name}": float(value) for name, value in metrics.items()}
        if train_loss is not None:
            logged["train/loss"] = float(train_loss)
        if train_loss is not None and not math.isfinite(train_loss):
            self._reject(f"training loss is {float(train_loss)}")
        if not is_due(self._step, before=before, epochs=self.epochs, every=self.every):
            self._log(logged)
            return Advice()
        metrics_before, step_before = self._metrics, self._analysed
        result, spectra = self._analyse(model)
        logged |= aggregate(result, spectra)
        self._log(logged)
        if self._step == 0:
            self._initial = spectra  # layers may start at zero, as those of some adapters do
        elif result is not None:
            if result.status != OK and result.value == self._penalty:
                self._reject(result.status)
            self._keep_best(result)
            self._report_and_prune(result.value)
        return advise(
            None if result is None else result.value,
            spectra,
            before=metrics_before,
            step=self._step,
            step_before=step_before,
            epochs=self.epochs,
        )

    def go_back(self, step: int) -> None:
        """Take the model for that of an earlier step, whose weights a framework has put into it.

        What is judged in the end are the weights that are there then, whoever changed them; this
        says which training loss belongs to them: the last one up to that step.
        """
        known = [number for number in self._losses if number <= step]
        if known:
            self._train_loss = self._last["train_loss"] = self._losses[max(known)]

    def finish(self) -> None:
        """Judge the model as it is now, or the best one; called on leaving the block.

        The last analysis counts if it is of the last step and the weights have not changed since.

        Raises:
            ValueError: if there was no step, or no layer counts.
            optuna.TrialPruned: if a layer is broken, or the trial was pruned before.
        """
        self._refuse_if_ended()
        if self._model is None:
            raise ValueError("recorder.step(model) was never called: there is nothing to judge")
        current = self._analysed == self._step and self._result is not None
        if not current or self._fingerprint != fingerprint(self._model):
            result, spectra = self._analyse(self._model)
            if self.run is not None:
                self.run.log(aggregate(result, spectra), step=self._step)
        else:
            result = self._result
        if result is None:
            raise ValueError(
                "recorder.step(model) was called for step 0 alone: nothing was trained"
            )
        if math.isnan(result.value):
            self._end("unscored", result.status)
            raise ValueError(f"{result.status}: every layer has fewer than 50 eigenvalues")
        if result.status != OK:
            self._reject(result.status)
        if self._best is not None and self._best.result.value < result.value:
            self._restore(self._best)
        self._end("complete", OK)
        if self.run is not None:
            log_weights(self.run, self._model, limit=self.max_weights, step=self._step)

    def _count(self, step: int | None) -> int:
        """Go to the next step, or to that number; the number of the step before it."""
        before = self._step
        number = before + 1 if step is None else int(step)
        if self._model is not None and number < before:
            raise ValueError(
                f"step {number} comes after step {before}: steps of a trial only go forward. A "
                f"second training goes on counting, or has a trial of its own"
            )
        self._step = number
        return before

    def _note(self, step: int, numbers: dict[str, float]) -> None:
        """Take the numbers of a step into account."""
        self._last = numbers
        if "train_loss" in numbers:
            if self._first_loss is None:
                self._first_loss = self._train_loss
            self._train_loss = self._losses[step] = numbers["train_loss"]

    def _go_on(self, before: int) -> int:
        """At the first step of a try: take over what those before it knew of the steps so far.

        Returns:
            The number of the step before this one, in whatever try.
        """
        if self._history is None:
            return before
        for step in self._history.take(self._step):
            before = step.number
            self._note(step.number, step.numbers)
            if self.run is not None:
                self.run.log(step.logged, step=step.number)
            if step.reported is not None:
                self.trial.report(step.reported, step.number)
                self._reported = step.number
            initial = self._history.read_spectra("initial") if step.number == 0 else None
            if initial is not None:
                self._initial = initial[1]
            last = self._history.read_spectra("last")
            if last is not None and last[0] == step.number:
                self._analysed, self._metrics = last
                self._judge()
        return before

    def _log(self, logged: dict[str, float]) -> None:
        """Log a step, and keep it for a try that goes on after it."""
        if self.run is not None:
            self.run.log(logged, step=self._step)
        if self._history is None:
            return
        analysed = self._metrics is not None and self._analysed == self._step
        if analysed and self._metrics is not None:
            which: Which = "initial" if self._step == 0 else "last"
            self._history.keep_spectra(which, self._metrics, step=self._step)
        value = None if not analysed or self._result is None else self._result.value
        reported = value if value is not None and self._reports(value) else None
        finite = {name: float(v) for name, v in logged.items() if math.isfinite(v)}
        self._history.add(Step(self._step, finite, dict(self._last), reported))

    def _analyse(self, model: nn.Module) -> tuple[ObjectiveValue | None, ModelMetrics]:
        self._metrics = analyze(model, seed=self.seed)
        self._analysed, self._fingerprint = self._step, fingerprint(model)
        self._judge()
        return self._result, self._metrics

    def _judge(self) -> None:
        """Score the last analysis."""
        assert self._metrics is not None
        # Before training there need be no loss, and so no score yet that reads it.
        unknown = self._analysed == 0 and self._train_loss is None
        if self.objective is None or (unknown and self.objective.reads_train_loss):
            self._result = None
        else:
            self._result = self.objective(self._metrics, train_loss=self._train_loss)

    def _keep_best(self, result: ObjectiveValue) -> None:
        """Keep the network if it is the best so far, and the best one is to be judged."""
        early = self.epochs is not None and 2 * self._step < self.epochs
        best = math.inf if self._best is None else self._best.result.value
        if not self._judges_best or early or not result.value < best:  # not NaN either
            return
        assert self._model is not None and self._metrics is not None
        self._best = KeptNetwork.of(
            self._model,
            step=self._step,
            metrics=self._metrics,
            result=result,
            train_loss=self._train_loss,
        )

    def _restore(self, best: KeptNetwork) -> None:
        """Put the best network back into the model, and judge that one."""
        assert self._model is not None
        self._model.load_state_dict(best.weights)
        self._metrics, self._result, self._analysed = best.metrics, best.result, best.step
        if best.train_loss is not None:
            self._train_loss = self._last["train_loss"] = best.train_loss
        self.trial.set_user_attr("judged_step", best.step)
        if self.run is not None:  # the newest value is what MLflow shows of a run
            self.run.log(aggregate(best.result, best.metrics), step=self._step)

    @property
    def _penalty(self) -> float:
        return (self.objective or SpectralObjective()).penalty

    def _report_and_prune(self, value: float) -> None:
        if not self._reports(value):
            return
        self.trial.report(value, self._step)
        self._reported = self._step
        # At the end the work is done: a complete trial says more than a pruned one.
        if self.epochs is not None and self._step < self.epochs and self.trial.should_prune():
            status = f"pruned at step {self._step} with value {value:.4g}"
            self._end("pruned", status)
            raise optuna.TrialPruned(status)

    def _reports(self, value: float) -> bool:
        """Whether Optuna is told this step's value; trials of several objectives cannot report."""
        early = self.epochs is None or 2 * self._step < self.epochs
        return not (early or math.isnan(value)) and has_one_objective(self.trial)

    def _reject(self, status: str) -> None:
        """Prune by name, with the penalty as the last value: no earlier, better one survives."""
        self._end("refused", status)
        if self.run is not None:
            self.run.log({VALUE: self._penalty}, step=self._step)
        if has_one_objective(self.trial):
            # Optuna ignores a second report at the same step.
            self.trial.report(self._penalty, max(self._step, self._reported + 1))
        raise optuna.TrialPruned(status)

    def _end(self, ending: Ending, status: str) -> None:
        """Decide how the trial ended, and leave it where it is read."""
        guards = None
        if self.guards is not None:
            guards = check_guards(
                self._metrics,
                initial=self._initial,
                train_loss=self._train_loss,
                first_train_loss=self._first_loss,
                losses=self._losses,
                guards=self.guards,
            )
        scores = {}
        if self._metrics is not None and self.objective is not None:
            version = self.objective.version
            scores = score_by_all(self._metrics, train_loss=self._train_loss, version=version)
        self._outcome = Outcome(
            ending=ending,
            status=status,
            step=self._step,
            metrics=dict(self._last),
            result=self._result,
            spectra=self._metrics,
            analysed=self._analysed,
            guards=guards,
            guide=None if self.objective is None else self.objective.preset,
            scores=scores,
        )
        leave_outcome(self._outcome, self.trial, self.run)

    def _refuse_if_ended(self) -> None:
        """A framework may swallow the exception that pruned a trial; the trial stays pruned."""
        if self._outcome is None:
            return
        if self._outcome.ending == "complete":
            raise RuntimeError("the trial has ended: its `with wwopt.record(...)` block was left")
        raise optuna.TrialPruned(self._outcome.status)


def is_due(step: int, *, before: int, epochs: int | None, every: int | None) -> bool:
    """Whether a step is analysed: each `every` and the last, or ½, ¾ and the end; step 0 always.

    Args:
        step: its number.
        before: number of the step before it. What fell due since then is due now.
        epochs: number of the last step; None if unknown.
        every: so many steps lie between analyses; None for ½, ¾ and the end.
    """
    if step == 0:
        return True
    if every is not None:
        return step // every > before // every or step == epochs
    if epochs is None:
        return False
    dues = (math.ceil(epochs * part) for part in (0.5, 0.75, 1.0))
    return any(before < due <= step for due in dues)


def has_one_objective(trial: optuna.trial.BaseTrial) -> bool:
    """Whether the trial's study has one; a trial without a study counts as one of such a study."""
    study = getattr(trial, "study", None)
    return study is None or len(study.directions) == 1
