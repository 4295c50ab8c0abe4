"""What does a budget cost, and what does sharing save? `python benchmarks/time_budget.py`.

`wwopt compress --budget` encodes every layer by some 40 plans. Singular values, the order of the
columns and the compensation's factors are computed once a layer and shared; beside it, in the same
run, each plan by itself. Square layers, as drawn; CPU seconds of one thread, best of two, taking
turns. Two minutes. Results: docs/compression.md.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from wwopt.compression import Network, encode_layer, list_layers
from wwopt.compression.budget import make_menu, measure_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure_network(list_layers(nn.Linear(64, 64)))  # what is loaded at the first call
    print("| side | plans | shared, CPU s | each plan by itself | times |\n|---|---|---|---|---|")
    for side in options.sides:
        torch.manual_seed(0)
        network = list_layers(nn.Linear(side, side))
        shared, alone = [], []
        for _ in range(options.rounds):
            shared.append(time_cpu(measure_network, network))
            alone.append(time_cpu(encode_apart, network))
        plans = len(make_menu(network.layers[0].shape))
        times = min(alone) / min(shared)
        print(
            f"| {side} | {plans} | {min(shared):.2f} | {min(alone):.2f} | {times:.1f} |", flush=True
        )


def encode_apart(network: Network) -> None:
    """Each plan of the menu by itself, unmeasured."""
    for layer in network.layers:
        for plan in make_menu(layer.shape):
            encode_layer(layer.tensor.name, layer.read_tensor(), plan)


def time_cpu(run: Callable[[Network], object], network: Network) -> float:
    start = time.process_time()
    run(network)
    return time.process_time() - start


if __name__ == "__main__":
    main()
