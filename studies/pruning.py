"""What does pruning save, and what does it cost in quality, against a sampler that needs none?

    python studies/pruning.py --data FOLDER         # about 5 minutes on 2 cores

Studies of 20 trials of `mnist_mlp.py`'s network (8 epochs on 2,000 images), 5 paired seeds:
multivariate TPE with and without the median pruner, and the Gaussian process, which ignores pruned
trials and so has no pruner. Compute is epochs trained, of 160. Quality is the objective of the best
trial and its error on 1,000 validation images, which no search sees. Finished studies are kept in
--out.
"""

import argparse
import dataclasses
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd

import wwopt
from harness.markdown_tables import format_markdown
from harness.score_statistics import mean_interval
from wwopt.study.references import load_study
from wwopt.study.spec import derive_seed
from wwopt.tuning.samplers.sampling import SamplerKind
from wwopt.tuning.samplers.study_samplers import make_study_pruner, make_study_sampler

ARMS: dict[str, tuple[SamplerKind, bool]] = {
    "TPE, no pruner": ("tpe", False),
    "TPE, median pruner": ("tpe", True),
    "Gaussian process, no pruner": ("gp", False),
}
TRIALS, EPOCHS, FRACTION = 20, 8, 0.5
COLUMNS = ("search", "trials pruned", "epochs trained, %", "best objective", "less no pruner")
COLUMNS += ("validation error, %", "less no pruner")


def run_study(arm: str, seed: int) -> dict[str, Any]:
    """Run one study in memory and say what it cost and found."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spec = load_study(str(Path(__file__).with_name("mnist_mlp.py")))
    conditions = wwopt.Conditions(seed=0, epochs=EPOCHS, fraction=FRACTION)
    kind, pruned = ARMS[arm]
    pruner = None if pruned else optuna.pruners.NopPruner()
    spec = dataclasses.replace(spec, conditions=conditions, pruner=pruner)
    space = spec.space_at(spec.conditions)
    study = optuna.create_study(pruner=make_study_pruner(spec, space, kind=kind))
    for number in range(TRIALS):
        number_seed = derive_seed(seed, 0, number)
        study.sampler = make_study_sampler(spec, space, seed=number_seed, kind=kind)
        study.optimize(spec.optuna_objective(seed=seed), n_trials=1)
    best = study.best_trial
    return {
        "arm": arm,
        "seed": seed,
        "epochs": sum(trial.last_step or 0 for trial in study.trials),
        "pruned": sum(t.user_attrs.get("ending") == "pruned" for t in study.trials),
        "value": best.value,
        "error": 100.0 * (1.0 - best.user_attrs["metrics"]["validation_accuracy"]),
    }


def print_table(found: list[dict[str, Any]]) -> None:
    """Print means over seeds and 95 % bootstrap intervals of paired differences to no pruning."""
    by_arm = {
        arm: {r["seed"]: r for r in sorted(found, key=lambda r: r["seed"]) if r["arm"] == arm}
        for arm in ARMS
    }
    plain = next(iter(by_arm.values()))
    rows = []
    for arm, runs in by_arm.items():
        values = {key: np.array([r[key] for r in runs.values()]) for key in plain[0]}
        less = {k: values[k] - np.array([plain[s][k] for s in runs]) for k in ("value", "error")}
        epochs = 100.0 * values["epochs"].mean() / (TRIALS * EPOCHS)
        cells = [f"{values['pruned'].mean():.1f}", f"{epochs:.0f}"]
        for key, digits in (("value", 3), ("error", 2)):
            difference = "" if runs is plain else f"{mean_interval(less[key]):+.3f}"
            cells += [f"{values[key].mean():.{digits}f}", difference]
        rows.append([arm, *cells])
    print(format_markdown(pd.DataFrame(rows, columns=COLUMNS), index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder; else the variable WWOPT_DATA")
    parser.add_argument("--out", type=Path, default=Path("pruning.jsonl"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    if given.data is not None:
        os.environ["WWOPT_DATA"] = str(given.data.resolve())
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    results = [json.loads(line) for line in lines]
    done = {(r["arm"], r["seed"]) for r in results}
    missing = [(a, s) for s in range(given.seeds) for a in ARMS if (a, s) not in done]
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        for result in pool.map(run_study, *zip(*missing, strict=True)) if missing else ():
            results.append(result)
            with given.out.open("a") as file:
                file.write(json.dumps(result) + "\n")
    print_table(results)
