"""Which networks does a random search train, how good are they, and what do their spectra say?

    python studies/make_zoos.py mnist-cnn --networks 70 --out zoos --data FOLDER

trains the networks of a task (see `zoo_tasks.py`; about 2 to 20 seconds each) and writes a zoo
folder for `objective_vs_test_error.py`. Interrupted, it goes on where it stopped. FOLDER holds
MNIST's 10,000 test images (`t10k-images-idx3-ubyte.gz` and its labels) and `tinyshakespeare.txt`.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm
from zoo_tasks import TASKS
from zoo_training import train_network


def make_zoo(
    name: str, folder: Path, *, networks: int, data: Path, jobs: int = 1, keep: bool = False
) -> Path:
    """Train those of the first networks of a task that the folder lacks; returns its records."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_0.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    known = {json.loads(line)["k"] for line in lines}
    missing = [index for index in range(networks) if index not in known]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train_network, name, k, folder, data, keep) for k in missing]
        for future in tqdm(as_completed(futures), desc=name, total=len(futures)):
            with path.open("a") as file:
                file.write(future.result() + "\n")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", choices=TASKS, metavar="TASK")
    parser.add_argument("--networks", type=int, default=70)
    parser.add_argument("--out", type=Path, default=Path("zoos"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep-weights", action="store_true", help="about 10 MB a network")
    given = parser.parse_args()
    for task in given.tasks:
        make_zoo(
            task,
            given.out / task,
            networks=given.networks,
            data=given.data,
            jobs=given.jobs,
            keep=given.keep_weights,
        )
