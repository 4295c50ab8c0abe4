"""What a study's `train` is handed: something that it shows its network to, step by step."""

from typing import Protocol

from torch import nn

from wwopt.study.advice import Advice


class StepRecorder(Protocol):
    """Takes a network and its numbers at each step of training.

    In a study this is `wwopt.Recorder`; in a probe, or wherever a study's `train` is called without
    a study, it is `wwopt.study.LastNetwork`. A `train` that uses no more runs in both.
    """

    def step(
        self,
        model: nn.Module,
        *,
        train_loss: float | None = None,
        step: int | None = None,
        **metrics: float,
    ) -> Advice:
        """Show the network as it is now, and what was measured; as `wwopt.Recorder.step`."""
        ...
