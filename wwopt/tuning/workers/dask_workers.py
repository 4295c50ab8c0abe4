"""One worker of a study on each worker of a Dask cluster.

A task there starts `wwopt worker` as a command and waits for it: Dask runs tasks in threads of
processes that may have no children, where neither a signal can be heard nor a DataLoader have
workers. What it passes on is a reference to the study and the addresses of its stores; trials are
claimed from the storage as everywhere. A Dask worker that dies is missed by the others as any
worker is, and its task runs again elsewhere.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wwopt.study.errors import StudyError
from wwopt.tuning.workers.worker import PARENT
from wwopt.tuning.workers.worker_processes import COMMAND, END, FINE

LOOK = 1.0  # seconds between two looks at the cluster, and of a task at its command


def run_on_dask(
    address: str,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    *,
    owner: str,
    on_look: Callable[[], int],
) -> None:
    """Run a worker on each worker that the cluster has now, until all have ended.

    Args:
        address: of the scheduler, as `tcp://host:8786`.
        arguments: of `wwopt worker`.
        variables: of its environment.
        owner: names the event that stops them.
        on_look: called now and then.

    Raises:
        StudyError: if the cluster cannot be reached, is empty, or a worker could not work there.
    """
    try:
        distributed = _import()
        client = distributed.Client(address, timeout=10)
    except ImportError as error:
        raise StudyError("--dask needs Dask: pip install 'wwopt[dask]'") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"no Dask cluster at {address}: {error}") from error
    with client:
        members = list(client.scheduler_info(n_workers=-1)["workers"])
        if not members:
            raise StudyError(f"the Dask cluster at {address} has no workers")
        stop = distributed.Event(f"wwopt-stop-{owner}", client=client)
        futures = [
            client.submit(
                run_worker_there,
                list(arguments),
                dict(variables),
                owner,
                pure=False,
                workers=[member],
                # Dask restarts a worker that died under another address.
                allow_other_workers=True,
            )
            for member in members
        ]
        try:
            while not all(future.done() for future in futures):
                on_look()
                time.sleep(LOOK)
            for status, said in client.gather(futures):
                if status not in FINE:
                    raise StudyError(f"a worker on the Dask cluster could not work: {said}")
        finally:
            stop.set()
            _wait(futures)
            on_look()


def run_worker_there(
    arguments: list[str], variables: dict[str, str], owner: str
) -> tuple[int, str]:
    """Start a worker as a command and wait for it; its exit status, and its last words."""
    stop = _import().Event(f"wwopt-stop-{owner}")
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env={**os.environ, **variables, PARENT: str(os.getpid())},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None:
            if stop.is_set():
                process.terminate()
                process.wait(END)
            time.sleep(LOOK)
    finally:
        if process.poll() is None:
            process.kill()
    _, said = process.communicate()
    return process.returncode, (said or "").strip().rpartition("\n")[2]


def _import() -> Any:
    """The package, which is not typed."""
    import distributed

    return distributed


def _wait(futures: Sequence[Any]) -> None:
    """Let the tasks end their commands, as long as that may take."""
    end = time.monotonic() + END
    while time.monotonic() < end and not all(f.done() for f in futures):
        time.sleep(LOOK)
