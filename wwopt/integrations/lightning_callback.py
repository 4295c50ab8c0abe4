"""Record a trial that Lightning's Trainer trains.

Lightning tells its callbacks the loss of each batch, divided by the number of batches that one
optimizer step accumulates, and calls them for each of those batches while its step stands still.
The callback undoes the one and waits out the other.
"""

import math
from typing import Any

import torch

try:
    from lightning import __version__
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    from wwopt.integrations.requirements import explain_missing

    raise ImportError(explain_missing("lightning")) from error

from wwopt.integrations.requirements import Every, check_arguments, check_version
from wwopt.study.trial.step_recorder import StepRecorder

check_version("lightning", __version__)


class LightningCallback(Callback):
    """`Trainer(..., callbacks=[LightningCallback(recorder, every=50)])`.

    The recorder's steps are Lightning's optimizer steps, or epochs; it learns their number when
    training begins. A trial that is pruned leaves `trainer.fit()` with `optuna.TrialPruned`.
    """

    def __init__(self, recorder: StepRecorder, *, every: Every = "epoch") -> None:
        """Make a callback for one call of `fit`.

        Args:
            recorder: of the trial.
            every: optimizer steps between two calls of `recorder.step`, the last step beside them;
                "epoch" for the end of each epoch. The recorder decides at which of them it
                analyses. What the validations before a record logged is logged with it.

        Raises:
            TypeError: without a recorder.
            ValueError: if `every` is neither a positive number nor "epoch".
        """
        check_arguments("LightningCallback", recorder, every)
        self.recorder, self.every = recorder, every
        self._recorded = 0  # the last optimizer step that was
        self._seen = 0  # the last optimizer step
        self._losses: list[torch.Tensor] = []  # of the batches since the last record
        self._validated: dict[str, float] = {}  # since the last record

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the recorder how long it will take, and show it the model as it starts."""
        self._recorded = self._seen = trainer.global_step  # not 0 where a checkpoint goes on
        steps = self._length(trainer)
        if steps is not None and hasattr(self.recorder, "expect"):
            self.recorder.expect(steps)
        if trainer.global_step == 0:
            self.recorder.step(pl_module, step=0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Take the batch's loss; record if it ended an optimizer step whose turn it is.

        The last step waits for its validation, and so for the end of training.
        """
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if torch.is_tensor(loss):
            self._losses.append(loss.detach() * trainer.accumulate_grad_batches)
        step, before = trainer.global_step, self._seen
        self._seen = step
        if self.every == "epoch" or step == before or step == self._length(trainer):
            return
        if step // self.every > before // self.every:
            self._record(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take what validation logged; the check before training is none."""
        if not trainer.sanity_checking:
            numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
            others = {n: v for n, v in numbers.items() if not n.startswith("train")}
            # "step" is logged to give charts another axis.
            self._validated |= {n: v for n, v in others.items() if n not in ("model", "step")}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record an epoch, where epochs are recorded."""
        if self.every == "epoch":
            self._record(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record what came after the last record; an epoch has always ended by now."""
        if self.every != "epoch" and trainer.global_step > self._recorded:
            self._record(trainer, pl_module)

    def _record(self, trainer: Trainer, module: LightningModule) -> None:
        losses, self._losses = self._losses, []
        measured, self._validated = self._validated, {}
        self._recorded = trainer.global_step
        loss = float(torch.stack(losses).mean()) if losses else None
        number = trainer.global_step if self.every != "epoch" else trainer.current_epoch + 1
        self.recorder.step(module, train_loss=loss, step=number, **measured)

    def _length(self, trainer: Trainer) -> int | None:
        """How many steps or epochs there will be; None where Lightning does not know."""
        steps = trainer.estimated_stepping_batches
        if not 0 < steps < math.inf:  # -1 or infinity: until somebody stops it
            return None
        if self.every != "epoch":
            return int(steps)
        if not math.isfinite(trainer.num_training_batches):
            return None
        an_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        return math.ceil(steps / an_epoch)
