"""Peak memory of `wwopt rank` on ten large checkpoints: `python benchmarks/memory_rank.py DIR`.

Writes ten bfloat16 checkpoints of 100 million parameters each, in layers of 768 x 768, into DIR (2
GB, removed at the end), ranks them in a process of its own and compares its peak with 1 GB. About
five minutes on one core; `--shuffles 3`, the command's default, takes three times as long and no
more memory.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

RANK = """
import sys, time, torch, wwopt
torch.set_num_threads(1)
ranking = wwopt.rank(sys.argv[2:], shuffles=int(sys.argv[1]), progress=True)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(len(ranking), sum(c.parameters for c in ranking), peak * 1024, time.process_time())
"""
LIMIT = 1e9  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where 2 GB are free")
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--parameters", type=float, default=1e8, help="of each")
    parser.add_argument("--side", type=int, default=768, help="of each layer")
    parser.add_argument("--shuffles", type=int, default=1)
    given = parser.parse_args()
    layers = max(1, round(given.parameters / given.side**2))
    size = given.checkpoints * layers * given.side**2 * 2
    free = shutil.disk_usage(given.folder).free
    if free < 1.1 * size:
        sys.exit(f"{given.folder} has {free / 1e9:.1f} GB free, {1.1 * size / 1e9:.1f} are needed")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        paths = []
        for seed in range(given.checkpoints):
            generator = torch.Generator().manual_seed(seed)
            state = {f"layers.{i}.weight": draw_layer(given.side, generator) for i in range(layers)}
            paths.append(str(Path(folder) / f"model-{seed}.safetensors"))
            save_file(state, paths[-1])
            del state
        command = [sys.executable, "-c", RANK, str(given.shuffles), *paths]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    ranked, parameters, peak, seconds = (float(word) for word in output.split())
    print(f"{ranked:.0f} checkpoints, {parameters / ranked / 1e6:.0f} million parameters each")
    print(f"{layers} layers of {given.side} x {given.side}, {given.shuffles} shuffles")
    print(f"CPU time {seconds:.0f} s, {seconds / ranked:.0f} s a checkpoint")
    print(f"peak {peak / 1e6:.0f} MB: {'inside' if peak < LIMIT else 'OVER'} {LIMIT / 1e9:.0f} GB")


def draw_layer(side: int, generator: torch.Generator) -> torch.Tensor:
    """Columns of unequal scale: a heavy-tailed spectrum."""
    weights = 0.02 * torch.randn(side, side, generator=generator)
    return (weights * torch.rand(side, generator=generator) ** -0.25).bfloat16()


if __name__ == "__main__":
    main()
