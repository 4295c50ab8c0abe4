"""What a trial costs beside its training: `python benchmarks/time_trial.py`, about 1 minute.

Whole trials of `wwopt tune` run on SQLite, Optuna's and MLflow's, with networks that are not
trained but moved a little at each step, so that nearly all of their time is overhead. CPU seconds
of one thread by who spends them: spectra (at half, three quarters and the end), MLflow, Optuna with
its sampler, the rest of wwopt. Spectra are what `recorder.step` spends beside MLflow and Optuna:
`wwopt.analyze`, and 3 ms a trial of its own. Trials with further logged steps give the cost of one.
What comes once a study, its opening and its report, is told apart. Results: docs/studies.md.

    python benchmarks/time_trial.py --study studies/char_gpt.py --data FOLDER

measures the trials of a real study instead, with its training.
"""

import argparse
import dataclasses
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
from mlflow import MlflowClient  # noqa: E402 - looked at from outside
from torch import nn  # noqa: E402

import wwopt  # noqa: E402
from wwopt.study.references import load_study  # noqa: E402

STEPS, FURTHER = 10, 30
WARM_UP = 11  # trials: beyond the sampler's 10 random ones
WHO = ("training", "spectra", "MLflow", "Optuna", "rest")

spent: dict[str, float] = defaultdict(float)  # who → CPU seconds, without what others spent inside
_running: list[str] = []  # who is at work, the innermost last
_since = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5, help="measured, after the warm-up")
    parser.add_argument("--study", help="a study file whose trials are measured instead")
    parser.add_argument("--data", type=Path, help="its folder of data")
    given = parser.parse_args()
    if given.data is not None:
        os.environ["WWOPT_DATA"] = str(given.data.resolve())
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    watch_all()
    networks = {
        "digits MLP": (64, 256, 256, 256, 10),
        "MNIST MLP": (784, 512, 512, 256, 10),
        "20 layers of 256": (256,) * 20 + (10,),
    }
    with tempfile.TemporaryDirectory() as folder:  # what is imported at the first use is no cost
        wwopt.tune(make_study("warm-up", (64, 64, 64)), trials=2, out=folder, progress=False)
    if given.study is not None:
        print("| study | " + " | ".join(WHO) + " | a trial, s | analyses, % of training |")
        print("|---" * (len(WHO) + 3) + "|")
        split = measure_study(load_study(given.study), given.trials)
        cells = " | ".join(f"{split[who]:.2f}" for who in WHO)
        share = 100.0 * split["spectra"] / split["training"]
        print(f"| {given.study} | {cells} | {sum(split.values()):.1f} | {share:.1f} |")
        return
    print(
        "| network | layers | spectra | MLflow | Optuna | rest | a trial of 10 steps, s "
        "| a further step, ms | once a study, s | its report, s |\n" + "|---" * 10 + "|"
    )
    for name, widths in networks.items():
        print_row(name, widths, given.trials)


def print_row(name: str, widths: tuple[int, ...], trials: int) -> None:
    further = [0]
    spec = make_study("overhead", widths, further)
    with tempfile.TemporaryDirectory() as folder:

        def run(count: int, *, explain: bool = False) -> float:
            start = time.process_time()
            wwopt.tune(spec, trials=count, out=folder, progress=False, explain=explain)
            return time.process_time() - start

        run(WARM_UP)
        once = run(WARM_UP)  # no trial is missing: what is left is paid once a study
        before = dict(spent)
        total = (run(WARM_UP + trials) - once) / trials
        split = {who: (seconds - before[who]) / trials for who, seconds in spent.items()}
        further[0] = FURTHER
        long = (run(WARM_UP + 2 * trials) - once) / trials
        report = run(WARM_UP + 2 * trials, explain=True) - once
    split["rest"] = total - sum(split.values()) + split["training"]
    cells = " | ".join(f"{split[who]:.2f}" for who in WHO[1:])
    step = 1000.0 * (long - total) / FURTHER
    print(
        f"| {name} | {len(widths) - 1} | {cells} | {total:.2f} | {step:.0f} | {once:.2f} "
        f"| {report:.2f} |",
        flush=True,
    )


def measure_study(spec: wwopt.StudySpec, trials: int) -> dict[str, float]:
    """CPU seconds of a trial of a real study by who spends them."""
    spec = dataclasses.replace(spec, train=watch_training(spec.train))
    with tempfile.TemporaryDirectory() as folder:
        wwopt.tune(spec, trials=1, out=folder, progress=False, explain=False)  # makes the databases
        before, start = dict(spent), time.process_time()
        wwopt.tune(spec, trials=1 + trials, out=folder, progress=False, explain=False)
        total = time.process_time() - start
    split = {who: (spent[who] - before.get(who, 0.0)) / trials for who in WHO}
    return split | {"rest": total / trials - sum(split.values())}


def make_study(
    name: str, widths: tuple[int, ...], further: list[int] | None = None
) -> wwopt.StudySpec:
    """A study that moves the first layer's weights; `further` holds how many steps come on top."""

    def train(hp: object, conditions: object, recorder: wwopt.StepRecorder) -> None:
        torch.manual_seed(0)
        network = make_model(widths)
        for _ in range(0 if further is None else further[0]):  # step 1 is not analysed
            recorder.step(network, step=1, train_loss=1.0, held_out_accuracy=0.5)
        for epoch in range(1, STEPS + 1):
            with torch.no_grad():
                network[0].weight.mul_(1.001)
            recorder.step(network, step=epoch, train_loss=1.0 / epoch, held_out_accuracy=0.5)

    space = wwopt.LayerSpace.from_model(
        make_model(widths), lr=(0.01, 1.0), dropout=None, momentum=(0.0, 0.9)
    )
    conditions = wwopt.Conditions(seed=0, epochs=STEPS)
    return wwopt.StudySpec(name, watch_training(train), space, conditions=conditions)


def make_model(widths: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths)))


def watch_all() -> None:
    """Count what the public calls of MLflow and Optuna spend from here on."""
    samplers = (optuna.samplers.GPSampler, optuna.samplers.TPESampler, optuna.samplers.CmaEsSampler)
    for owner, who in (
        (MlflowClient, "MLflow"),
        (optuna.storages.RDBStorage, "Optuna"),
        (optuna.Study, "Optuna"),
        *((sampler, "Optuna") for sampler in samplers),
    ):
        for name, function in list(vars(owner).items()):
            public = not name.startswith("_") and name != "optimize"
            if public and callable(function) and not isinstance(function, staticmethod):
                setattr(owner, name, watched(function, who))


def watch_training(train: Callable[..., None]) -> Callable[..., None]:
    """Count what a study's training spends, and its recorder with each step."""

    def run(hp: Any, conditions: wwopt.Conditions, recorder: Any) -> None:
        recorder.step = watched(recorder.step, "spectra")  # of this trial's recorder alone
        train(hp, conditions, recorder)

    return watched(run, "training")


def watched(function: Callable[..., Any], who: str) -> Callable[..., Any]:
    """Count the CPU seconds of a function; what it spends in other watched ones is theirs."""

    def count(*arguments: Any, **options: Any) -> Any:
        _switch()
        _running.append(who)
        try:
            return function(*arguments, **options)
        finally:
            _switch()
            _running.pop()

    return count


def _switch() -> None:
    """Book the time since the last switch to whoever was at work."""
    global _since
    now = time.process_time()
    if _running:
        spent[_running[-1]] += now - _since
    _since = now


if __name__ == "__main__":
    main()
