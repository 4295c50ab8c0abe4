"""Record a trial that Hugging Face's Trainer trains.

Trainer asks its callbacks after each optimizer step, and then logs the mean training loss since its
last log. The callback makes it log at its own steps, whatever `logging_strategy` says, and calls
`recorder.step` when the loss is there: after the evaluation of that step, if there is one.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

try:
    from transformers import (
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
        __version__,
    )
except ImportError as error:
    from wwopt.integrations.requirements import explain_missing

    raise ImportError(explain_missing("transformers")) from error

from torch import nn

from wwopt.integrations.accumulated_losses import AccumulationWatch
from wwopt.integrations.requirements import Every, check_arguments, check_version
from wwopt.study.trial.step_recorder import StepRecorder

check_version("transformers", __version__)

# What an evaluation measures of itself, not of the network.
_OF_ITSELF = ("_runtime", "_per_second", "_jit_compilation_time", "_preparation_time")


class TransformersCallback(TrainerCallback):
    """`Trainer(..., callbacks=[TransformersCallback(recorder, every=50)])`.

    The recorder's steps are Trainer's optimizer steps, or epochs; it learns their number when
    training begins. A trial that is pruned leaves `trainer.train()` with `optuna.TrialPruned`.
    """

    def __init__(self, recorder: StepRecorder, *, every: Every = "epoch") -> None:
        """Make a callback for one call of `train`.

        `logging_nan_inf_filter` is turned off when training begins: it would show a loss that is
        not a number as the mean of those before, or as 0, and so as a perfect one.

        Args:
            recorder: of the trial.
            every: optimizer steps between two calls of `recorder.step`, the last step beside them;
                "epoch" for the end of each epoch. The recorder decides at which of them it
                analyses.

        Raises:
            TypeError: without a recorder.
            ValueError: if `every` is neither a positive number nor "epoch".
        """
        check_arguments("TransformersCallback", recorder, every)
        self.recorder, self.every = recorder, every
        self._recorded = 0  # the last optimizer step that was
        self._logged = 0  # the last optimizer step whose loss is in the sum
        self._sum = 0.0  # of the mean loss of each optimizer step since the last record
        self._pending: float | None = None  # a loss that waits for its evaluation
        self._watch: AccumulationWatch | None = None
        self._warned = False  # of a loss that is multiplied

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Tell the recorder how long it will take, and show it the model as it starts."""
        args.logging_nan_inf_filter = False
        self._recorded = self._logged = state.global_step  # not 0 where a checkpoint goes on
        steps = state.max_steps if self.every != "epoch" else state.num_train_epochs
        if steps > 0 and hasattr(self.recorder, "expect"):
            self.recorder.expect(steps)
        if model is None:
            return
        if args.gradient_accumulation_steps > 1 and args.n_gpu <= 1:  # replicas have own graphs
            self._watch = AccumulationWatch(model)
        if state.global_step == 0:
            self.recorder.step(model, step=0)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> TrainerControl:
        """Make Trainer log where a record is due; in this hook the loss is not known."""
        if self._is_due(state):
            control.should_log = True
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the loss; the last log of a training, and those of evaluations, have none."""
        if logs is None or "loss" not in logs or model is None:
            return
        # Trainer may log more often: each log has the mean over the steps since the one before.
        self._sum += float(logs["loss"]) * (state.global_step - self._logged)
        self._logged = state.global_step
        if not self._is_due(state):
            return
        self._pending = self._sum / (state.global_step - self._recorded)
        waits = control.should_evaluate or self._ends_with_evaluation(args, state)
        if not waits or not math.isfinite(self._pending):
            self._record(args, state, model, {})

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Record a step that waited for its evaluation, with what that measured."""
        if self._pending is not None and model is not None:
            self._record(args, state, model, metrics or {})

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Record the end of a training that stopped early; say which weights were put back."""
        if self._watch is not None:
            self._watch.close()
        if self._pending is not None and model is not None:
            self._record(args, state, model, {})
        restored = state.best_global_step if args.load_best_model_at_end else None
        if model is not None and state.global_step > self._recorded:
            self.recorder.step(model, step=self._number(state))
            self._recorded = state.global_step
        if restored is not None and restored < state.global_step:
            whole = state.max_steps / max(state.num_train_epochs, 1)
            step = restored if self.every != "epoch" else math.ceil(restored / whole)
            if hasattr(self.recorder, "go_back"):
                self.recorder.go_back(step)  # tells the loss; the weights are found by themselves

    def _record(
        self,
        args: TrainingArguments,
        state: TrainerState,
        model: nn.Module,
        metrics: Mapping[str, Any],
    ) -> None:
        loss, self._pending = self._pending, None
        assert loss is not None
        self._recorded, self._sum = state.global_step, 0.0
        measured = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and name != "epoch" and not name.endswith(_OF_ITSELF)
        }
        loss /= self._scale(args, model)
        self.recorder.step(model, train_loss=loss, step=self._number(state), **measured)

    def _is_due(self, state: TrainerState) -> bool:
        """Whether this optimizer step is recorded; not again where it was."""
        step = state.global_step
        if step <= self._recorded:
            return False
        return (
            _ends_epoch(state)
            if self.every == "epoch"
            else (step % self.every == 0 or step == state.max_steps)
        )

    def _ends_with_evaluation(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether an evaluation follows that is asked for only after the epoch's last log."""
        delay = args.eval_delay or 0
        return args.eval_strategy == "epoch" and _ends_epoch(state) and delay <= (state.epoch or 0)

    def _number(self, state: TrainerState) -> int:
        """The recorder's number of this optimizer step."""
        if self.every != "epoch":
            return int(state.global_step)
        return math.ceil(round(state.epoch or 0.0, 6))

    def _scale(self, args: TrainingArguments, model: nn.Module) -> int:
        """By what Trainer's loss is too large; see `wwopt.integrations.accumulated_losses`."""
        if self._watch is None or not self._watch.ignored:
            return 1
        number = args.gradient_accumulation_steps
        if self._warned:
            return number
        self._warned = True
        warnings.warn(
            f"{type(model).__name__} does not average its loss over gradient accumulation, so that "
            f"Trainer multiplies loss and gradient by {number}. The recorder is told the loss "
            f"divided by it; model.accepts_loss_kwargs = False, before the Trainer is made, "
            f"repairs the gradient too",
            stacklevel=2,
        )
        return number


def _ends_epoch(state: TrainerState) -> bool:
    """Whether this optimizer step is the last of its epoch, or of the training."""
    ended = state.epoch is not None and math.isclose(state.epoch, round(state.epoch))
    return ended or state.global_step == state.max_steps
