"""Which networks do the guards refuse: the collapsed ones, and no good one?

    python studies/calibrate_guards.py ZOO [ZOO ...] --data FOLDER  # 1 s a network, 1 core

ZOO is a folder of `objective_vs_test_error.py make`. Collapsed: trained to an accuracy below half
the median of the zoo, for whatever reason (learning rates too large or too small). Good: the better
half by test error at the end of training. Diverged networks, whose loss became non-finite, have no
spectra; their loss refuses them. The loss is the running one that a study would log, dropout and
all. Zoos do not record the first epoch's, so the first epoch is trained again, from the same seed
on the data in FOLDER. Without --data, or for a zoo of unknown origin, the running loss at ¼ of
training takes its place: it is lower, which is harder on good networks.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.zoos.records import Network, read_zoo
from harness.zoos.tasks import TASKS
from harness.zoos.training import load_task, make_optimizer, train_epoch
from wwopt.metrics.guards import Guards, check_guards, violation

GROUPS = ("collapsed", "good", "other")


def judge_zoo(
    networks: Sequence[Network], *, data: Path | None = None, guards: Guards | None = None
) -> pd.DataFrame:
    """One row a network, checkpoint and whether its start was shown; a column for each guard."""
    trained = [network for network in networks if not network.diverged]
    groups = group(trained)
    rows: list[dict[str, Any]] = []
    for network in trained:
        first = first_loss(network, data)
        for checkpoint in ("0.5", "1.0"):
            for started in (True, False):
                found = check_guards(
                    network.metrics(checkpoint),
                    initial=network.metrics("0") if started else None,
                    train_loss=network.outcome("ema", checkpoint),
                    first_train_loss=first,
                    guards=guards,
                )
                rows.append(
                    {
                        "zoo": network.task,
                        "index": network.index,
                        "group": groups[network.index],
                        "at": checkpoint,
                        "start shown": started,
                        **found,
                        "violation": violation(found),
                        "accuracy": network.outcome("tra", checkpoint),
                    }
                )
    return pd.DataFrame(rows)


def group(networks: Sequence[Network]) -> dict[int, str]:
    """Index → collapsed, good or other."""
    median = np.median([network.outcome("tra") for network in networks])
    middle = np.median([network.outcome("tea") for network in networks])
    return {
        n.index: "collapsed"
        if n.outcome("tra") < median / 2
        else "good"
        if n.outcome("tea") >= middle
        else "other"
        for n in networks
    }


def first_loss(network: Network, data: Path | None) -> float:
    """Mean loss of the first epoch, or what stands for it; see the docstring of this file."""
    task = TASKS.get(network.task)
    if data is None or task is None:
        return network.outcome("ema", "0.25")
    torch.set_num_threads(1)
    torch.manual_seed(task.stream + network.index)  # as harness/zoos/training.py does
    model = task.make_model()
    optimizer = make_optimizer(task, model, network.config)
    tensors = load_task(task.name, data)
    batch = network.config["batch"]
    return float(train_epoch(task, model, optimizer, tensors, batch).mean())


def count(judged: pd.DataFrame) -> pd.DataFrame:
    """Refused networks of each group, "a of b", at half and at the end of training."""
    rows = {}
    for (zoo, at, started), part in judged.groupby(["zoo", "at", "start shown"], sort=False):
        refused = part["violation"] > 0
        rows[(zoo, "half" if at == "0.5" else "end", "yes" if started else "no")] = {
            name: f"{refused[part['group'] == name].sum()} of {(part['group'] == name).sum()}"
            for name in GROUPS
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["zoo", "at", "start shown"])


def count_by_guard(judged: pd.DataFrame) -> pd.DataFrame:
    """How often each guard speaks, over both checkpoints, where the start was shown."""
    shown = judged[judged["start shown"]]
    names = list(check_guards(None))
    return (shown.set_index(["zoo", "group"])[names] > 0).groupby(level=[0, 1]).sum()


def closest(judged: pd.DataFrame) -> pd.DataFrame:
    """Of each guard, the largest value of a good network: how near good ones come to a limit."""
    good = judged[judged["start shown"] & (judged["group"] == "good")]
    return good.groupby("zoo")[list(check_guards(None))].max().round(2)


def exceptions(judged: pd.DataFrame) -> pd.DataFrame:
    """Collapsed networks that pass and good ones that are refused, with their training accuracy."""
    refused = judged["violation"] > 0
    wrong = (refused & (judged["group"] == "good")) | (~refused & (judged["group"] == "collapsed"))
    return judged[wrong & judged["start shown"]].drop(columns="start shown").round(2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoos", nargs="+", type=Path, metavar="ZOO")
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    networks = {folder.name: read_zoo(folder) for folder in given.zoos}
    judged = pd.concat([judge_zoo(zoo, data=given.data) for zoo in networks.values()])
    diverged = ", ".join(f"{name} {sum(n.diverged for n in zoo)}" for name, zoo in networks.items())
    print(f"Refused networks (diverged, and refused by their loss: {diverged}):\n")
    print(count(judged).to_string())
    print("\nHow often each guard refuses, at half or at the end, with the start shown:\n")
    print(count_by_guard(judged).to_string())
    print("\nHow near good networks come to each limit, 0 being the limit:\n")
    print(closest(judged).to_string())
    print("\nCollapsed networks that pass, good ones that are refused:\n")
    print(exceptions(judged).to_string(index=False))
