"""Time of `analyze` on a GPU against the CPU, layer by layer: `python benchmarks/time_gpu.py`.

Square Gaussian layers of 1,024 to 8,192, in float64 and float32, three shuffles; seconds of wall
time, the least of three runs after one to warm up, and the largest difference of what both say.
`--device` names another device than `cuda`, `--sizes` other layers. About 15 minutes, nearly all of
it on the CPU. Results belong into docs/speed.md.
"""

import argparse
import sys
import time

import torch

import wwopt
from wwopt.metrics.model_metrics import LayerMetrics
from wwopt.wording import first_line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="*", type=int, default=[1024, 2048, 4096, 8192])
    options = parser.parse_args()
    problem = find_problem(options.device)
    if problem:
        sys.exit(f"no benchmark: {problem}")
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    print(f"{name}, {torch.get_num_threads()} threads on the CPU, torch {torch.__version__}\n")
    print("| layer | dtype | CPU s | GPU s | ratio | alpha differs by | trap z differs by |")
    print("|---|---|---|---|---|---|---|")
    for size in options.sizes:
        weights = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
        for dtype in (torch.float64, torch.float32):
            compare(weights, dtype, options.device)


def find_problem(device: str) -> str:
    """Why nothing can be measured there, or nothing."""
    try:
        torch.zeros(1, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        first = first_line(error)
        return f"torch {torch.__version__} cannot compute on {device!r} here ({first})"
    return ""


def compare(weights: torch.Tensor, dtype: torch.dtype, device: str) -> None:
    cpu, there = measure(weights, dtype, "cpu"), measure(weights.to(device), dtype, device)
    size, kind = weights.shape[0], str(dtype).removeprefix("torch.")
    print(
        f"| {size} x {size} | {kind} | {cpu[0]:.2f} | {there[0]:.2f} | {cpu[0] / there[0]:.1f} "
        f"| {abs(cpu[1].alpha - there[1].alpha):.0e} "
        f"| {abs(cpu[1].trap_z - there[1].trap_z):.0e} |",
        flush=True,
    )


def measure(weights: torch.Tensor, dtype: torch.dtype, device: str) -> tuple[float, LayerMetrics]:
    """Seconds, and what was found; results come back to the CPU, so nothing is still running."""
    state = {"layer": weights}
    layer = wwopt.analyze(state, device=device, dtype=dtype)["layer"]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        wwopt.analyze(state, device=device, dtype=dtype)
        seconds.append(time.perf_counter() - start)
    return min(seconds), layer


if __name__ == "__main__":
    main()
