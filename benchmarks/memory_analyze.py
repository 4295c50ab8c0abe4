"""Peak memory of `analyze` on a large file: `python benchmarks/memory_analyze.py --folder DIR`.

Writes a bfloat16 checkpoint of 2 billion parameters into DIR (4 GB, removed at the end), analyses
it in a process of its own and compares that process's peak with 6 times the largest tensor counted
in float32, plus 600 MB. About five minutes on one core.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ANALYZE = """
import sys, time, torch, wwopt
torch.set_num_threads(1)
metrics = wwopt.analyze(sys.argv[1], shuffles=int(sys.argv[2]), progress=True)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
alphas = [layer.alpha for layer in metrics.layers]
print(len(alphas), sum(alphas) / len(alphas), peak * 1024, time.process_time())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where 4 GB are free")
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--columns", type=int, default=1_024)
    parser.add_argument("--parameters", type=float, default=2e9)
    parser.add_argument("--shuffles", type=int, default=3)
    options = parser.parse_args()
    shape = (options.rows, options.columns)
    layers = max(1, round(options.parameters / (shape[0] * shape[1])))
    size = layers * shape[0] * shape[1] * 2
    free = shutil.disk_usage(options.folder).free
    if free < 1.1 * size:
        sys.exit(
            f"{options.folder} has {free / 1e9:.1f} GB free, {1.1 * size / 1e9:.1f} are needed"
        )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "model.safetensors"
        write_checkpoint(path, shape, layers)
        command = [sys.executable, "-c", ANALYZE, str(path), str(options.shuffles)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found, alpha, peak, seconds = (float(word) for word in output.split())
    largest = shape[0] * shape[1] * 4
    limit = 6 * largest + 600e6
    print(f"{layers * shape[0] * shape[1] / 1e9:.2f} billion parameters, {size / 1e9:.1f} GB file")
    print(f"{found:.0f} layers of {shape[0]} x {shape[1]}, mean alpha {alpha:.2f}")
    print(f"CPU time {seconds:.0f} s, {seconds / found:.2f} s a layer")
    print(f"largest tensor in float32 {largest / 1e6:.0f} MB, limit {limit / 1e6:.0f} MB")
    print(f"peak {peak / 1e6:.0f} MB: {'inside' if peak < limit else 'OVER'} the limit")


def write_checkpoint(path: Path, shape: tuple[int, int], layers: int) -> None:
    """Write tensor after tensor, so that writing needs no more memory than reading."""
    size = shape[0] * shape[1] * 2
    header = {
        f"layers.{i}.weight": {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [i * size, (i + 1) * size],
        }
        for i in range(layers)
    }
    text = json.dumps(header).encode()
    generator = torch.Generator().manual_seed(0)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(layers):
            # Columns of unequal scale: a heavy-tailed spectrum.
            weights = 0.02 * torch.randn(shape, generator=generator)
            weights *= torch.rand(shape[1], generator=generator) ** -0.25
            file.write(weights.bfloat16().view(torch.uint8).numpy().tobytes())


if __name__ == "__main__":
    main()
