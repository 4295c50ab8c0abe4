"""Start workers on this machine: processes that run `wwopt worker`, and end with this one.

They are commands of their own and no children of multiprocessing, so that a training may start
children itself, as a DataLoader with workers does. Between them and us there is only the storage.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from wwopt.study.errors import StudyError
from wwopt.tuning.workers.worker import PARENT

LOOK = 0.2  # seconds between two looks at the processes
END = 60.0  # seconds in which a worker that is asked to stop fails its trial and closes its run
GAVE_UP = 3  # exit status of a worker that found nothing but failures, as we shall
FINE = (0, GAVE_UP, 130)  # exit statuses of a worker that could work
COMMAND = (sys.executable, "-c", "from wwopt.cli import main; main()", "worker")


def run_processes(
    arguments: Sequence[str],
    variables: Mapping[str, str],
    *,
    jobs: int,
    on_look: Callable[[], int],
) -> None:
    """Run workers until all have ended; one that dies is replaced.

    Args:
        arguments: of `wwopt worker`.
        variables: of its environment, in which addresses stand: arguments are for all to see.
        jobs: how many.
        on_look: called now and then; returns how many trials are finished.

    Raises:
        StudyError: if workers keep dying while no trial ends.
    """
    devices = list_devices()
    running = {i: _start(arguments, variables, i, jobs, devices) for i in range(jobs)}
    begun = finished = on_look()
    deaths = 0
    try:
        while running:
            for index, process in list(running.items()):
                status = process.poll()
                if status is None:
                    continue
                del running[index]
                if status in FINE:
                    continue
                if status > 0 and finished == begun:
                    raise StudyError("a worker could not work, and says why above")
                # Killed, or a server was away when it started: another one may do better.
                deaths += 1
                if deaths > 3 * jobs:  # a trial that kills its process is given up after three
                    how = f"signal {-status}" if status < 0 else f"status {status}"
                    raise StudyError(
                        f"{deaths} workers died while no trial ended, the last by {how}"
                    )
                running[index] = _start(arguments, variables, index, jobs, devices)
            now = on_look()
            if now > finished:
                finished, deaths = now, 0
            time.sleep(LOOK)
    finally:
        _end(list(running.values()))
        on_look()


def list_devices() -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def _start(
    arguments: Sequence[str],
    variables: Mapping[str, str],
    index: int,
    jobs: int,
    devices: Sequence[str],
) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **variables, PARENT: str(os.getpid())}
    # As this process finds modules, a study's among them.
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    cores = max(1, (os.cpu_count() or 1) // jobs)
    environment.setdefault("OMP_NUM_THREADS", str(cores))
    return subprocess.Popen([*COMMAND, *arguments], env=environment)


def _end(processes: "list[subprocess.Popen[bytes]]") -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
