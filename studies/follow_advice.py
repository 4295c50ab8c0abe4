"""Does it pay to follow the advice: to freeze layers, to let learning rates follow alpha?

    python studies/follow_advice.py --data FOLDER                   # about 3 minutes on 2 cores
    python studies/follow_advice.py --data FOLDER --task transformer --seeds 8   # 14 minutes

Each seed trains plainly and by an advice: it freezes the layers that have stopped moving
(`freeze_layers`), or multiplies rates by the factors of TempBalance or LLR (`compute_lr_factors`,
`scale_learning_rates`); one learning rate for all layers but for those, equal epochs, an analysis
after each. CPU seconds of training alone, and of the analyses.

- mlp: `mnist_mlp.py`'s network, 10 epochs on 3,000 images, SGD, momentum .5, dropout .2; freezing
  and TempBalance, 10 seeds.
- transformer: `char_gpt.py`'s, 8 epochs of 50 batches, AdamW, beta1 .9, dropout .1; TempBalance and
  LLR.
  Planned before: 8 seeds, 20 minutes of one core. LLR's rates lie between one and five times the
  base rate, so a rule is judged at the best of several base rates, against plain training at the
  best of its own; the lowest mean test loss says which rate is best, for all rules alike. "Pays":
  the 95 % interval of the paired difference lies below 0. The rates were 3e-4, 1e-3, 3e-3 and 1e-2;
  plain training was best at the largest, so 5.5e-3 and 1.8e-2 were added.

Networks that are finished are kept in --out.
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Memory
from tqdm import tqdm

from harness.layer_rates.advised_training import TASKS, AdvisedTask, train
from harness.markdown_tables import format_markdown
from harness.score_statistics import mean_interval

COLUMNS = ("learning rate", "training", "layers frozen, % of epochs", "test error, %", "less plain")
COLUMNS += ("test loss", "less plain", "training, CPU s", "analyses, CPU s")


def print_tables(task: AdvisedTask, found: dict[tuple[str, float, int], dict[str, float]]) -> None:
    """Every rate and arm with its difference from plain training; then each arm at its best."""
    seeds = sorted({seed for _, _, seed in found})

    def runs(arm: str, rate: float) -> list[dict[str, float]]:
        return [found[arm, rate, seed] for seed in seeds]

    def mean(arm: str, rate: float, key: str) -> float:
        return float(np.mean([run[key] for run in runs(arm, rate)]))

    def compare(arm: str, rate: float, plain: float) -> list[str]:
        cells = []
        for key, digits in (("error", 2), ("loss", 3)):
            pairs = zip(runs(arm, rate), runs("plain", plain), strict=True)
            less = mean_interval(np.array([run[key] - other[key] for run, other in pairs]))
            cells.append(f"{mean(arm, rate, key):.{digits}f}")
            cells.append("" if arm == "plain" else f"{less:+.{digits}f}")
        return cells

    rows = []
    for rate, arm in product(task.rates, task.arms):
        cost = [f"{mean(arm, rate, key):.2f}" for key in ("train", "analysis")]
        frozen = f"{mean(arm, rate, 'frozen'):.0f}"
        rows.append([f"{rate:g}", arm, frozen, *compare(arm, rate, rate), *cost])
    print(format_markdown(pd.DataFrame(rows, columns=COLUMNS), index=False))
    best = {a: min(task.rates, key=lambda rate, a=a: mean(a, rate, "loss")) for a in task.arms}
    rows = [[a, f"{best[a]:g}", *compare(a, best[a], best["plain"])] for a in task.arms]
    heads = ["training, each at its best rate", "rate", *COLUMNS[3:7]]
    print("\n" + format_markdown(pd.DataFrame(rows, columns=heads), index=False))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder; else the variable WWOPT_DATA")
    parser.add_argument("--task", choices=TASKS, default="mlp")
    parser.add_argument("--out", type=Path, default=Path("follow-advice"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args(arguments)
    if given.data is not None:
        os.environ["WWOPT_DATA"] = str(given.data.resolve())
    task = TASKS[given.task]
    # Arms innermost: what else the machine does falls on all of them.
    cases = [(a, r, s) for s, r, a in product(range(given.seeds), task.rates, task.arms)]
    train_once = Memory(given.out, verbose=0).cache(train)
    columns = zip(*cases, strict=True)
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        runs = pool.map(train_once, [task] * len(cases), *columns)
        found = dict(tqdm(zip(cases, runs, strict=True), desc="networks", total=len(cases)))
    print_tables(task, found)


if __name__ == "__main__":
    main()
