"""What happens at each step of a trial, and at its end: log, analyse, judge, report, prune, guard.

Each step logs. At an analysis the spectra are computed, scored, logged and reported to Optuna, and
perhaps the trial is pruned. With a known length, analyses come at ½, ¾ and the end: alpha means
nothing early (half-way the score orders the final test error with Kendall's tau .79 on the MNIST
zoo; earlier is not shown), so nothing is reported before half-way, and a study whose pruner has no
warm-up is safe. Steps need not be consecutive: an analysis comes at the first step that is at its
time or beyond it. When the trial ends, its guards (`wwopt.metrics.guards`) become Optuna's
constraints.

A recorder that only observes logs and analyses all the same, and leaves the study alone: it reports
nothing, prunes nothing, sets no constraint, and no error of its own ends a training
(`wwopt.study.trial.observing`).
"""

import logging
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress

import optuna
from torch import nn

from wwopt.metrics.analysis import analyze
from wwopt.metrics.guards import Guards, check_guards
from wwopt.metrics.model_metrics import OK, ModelMetrics
from wwopt.metrics.objective import ObjectiveValue, SpectralObjective
from wwopt.study.advice import Advice, advise
from wwopt.study.guides import score_by_all, settle_score
from wwopt.study.trial.history import History, Step, Which
from wwopt.study.trial.kept_networks import Judged, KeptNetwork, fingerprint
from wwopt.study.trial.observing import choose_watching_score, leave_observation, log_own_value
from wwopt.study.trial.outcomes import Ending, Outcome, leave_outcome
from wwopt.study.trial.trial_log import log_weights
from wwopt.study.trial.trial_summary import aggregate
from wwopt.tracking import TrialRun, activate
from wwopt.tracking.keys import ALARM_TAG, SCORES, VALUE
from wwopt.wording import first_line

LOG = logging.getLogger("wwopt")


class Recorder:
    """Records one trial; `record` makes, finishes and closes it."""

    def __init__(
        self,
        trial: optuna.trial.BaseTrial | None,
        *,
        objective: SpectralObjective | None = None,
        run: TrialRun | None = None,
        observe: bool = False,
        epochs: int | None = None,
        every: int | None = None,
        seed: int = 0,
        max_weights: int = 0,
        guards: Guards | None = None,
        history: History | None = None,
        told: int = -1,
        reported: int = -1,
        judge: Judged = "last",
    ) -> None:
        """Begin a trial.

        Args:
            trial: Optuna's; None of a training outside any study, which is observed.
            objective: scores its networks; None to let the first step decide.
            run: of the trial in MLflow; None without tracking.
            observe: whether to leave the study alone.
            epochs: steps that there will be; None if unknown.
            every: analyse at every so many steps; None for ½, ¾ and the end.
            seed: of the shuffles.
            max_weights: bytes up to which the weights of a complete trial are logged.
            guards: None for no constraints.
            history: the steps of a try before this one; None to keep none.
            told: the last step that the trial's run has; -1 before any.
            reported: the last one that Optuna knows; -1 before any.
            judge: the network of the last step, or the best by the score, from half-way on.
        """
        self.trial, self.objective, self.run = trial, objective, run
        self.observes = observe or trial is None
        self.epochs, self.every, self.seed = epochs, every, seed
        self.max_weights, self.guards = max_weights, guards
        self._history = history
        self._judges_best = judge == "best"
        self._best: KeptNetwork | None = None  # by the score, where that one is judged
        self._step = 0
        self._analysed = -1  # the step of _metrics
        self._fingerprint: tuple[float, ...] = ()  # of the weights of _metrics
        self._told = told  # the last step that the run has, of steps before this recorder
        self._reported = reported  # the last step Optuna knows
        self._model: nn.Module | ModelMetrics | None = None
        self._metrics: ModelMetrics | None = None
        self._result: ObjectiveValue | None = None
        self._last: dict[str, float] = {}  # last value of each training metric
        self._initial: ModelMetrics | None = None  # of step 0
        self._first_loss: float | None = None  # known from the second training loss on
        self._train_loss: float | None = None  # the last one
        self._losses: dict[int, float] = {}  # of all steps
        self._alarms: dict[str, None] = {}  # of an observed trial, each once, in their order
        self._outcome: Outcome | None = None  # decided once, when the trial ends

    @property
    def run_id(self) -> str | None:
        """MLflow's id of this trial's run; None without tracking."""
        return None if self.run is None else self.run.run_id

    @property
    def value(self) -> float:
        """The objective of the model that was judged; known once the block was left.

        Of an observed trial that is the spectral score, and not what its own objective returns.
        """
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
    def last_value(self) -> float | None:
        """The objective at the last analysis; None before one."""
        return None if self._result is None else self._result.value

    @property
    def has_ended(self) -> bool:
        """Whether it is decided how the trial ended."""
        return self._outcome is not None

    @property
    def is_feasible(self) -> bool:
        """Whether no guard is violated; known once the trial ended."""
        return self._outcome is None or self._outcome.is_feasible

    @property
    def alarms(self) -> tuple[str, ...]:
        """What went wrong in an observed trial, in words; nothing was done about it."""
        return tuple(self._alarms)

    @property
    def size(self) -> int:
        """Parameters of the model of the last step; those that layers share count once.

        0 before the first step, and where only the metrics of a model were shown.
        """
        return 0 if self.module is None else sum(p.numel() for p in self.module.parameters())

    @property
    def module(self) -> nn.Module | None:
        """The model of the last step; None before it, and where only its metrics were shown."""
        return self._model if isinstance(self._model, nn.Module) else None

    @property
    def numbers(self) -> Mapping[str, float]:
        """What was logged with the last step, as {"train_loss": .1, "val_accuracy": .9}."""
        return dict(self._last)

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
        model: nn.Module | ModelMetrics,
        *,
        train_loss: float | None = None,
        step: int | None = None,
        **metrics: float,
    ) -> Advice:
        """Log an epoch; analyse, report and prune where it is time.

        Args:
            model: as it is now; the one of the last step is judged in the end. Or what `analyze`
                found in it, where the model itself is elsewhere.
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
            ValueError: if the objective that was named reads a training loss, and none was logged,
                or the step's number goes back.

        While it observes, it raises none of these: what is wrong becomes one of its `alarms`.
        """
        if not self.observes:
            return self._take(model, train_loss, step, metrics)
        try:
            return self._take(model, train_loss, step, metrics)
        except Exception as error:  # whatever it is: it must not end the training that is watched
            reason = first_line(error, named=True)
            number = self._step if step is None else step
            self._alarm(f"step {number} was not recorded: {reason}")
            return Advice()

    def note(self, *, train_loss: float | None, step: int, **metrics: float) -> None:
        """Log the numbers of a step whose model nobody shows.

        Raises:
            optuna.TrialPruned: if the loss is not finite, or the trial was pruned before.
        """
        self._refuse_if_ended()
        before, self._step = self._step, step
        self._go_on(before)
        self._log(self._log_numbers(train_loss, metrics))

    def keep_value(self, value: float) -> float:
        """Keep what the study's own objective returns for this trial, and hand it back.

        So that the report says how the spectral scores agree with it. Only of a trial of a study
        with one objective that is observed; inside the block or after it.

        Raises:
            RuntimeError: if the trial is not observed, or belongs to no study.
        """
        study = getattr(self.trial, "study", None)
        if not self.observes or study is None:
            raise RuntimeError(
                "recorder.keep_value is for trials of a study that has an objective of its own: "
                "record(trial, observe=True)"
            )
        if self.run is not None:
            with suppress(Exception):  # as in `step`
                log_own_value(self.run, float(value), study.direction, step=max(self._step, 0))
        return value

    def _take(
        self,
        model: nn.Module | ModelMetrics,
        train_loss: float | None,
        step: int | None,
        metrics: dict[str, float],
    ) -> Advice:
        self._refuse_if_ended()
        before = self._count(step)
        self._model = model
        if self.objective is None and (train_loss is not None or self._step > 0):
            self.objective = self._choose_score(train_loss)
        before = self._go_on(before)
        logged = self._log_numbers(train_loss, metrics)
        if not is_due(self._step, before=before, epochs=self.epochs, every=self.every):
            self._log(logged)
            return Advice()
        metrics_before, step_before = self._metrics, self._analysed
        result, spectra = self._analyse(model)
        logged |= self._aggregate()
        self._log(logged)
        if self._step == 0:
            self._initial = spectra  # layers may start at zero, as those of some adapters do
        elif result is not None:
            if result.status != OK and (result.value == self._penalty or self.observes):
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

        While it observes, it raises none of these.
        """
        if not self.observes:
            self._finish()
            return
        try:
            self._finish()
        except Exception as error:  # as in `step`
            self._alarm(f"not judged: {first_line(error, named=True)}")

    def stop_watching(self, ending: Ending, status: str) -> None:
        """Leave what was seen of an observed trial that its study pruned, or that failed."""
        if self.observes and self._outcome is None:
            with suppress(Exception):
                self._end(ending, status)

    def _finish(self) -> None:
        self._refuse_if_ended()
        if self._model is None:
            raise ValueError("recorder.step(model) was never called: there is nothing to judge")
        current = self._analysed == self._step and self._result is not None
        if not current or self._fingerprint != self._print_of(self._model):
            result, _ = self._analyse(self._model)
            if self.run is not None:
                self.run.log(self._aggregate(), step=self._step)
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
        self._end("complete", result.status)
        if self.run is not None and isinstance(self._model, nn.Module):
            log_weights(self.run, self._model, limit=self.max_weights, step=self._step)

    def _log_numbers(self, train_loss: float | None, metrics: dict[str, float]) -> dict[str, float]:
        """Take the numbers that training gave; as they are logged."""
        numbers = dict(metrics) | ({} if train_loss is None else {"train_loss": train_loss})
        self._note(self._step, {name: float(value) for name, value in numbers.items()})
        logged = {f"metrics/{name}": float(value) for name, value in metrics.items()}
        if train_loss is not None:
            logged["train/loss"] = float(train_loss)
        if train_loss is not None and not math.isfinite(train_loss):
            self._reject(f"training loss is {float(train_loss)}")
        return logged

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
            if self.run is not None and step.number > self._told:
                self.run.log(step.logged, step=step.number)
            known = step.reported is None or step.number <= self._reported
            if step.reported is not None and not known and self.trial is not None:
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

    def _analyse(
        self, model: nn.Module | ModelMetrics
    ) -> tuple[ObjectiveValue | None, ModelMetrics]:
        metrics = model if isinstance(model, ModelMetrics) else analyze(model, seed=self.seed)
        self._metrics, self._analysed = metrics, self._step
        self._fingerprint = self._print_of(model)
        self._judge()
        return self._result, metrics

    def _judge(self) -> None:
        """Score the last analysis."""
        assert self._metrics is not None
        # Before training there need be no loss, and so no score yet that reads it.
        unknown = self._analysed == 0 and self._train_loss is None
        if self.objective is None or (unknown and self.objective.reads_train_loss):
            self._result = None
        else:
            self._result = self.objective(self._metrics, train_loss=self._train_loss)

    def _choose_score(self, train_loss: float | None) -> SpectralObjective:
        if self.observes or self.trial is None:
            return choose_watching_score(train_loss)
        return settle_score(self.trial, train_loss=train_loss)

    def _aggregate(self) -> dict[str, float]:
        """What an analysis logs; the objective of an observed trial is not ours."""
        assert self._metrics is not None
        if not self.observes:
            return aggregate(self._result, self._metrics)
        scores = {f"{SCORES}/{name}": value for name, value in self._score_by_all().items()}
        return aggregate(None, self._metrics) | scores

    def _score_by_all(self) -> dict[str, float]:
        if self._metrics is None or self.objective is None:
            return {}
        version = self.objective.version
        return score_by_all(self._metrics, train_loss=self._train_loss, version=version)

    @staticmethod
    def _print_of(model: nn.Module | ModelMetrics) -> tuple[float, ...]:
        """Of the weights, as far as they are here."""
        return fingerprint(model) if isinstance(model, nn.Module) else ()

    def _keep_best(self, result: ObjectiveValue) -> None:
        """Keep the network if it is the best so far, and the best one is to be judged."""
        early = self.epochs is not None and 2 * self._step < self.epochs
        best = math.inf if self._best is None else self._best.result.value
        if not self._judges_best or early or not result.value < best:  # not NaN either
            return
        if self.observes or not isinstance(self._model, nn.Module):  # not ours to put back
            return
        assert self._metrics is not None
        self._best = KeptNetwork.of(
            self._model,
            step=self._step,
            metrics=self._metrics,
            result=result,
            train_loss=self._train_loss,
        )

    def _restore(self, best: KeptNetwork) -> None:
        """Put the best network back into the model, and judge that one."""
        assert isinstance(self._model, nn.Module) and self.trial is not None
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
        if self.trial is None or not self._reports(value):
            return
        if self._step > self._reported:  # Optuna ignores a second report at the same step
            self.trial.report(value, self._step)
            self._reported = self._step
        # At the end the work is done: a complete trial says more than a pruned one.
        if self.epochs is not None and self._step < self.epochs and self.trial.should_prune():
            status = f"pruned at step {self._step} with value {value:.4g}"
            self._end("pruned", status)
            raise optuna.TrialPruned(status)

    def _reports(self, value: float) -> bool:
        """Whether Optuna is told this step's value; trials of several objectives cannot report."""
        if self.observes or self.trial is None:
            return False
        early = self.epochs is None or 2 * self._step < self.epochs
        return not (early or math.isnan(value)) and has_one_objective(self.trial)

    def _reject(self, status: str) -> None:
        """Prune by name, with the penalty as the last value: no earlier, better one survives."""
        if self.observes or self.trial is None:
            self._alarm(f"step {self._step}: {status}")
            return
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
            scores=self._score_by_all(),
        )
        if not self.observes and self.trial is not None:
            leave_outcome(self._outcome, self.trial, self.run)
            return
        refusing = [guard for guard, value in (guards or {}).items() if value > 0.0]
        if refusing:
            self._alarm(f"guards would refuse this network: {', '.join(refusing)}")
        leave_observation(self._outcome, self.trial, self.run, alarms=self.alarms)

    def _alarm(self, words: str) -> None:
        """Say once what went wrong, where the trial is not ours to end."""
        if words in self._alarms:
            return
        self._alarms[words] = None
        number = getattr(self.trial, "number", None)
        LOG.warning("%s%s", "" if number is None else f"trial {number}: ", words)
        if self.run is not None:
            with suppress(Exception):  # the store may be what went wrong
                self.run.tag({ALARM_TAG: "\n".join(self._alarms)})

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
