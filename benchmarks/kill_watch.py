"""Is every checkpoint scored exactly once, when the watcher is killed again and again?

    python benchmarks/kill_watch.py --checkpoints 200 --kills 40      # 5 minutes

Small checkpoints arrive in a folder, written slowly enough to be met half-written; every tenth is
broken and stays so. `wwopt watch` runs beside them, gets SIGKILL after a random time, and is
started again, until it has been killed that often; then it may finish. Counted is what must not
be: a checkpoint without a finished run in MLflow or with two, a broken one that was scored or not
told, one that was scored half-written, a step of the charts that is missing, double or another
checkpoint's, a run left open. Exit status 1 if anything of this is the case.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from mlflow import MlflowClient
from mlflow.entities import ViewType
from safetensors.torch import save
from tqdm import tqdm

import wwopt.commands.watch
import wwopt.gate.watching  # noqa: F401 - imported before the forks, which then start at once
from wwopt.cli import main
from wwopt.gate.arrivals import look_at
from wwopt.tracking.checks import DOCUMENT
from wwopt.tracking.watches import open_watch, read_document, read_watched


def name_of(number: int) -> str:
    return f"step-{number:04}.safetensors"


def is_broken(number: int) -> bool:
    return number % 10 == 7


def write_all(folder: Path, count: int, pause: float) -> int:
    """Write checkpoints in pieces, in a process of its own; every tenth is cut short."""
    pid = os.fork()
    if pid:
        return pid
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(64, 64, generator=generator)
    for number in range(count):
        weights = weights + 0.02 * torch.randn(64, 64, generator=generator)
        content = save({"fc.weight": weights, "out.weight": weights[:60].clone()})
        if is_broken(number):
            content = content[: len(content) // 2]
        piece = len(content) // 3 + 1
        with open(folder / name_of(number), "wb", buffering=0) as file:
            for begin in range(0, len(content), piece):
                file.write(content[begin : begin + piece])
                time.sleep(pause / 3)
    os._exit(0)


def start(folder: Path, uri: str, log: Path, *options: str) -> int:
    """Start `wwopt watch` in a process of its own; libraries are imported already."""
    pid = os.fork()
    if pid:
        return pid
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    status = 1
    try:
        command = ["watch", str(folder), "--log-to", uri, "--shuffles", "0", *options]
        main([*command, "--max-noise", "inf", "--quiet", "0.3"], standalone_mode=False)
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        os._exit(status)


def count_lines(log: Path, word: str) -> int:
    """How many lines of what the watchers said have this word."""
    return sum(word in line for line in log.read_text().splitlines()) if log.exists() else 0


def count_faults(folder: Path, uri: str, count: int) -> Counter[str]:
    faults: Counter[str] = Counter()
    client = MlflowClient(uri)
    watch = open_watch(uri, str(folder.resolve()))
    open_runs = client.search_runs([watch.experiment_id], "attributes.status = 'RUNNING'")
    faults["runs left open"] = len(open_runs)
    watched = read_watched(watch)
    by_name = Counter(checkpoint.name for checkpoint in watched)
    for number in range(count):
        name = name_of(number)
        faults["not dealt with"] += by_name[name] == 0
        faults["dealt with twice"] += by_name[name] > 1
    for checkpoint in watched:
        number = int(checkpoint.name[5:9])
        faults["broken, and scored"] += is_broken(number) and checkpoint.scored
        faults["sound, and called broken"] += not is_broken(number) and not checkpoint.scored
        found = look_at(folder / checkpoint.name)
        faults["scored half-written"] += found is None or found.identity != checkpoint.identity
    scored = [checkpoint for checkpoint in watched if checkpoint.scored]
    faults["steps out of order"] += [x.step for x in scored] != list(range(len(scored)))
    history = client.get_metric_history(watch.run_id, "alpha/hill")
    points = Counter(point.step for point in history)
    values = {point.step: point.value for point in history}
    for checkpoint in scored:
        faults["charted not at all"] += points[checkpoint.step] == 0
        faults["charted twice"] += points[checkpoint.step] > 1
        charted = read_document(watch, checkpoint)["charted"]["alpha/hill"]
        faults["charted as another"] += values.get(checkpoint.step) != charted
    listed = {file.path for file in client.list_artifacts(scored[-1].run_id)} if scored else set()
    faults["without artifacts"] += not {DOCUMENT, "layers.json"} <= listed
    return faults


def count_deleted(folder: Path, uri: str) -> int:
    """How many runs were left open by a kill, and deleted by the next watcher."""
    watch = open_watch(uri, str(folder.resolve()))
    client = MlflowClient(uri)
    return len(client.search_runs([watch.experiment_id], run_view_type=ViewType.DELETED_ONLY))


def run(count: int, kills: int, seed: int, longest: float) -> int:
    torch.set_num_threads(1)
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkpoints"
        folder.mkdir()
        uri, log = f"sqlite:///{temporary}/mlflow.db", Path(temporary) / "log"
        writer = write_all(folder, count, kills * longest / 4 / count)
        killed = 0
        begun = time.monotonic()
        try:
            for _ in tqdm(range(kills), desc="kills"):
                options = ("--every", "0.1", "--patience", "2")
                lives = count_lines(log, "Watching")
                pid = start(folder, uri, log, *options)
                while count_lines(log, "Watching") == lives:
                    time.sleep(0.05)  # it opens its store first, which is most of a short life
                time.sleep(generator.uniform(0.0, longest))
                os.kill(pid, signal.SIGKILL)
                killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
            os.waitpid(writer, 0)
            writer = 0
            early = count_lines(log, "score")
            time.sleep(2.5)  # until what is broken has not changed for as long as the watch waits
            done = start(folder, uri, log, "--once", "--patience", "2")
            status = os.waitstatus_to_exitcode(os.waitpid(done, 0)[1])
        finally:
            if writer:
                os.kill(writer, signal.SIGKILL)
                os.waitpid(writer, 0)
        faults = count_faults(folder, uri, count)
        met = count_deleted(folder, uri)
        seconds = time.monotonic() - begun
        print(
            f"{count} checkpoints, {killed} of {kills} kills, {seconds:.0f} s, last status {status}"
        )
        print(f"  {early} were scored by watchers that were killed later")
        print(f"  {met} kills met a checkpoint half-logged, whose run was deleted")
        for name, many in faults.items():
            print(f"  {name}: {many}")
        if faults.total():
            print(log.read_text()[-3000:])
        return int(bool(faults.total()) or killed < kills)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=200)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds until a kill")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(run(given.checkpoints, given.kills, given.seed, given.longest))
