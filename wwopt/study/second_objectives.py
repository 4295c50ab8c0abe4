"""What a study can minimise beside its score: its training loss, or what its networks cost to use.

    "train_loss"  the last training loss, in nats
    "size"        parameters, those that layers share once
    "bytes"       of the network as it would be written (`wwopt.metrics.inference_cost`)
    "latency"     of one batch, in units of a matrix product on the same device (the same module)

A training that knows better says so: `recorder.step(model, bytes=...)` or `latency=` at the last
step stands for what would be measured. So does one that compresses its network: the weights that
are judged are then those that the compressed file gives back, whose own bytes would be the dense
ones'.
"""

from collections.abc import Callable
from typing import Literal

from wwopt.metrics.inference_cost import Inputs, count_model_bytes, measure_latency
from wwopt.study.trial.recorder import Recorder
from wwopt.wording import first_line

Second = Literal["train_loss", "size", "bytes", "latency"]
WHOLE: tuple[Second, ...] = ("size", "bytes")  # numbers that are counted, not measured
OF_A_MODULE: tuple[Second, ...] = ("size", "bytes", "latency")  # a checkpoint tells none of these


def measure_second(
    second: Second, recorder: Recorder, *, inputs: Callable[[], Inputs] | None
) -> float:
    """The second objective of a trial whose training has ended.

    Args:
        second: which.
        recorder: of the trial.
        inputs: makes one batch; for the latency.

    Raises:
        ValueError: if the training did not show what it needs, or the network takes no such batch.
    """
    if second == "train_loss":
        if recorder.train_loss is None:
            raise ValueError(
                'second="train_loss" needs the loss: call recorder.step(model, train_loss=...)'
            )
        return recorder.train_loss
    if second == "size":
        return float(recorder.size)
    if second in recorder.numbers:
        return recorder.numbers[second]
    if recorder.module is None:
        raise ValueError(
            f'second="{second}" needs the network: call recorder.step(model, ...) with the module, '
            f"or recorder.step(metrics, {second}=...)"
        )
    if second == "bytes":
        return float(count_model_bytes(recorder.module))
    if inputs is None:
        raise ValueError('second="latency" needs a batch: StudySpec(..., inputs=...)')
    batch = inputs()
    try:
        return measure_latency(recorder.module, batch)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f'second="latency": the network does not take the batch that inputs= makes: '
            f"{first_line(error)}"
        ) from error
