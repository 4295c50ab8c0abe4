"""What a trial costs beside its training: `python benchmarks/overhead.py`, about 2 minutes.

Whole trials of `wwopt tune` run on SQLite, Optuna's and MLflow's, with a network that is not
trained but moved a little at each step, so that all of their time is overhead. CPU seconds by who
spends them: spectra (at half, three quarters and the end; the untrained network once more, for the
guards), MLflow, Optuna with its sampler, the rest of wwopt. The cost of a step is the slope between
10 and 40 steps. Results: docs/studies.md.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries below are loaded
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import optuna  # noqa: E402
import torch  # noqa: E402
from mlflow import MlflowClient  # noqa: E402, TID251 - looked at from outside
from torch import nn  # noqa: E402

import wwopt  # noqa: E402
import wwopt.recorder  # noqa: E402
from wwopt.trials_view import ViewingSampler  # noqa: E402

STEPS = (10, 40)
WARM_UP = 12  # trials: beyond the sampler's 10 random ones

spent: dict[str, float] = defaultdict(float)  # who → CPU seconds, without what others spent inside
_running: list[str] = []  # who is at work, the innermost last
_since = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10, help="measured, after the warm-up")
    given = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    watch(wwopt.recorder, "analyze", "spectra")
    for owner, who in (
        (MlflowClient, "MLflow"),
        (optuna.storages.RDBStorage, "Optuna"),
        (optuna.Study, "Optuna"),
        (ViewingSampler, "Optuna"),
    ):
        for name in [n for n in vars(owner) if not n.startswith("_") and n != "optimize"]:
            if callable(getattr(owner, name)) and not isinstance(vars(owner)[name], staticmethod):
                watch(owner, name, who)
    print(
        "| network | layers | spectra | MLflow | Optuna | rest | a trial of 10 steps, s "
        "| a further step, ms |\n|---|---|---|---|---|---|---|---|"
    )
    for name, widths in (
        ("digits MLP", (64, 256, 256, 256, 10)),
        ("MNIST MLP", (784, 512, 512, 256, 10)),
        ("20 layers of 256", (256,) * 20 + (10,)),
    ):
        print_row(name, widths, given.trials)


def print_row(name: str, widths: tuple[int, ...], trials: int) -> None:
    short, long = (measure(widths, steps, trials) for steps in STEPS)
    totals = [sum(split.values()) for split in (short, long)]
    cells = " | ".join(f"{short[who]:.2f}" for who in ("spectra", "MLflow", "Optuna", "rest"))
    step = 1000.0 * (totals[1] - totals[0]) / (STEPS[1] - STEPS[0])
    print(f"| {name} | {len(widths) - 1} | {cells} | {totals[0]:.2f} | {step:.0f} |", flush=True)


def measure(widths: tuple[int, ...], steps: int, trials: int) -> dict[str, float]:
    """CPU seconds of a trial by who spends them."""
    model = make_model(widths)

    def train(hp: object, conditions: object, recorder: wwopt.Recorder) -> None:
        torch.manual_seed(0)
        network = make_model(widths)
        for epoch in range(steps):
            with torch.no_grad():
                network[0].weight.mul_(1.001)
            recorder.step(network, train_loss=1.0 / (epoch + 1), held_out_accuracy=0.5)

    spec = wwopt.StudySpec(
        "overhead",
        train,
        wwopt.LayerSpace.from_model(model, lr=(0.01, 1.0), dropout=None, momentum=(0.0, 0.9)),
        conditions=wwopt.Conditions(seed=0, epochs=steps),
    )
    with tempfile.TemporaryDirectory() as folder:
        for count in (WARM_UP, WARM_UP + trials):
            before, start = dict(spent), time.process_time()
            wwopt.tune(spec, trials=count, out=Path(folder), progress=False)
            total = time.process_time() - start
    split = {who: (seconds - before.get(who, 0.0)) / trials for who, seconds in spent.items()}
    return split | {"rest": total / trials - sum(split.values())}


def make_model(widths: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths)))


def watch(owner: Any, name: str, who: str) -> None:
    """Count the CPU seconds of a function; what it spends in other watched ones is theirs."""
    function: Callable[..., Any] = getattr(owner, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        _switch()
        _running.append(who)
        try:
            return function(*arguments, **options)
        finally:
            _switch()
            _running.pop()

    setattr(owner, name, watched)


def _switch() -> None:
    """Book the time since the last switch to whoever was at work."""
    global _since
    now = time.process_time()
    if _running:
        spent[_running[-1]] += now - _since
    _since = now


if __name__ == "__main__":
    main()
