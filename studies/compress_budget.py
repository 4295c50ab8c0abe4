"""How far can networks be compressed without data, and which measure tells where it hurts?

    python studies/compress_budget.py --data FOLDER --cache FOLDER  # 20 minutes on 1 core

FOLDER of --data holds MNIST's test images and tinyshakespeare.txt (see harness/data.py). 35 small
networks of ten kinds are trained, or read from --cache. First one layer at a time is rounded or
pruned, and what can be known without data is set against the true divergence of the answers. Then
every network is compressed to an eighth and to a twelfth by each rule, with the same rounding, and
its loss is measured on test data. An eighth is the file with 4 bits a weight and a scale a row; a
twelfth is of the tensors' bytes in float32. The rule was made on seeds 0 to 3 of five kinds and
frozen (commit fec6fbc) before any of the other networks was compressed; those judge it.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from harness.compression.judging import Loss, measure_losses
from harness.compression.measures import (
    measure_layers,
    tabulate_errors,
    tabulate_measures,
    tabulate_settings,
    tabulate_verdicts,
)
from harness.compression.networks import KINDS
from harness.compression.rules import RULES
from harness.compression.tables import count_wins, tabulate
from harness.markdown_tables import format_markdown

OURS, PLAIN = ("wwopt", "compensated"), ("uniform", "to the nearest")
LAYER_TABLES = (tabulate_settings, tabulate_errors, tabulate_verdicts, tabulate_measures)
BUDGETS = ("an eighth", "a twelfth")


def list_networks() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Networks that the rule was made on, and others, which judge it; (kind, seed)."""
    known = {kind: k.designed_on for kind, k in KINDS.items() if k.designed_on}
    made = [(kind, seed) for kind in known for seed in range(2)]
    judging = [(kind, seed) for kind, first in known.items() for seed in (first, first + 1)]
    judging += [(kind, seed) for kind in KINDS if kind not in known for seed in range(3)]
    return made, judging


def print_budgets(losses: list[Loss], title: str) -> None:
    """Print the tables of both budgets, and how often the rule beats each other one."""
    for budget in BUDGETS:
        print(f"\n**{budget.capitalize()}, {title}**\n")
        print(format_markdown(tabulate(losses, budget, PLAIN), index=False))
        others = [(rule, OURS[1]) for rule in RULES if rule != OURS[0]]
        wins = [f"{rule} {count_wins(losses, budget, OURS, (rule, r))}" for rule, r in others]
        print(f"\nDiverges less, both compensated, than: {', '.join(wins)}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder of MNIST's test images and the text")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what was measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    made, judging = list_networks()
    rows = [
        row
        for kind, seed in tqdm(judging, desc="single layers")
        for row in measure_layers(kind, seed, options.cache, options.data)
    ]
    for tabulate_rows in LAYER_TABLES:
        print("\n" + format_markdown(tabulate_rows(rows), index=False))
    for networks, title in ((judging, "untouched networks"), (made, "networks it was made on")):
        losses = [
            loss
            for kind, seed in tqdm(networks, desc=title)
            for loss in measure_losses(kind, seed, options.cache, options.data)
        ]
        print_budgets(losses, title)


if __name__ == "__main__":
    main()
