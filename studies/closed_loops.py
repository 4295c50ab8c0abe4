"""What is the network worth that each score chooses, at equal cost? And does tuning per layer pay?

    python studies/closed_loops.py --data FOLDER     # about 1 hour on 2 cores
    python studies/closed_loops.py --data FOLDER --tasks mlp --seeds 10         # 24 minutes of it

For each seed a random search trains 20 networks, and every score chooses one of them. Then each of
four scores guides a search of its own (the sampler that wwopt chooses), which ends when it has
spent the CPU time of that random search, with what it took to compute the score and to ask the
sampler. Two of them also guide searches over spaces where all layers share their values, and where
each has its own. All searches of a seed share their first 10, random, networks. FOLDER is that of
`mnist_mlp.py` and `char_gpt.py`. Interrupted, it goes on where it stopped; what it prints at its
end it prints again in seconds. With --random-only no search is guided, and the table has the
columns of the random search alone.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from harness.loops.searches import TRIALS, Store, run_seed
from harness.loops.tables import print_tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder; else the variable WWOPT_DATA")
    parser.add_argument("--out", type=Path, default=Path("closed-loops"))
    parser.add_argument("--tasks", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 5], help="one a task")
    parser.add_argument("--trials", type=int, help="of the random search")
    parser.add_argument("--random-only", action="store_true", help="choose only, guide no search")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    if given.data is not None:
        os.environ["WWOPT_DATA"] = str(given.data.resolve())
    seeds = dict(zip(given.tasks, given.seeds, strict=True))
    context = get_context("spawn")
    with ProcessPoolExecutor(given.jobs, mp_context=context) as pool:
        futures = [
            pool.submit(
                run_seed, name, seed, given.trials or TRIALS[name], given.out, not given.random_only
            )
            for name in given.tasks
            for seed in range(seeds[name])
        ]
        for future in tqdm(as_completed(futures), desc="seeds", total=len(futures)):
            future.result()
    for name in given.tasks:
        stores = [Store(given.out / f"{name}-{seed}.jsonl") for seed in range(seeds[name])]
        print_tables(name, stores, given.out)


if __name__ == "__main__":
    main()
