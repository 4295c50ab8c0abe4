"""What it costs to log a trial, to compare a study, to write its report: CPU seconds on one core.

    python benchmarks/time_report.py                 # 200 trials × 20 layers, about a minute
    python benchmarks/time_report.py --trials 50 --layers 4

The trials are networks of random heavy-tailed matrices, recorded as training would; wall time is
not shown, since it says as much of the machine's other work. `wwopt compare` and `wwopt report` as
commands also pay for starting Python and importing pandas, MLflow and plotly.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import optuna
import torch
from torch import nn

import wwopt
from wwopt.report.importance import explain_importance
from wwopt.report.page import write_report
from wwopt.report.pairs import compare_pair
from wwopt.report.text import format_importance, format_leaderboard, format_pair

EPOCHS = 20
FEW = 20  # trials, for the cost of one


def main() -> None:
    """Record a study, then measure each question that is asked of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{Path(folder) / 'mlflow.db'}"
        shape = (options.layers, options.width)
        other = f"sqlite:///{Path(folder) / 'other.db'}"
        for store in (None, other):  # imports and the database's schema
            record(store, 1, *shape)
        bare, logged = (measure(lambda u=u: record(u, FEW, *shape)) / FEW for u in (None, other))
        record(uri, options.trials, *shape)
        print(f"{options.trials} trials × {options.layers} layers of {options.width}², CPU seconds")
        print(f"  a trial of {EPOCHS} epochs without MLflow   {bare:6.3f}")
        print(f"    what MLflow adds                   {logged - bare:6.3f}")
        study = wwopt.read_study(uri)
        page = Path(folder) / "report.html"
        pair = (study.judged[0], study.judged[-1])
        steps: dict[str, Callable[[], object]] = {
            "read the study": lambda: wwopt.read_study(uri),
            "compare: the leaderboard": lambda: format_leaderboard(study, top=20, width=200),
            "compare --pair": lambda: format_pair(compare_pair(*pair), width=200),
            "compare --importance": lambda: format_importance(explain_importance(study), width=200),
            "report": lambda: write_report(study, page),
        }
        for name, step in steps.items():
            print(f"  {name:<35} {measure(step):6.3f}")
        print(f"  size of the report, MB                {page.stat().st_size / 1e6:6.2f}")
        for command in ("compare", "report -o " + str(page)):
            used = run(wwopt_command(command, folder))
            print(f"  wwopt {command.split()[0]:<8} as a command            {used:6.3f}")


def wwopt_command(command: str, folder: str) -> list[str]:
    """The command line of a wwopt command on an --out folder."""
    code = "import sys; from wwopt.cli import main; main(sys.argv[1:])"
    return [sys.executable, "-c", code, *command.split(), folder]


def run(command: list[str]) -> float:
    """CPU seconds of another process."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(step: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    step()
    return time.process_time() - start


def make_network(layers: int, width: int, rates: list[float]) -> nn.Sequential:
    """Square layers whose tails are the heavier, the larger their rate."""
    network = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
    with torch.no_grad():
        for layer, rate in zip(network, rates, strict=True):
            freedom = torch.tensor(4.5 - 2.0 * rate)
            layer.weight.copy_(torch.distributions.StudentT(freedom).sample((width, width)) / 10)
    return network


def record(uri: str | None, trials: int, layers: int, width: int) -> None:
    """Record the study."""
    space = wwopt.LayerSpace.from_model(
        make_network(layers, width, [0.5] * layers),
        lr=(0.01, 1.0),
        dropout=None,
        momentum=(0.0, 0.9),
    )

    def objective(trial: optuna.Trial) -> float:
        hp = space.suggest(trial)
        torch.manual_seed(trial.number)
        network = make_network(layers, width, list(hp.lr.values()))
        with wwopt.record(trial, epochs=EPOCHS, tracking=uri) as recorder:
            for epoch in range(EPOCHS):
                recorder.step(network, train_loss=1.0 / (1 + epoch), accuracy=0.5)
        return recorder.value

    study = optuna.create_study(
        study_name="explained", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(objective, n_trials=trials)


if __name__ == "__main__":
    main()
