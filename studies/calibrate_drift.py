"""How often is drift told of harmless weekly retrainings, and which slow breakages does it find?

    python studies/calibrate_drift.py --data FOLDER --cache FOLDER  # 40 minutes, 1 core

Two MLPs, a CNN and a transformer over characters are retrained for 26 weeks on digits, MNIST and
Shakespeare: on from last week's weights, or anew from another seed. Data grow, or a window moves
over them, by amounts that scatter (`harness/retrainings/`). Each week is checked against the week
before and the past, as `wwopt check --history` does it and as `wwopt watch` does. Then, from week
13 on, the same histories with something that gets a little worse each week. FOLDER of --data holds
MNIST's test images and tinyshakespeare.txt; 1 GB is needed for --cache.

Histories of even seeds were for design: on them the rule was changed. Those of odd seeds judge;
they had no say. A cached history is not trained again.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from harness.retrainings.histories import WAYS, History, is_trained, open_history
from harness.retrainings.tables import print_breakages, print_false_alarms
from harness.retrainings.training import BREAKAGES, TASKS


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of images and text")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what was trained")
    parser.add_argument("--networks", nargs="+", default=[*TASKS], help="which of them")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(6)], help="harmless ones")
    parser.add_argument("--broken", nargs="*", type=int, default=[1, 3], help="seeds that break")
    parser.add_argument("--cached", action="store_true", help="train nothing: judge what is there")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    work = [(n, way, seed, "") for seed in given.seeds for n in given.networks for way in WAYS]
    work += [
        (name, way, seed, breakage)
        for seed in given.broken
        for name in given.networks
        for way in WAYS
        for breakage in BREAKAGES
    ]
    histories: list[History] = []
    for name, way, seed, breakage in tqdm(work, desc="histories"):
        if not given.cached or is_trained(name, way, seed, breakage, cache=given.cache):
            found = open_history(name, way, seed, breakage, data=given.data, cache=given.cache)
            histories.append(found)
    harmless = [history for history in histories if not history.breakage]
    print(f"{len(harmless)} harmless histories, {len(histories) - len(harmless)} that break")
    halves = {False: "design", True: "judged"}
    print_false_alarms(
        {label: [h for h in harmless if h.judges is judges] for judges, label in halves.items()}
    )
    print_breakages([h for h in histories if h.seed in given.broken])
    for history in histories:
        history.save()  # what was compared where an alarm was left


if __name__ == "__main__":
    main()
