"""What it costs to keep a network and to use it: its bytes, and the time of one batch.

Bytes are those of the file that safetensors would make of it.

Latency is a ratio, since seconds are those of one machine at one moment: the time of one forward
pass, over that of a reference in the same process. The two take turns, so that what else the
machine does falls on both, and the median over the turns is taken. On a CPU one thread's own CPU
time counts, which waits for nobody; elsewhere it is wall time until the device is done.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.benchmark import timer as device_clock

from wwopt.weights.file_sizes import count_file_bytes

# One unit of latency: the product of two square matrices of so many rows, in float32. 34 million
# multiplications, .5 to 2 ms of a CPU thread: as long as a batch of a small network.
UNIT = 256
TURNS = 15  # the median of fewer moves by more than 2 % from run to run
TURN = 0.005  # seconds that either gets in a turn, at least

Inputs = torch.Tensor | tuple[Any, ...] | Mapping[str, Any]


def count_model_bytes(model: nn.Module) -> int:
    """Bytes of the file that safetensors' `save_model` makes of a network, header included.

    What its state dict holds, in its own precision; a tensor that layers share is written once.
    """
    state = model.state_dict(keep_vars=True)  # the parameters themselves, not views
    owners: dict[int, str] = {}
    written: dict[str, torch.Tensor] = {}
    shared: dict[str, str] = {}  # which says where it is found
    for name in sorted(state):
        if torch.is_tensor(state[name]):  # a module's extra state is no tensor
            owner = owners.setdefault(id(state[name]), name)
            if owner == name:
                written[name] = state[name]
            else:
                shared[name] = owner
    return count_file_bytes(written, shared)


def measure_latency(
    model: nn.Module, inputs: Inputs, *, reference: Callable[[], object] | None = None
) -> float:
    """The time of one forward pass, in units of the reference's.

    In evaluation mode, without gradients, on one thread; the model's modes and torch's threads are
    left as they were. Runs of one process differ by about 2 %; those of machines may by a
    multiple, since the ratio of a matrix product to what else a network does is not the same.

    Args:
        model: of any kind; on whatever device.
        inputs: one batch: a tensor, positional arguments, or arguments by name. They are brought to
            the device of the model's first parameter.
        reference: what one unit is; None for a product of two matrices of `UNIT` rows and columns
            in float32 on that device.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    positional, named = _arguments(inputs, device)
    if reference is None:
        generator = torch.Generator().manual_seed(0)
        factor = torch.randn(UNIT, UNIT, generator=generator).to(device)
        reference = lambda: factor @ factor  # noqa: E731
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            return _compare(lambda: model(*positional, **named), reference, device)
    finally:
        for module, training in modes.items():
            module.training = training


def _compare(
    first: Callable[[], object], second: Callable[[], object], device: torch.device
) -> float:
    """Seconds of a call of the first, over those of the second."""
    # `device_clock` waits for the device; `Timer` takes one thread unless told otherwise.
    clock = time.thread_time if device.type == "cpu" else device_clock
    timers = [Timer("run()", globals={"run": run}, timer=clock) for run in (first, second)]
    for timer in timers:
        timer.timeit(2)  # caches are filled, kernels chosen
    seconds = [timer.timeit(3).mean for timer in timers]
    turn = max(TURN, *seconds)  # both get about as long: what disturbs one disturbs the other
    counts = [max(1, round(turn / max(each, 1e-7))) for each in seconds]
    ratios = []
    for _ in range(TURNS):
        a, b = (timer.timeit(n).mean for timer, n in zip(timers, counts, strict=True))
        ratios.append(a / b)
    return statistics.median(ratios)


def _arguments(inputs: Inputs, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def move(value: Any) -> Any:
        return value.to(device) if torch.is_tensor(value) else value

    if isinstance(inputs, Mapping):
        return (), {name: move(value) for name, value in inputs.items()}
    return tuple(map(move, inputs if isinstance(inputs, tuple) else (inputs,))), {}
