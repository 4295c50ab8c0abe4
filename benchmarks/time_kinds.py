"""What does it cost `wwopt check --quick` to tell the kind of a change?

    python benchmarks/time_kinds.py        # half a minute, 1.5 GB of memory

Layers of 4,096 × 4,096 with some directions above noise, and what became of them: trained on,
which moved every weight and a few directions more; a merged LoRA; a cast to bfloat16 of each. CPU
seconds of one thread for the whole check in memory, two layers, and of them those in which the kind
is told; median of some rounds. Results: docs/fine-tunes.md.
"""

import argparse
import os
import time
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries below are loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402

from wwopt.gate import checks  # noqa: E402

Weights = dict[str, torch.Tensor]


def make_pairs(side: int) -> dict[str, tuple[Weights, Weights]]:
    """Two layers before and after, by what was done."""
    torch.manual_seed(0)

    def draw(rank: int, size: float) -> torch.Tensor:
        return size * torch.randn(side, rank) @ torch.randn(rank, side) / rank**0.5

    before = {f"l{i}": 0.02 * torch.randn(side, side) + draw(64, 0.01) for i in range(2)}
    tuned = {n: w + 0.002 * torch.randn(side, side) + draw(8, 1e-3) for n, w in before.items()}
    halves = {name: w.bfloat16() for name, w in before.items()}
    return {
        "all weights trained": (before, tuned),
        "… both sides bfloat16": (halves, {name: w.bfloat16() for name, w in tuned.items()}),
        "a LoRA merged": (before, {name: w + draw(8, 1e-3) for name, w in before.items()}),
        "cast to bfloat16": (before, {name: w.float() for name, w in halves.items()}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tell, told = checks.measure_movement, [0.0]

    def timed(*weights: Any, **given: Any) -> Any:
        start = time.process_time()
        found = tell(*weights, **given)
        told[0] += time.process_time() - start
        return found

    checks.measure_movement = timed
    print("| two layers | check --quick, CPU s | of them for the kind | ratio | kind |")
    print("|---|---|---|---|---|")
    for name, (before, after) in make_pairs(options.side).items():
        seconds = []
        for _ in range(options.rounds):
            told[0], start = 0.0, time.process_time()
            result = checks.check(before, after, quick=True)
            seconds.append((time.process_time() - start, told[0]))
        whole, part = np.median(seconds, axis=0)
        kind = result.change.kind.value if result.change else "–"
        print(f"| {name} | {whole:.1f} | {part:.1f} | {whole / (whole - part):.2f} | {kind} |")


if __name__ == "__main__":
    main()
