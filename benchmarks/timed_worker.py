"""`wwopt worker ...`, which leaves how long it waited in the storage and in tracking.

    WWOPT_WAITS=FOLDER python benchmarks/timed_worker.py STUDY --trials N

`many_workers.py` starts it. Seconds are those of the clock between asking and being answered, of
every call of Optuna's storage and every request of MLflow's client: what a trial waits, beside what
it computes.
"""

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.store.tracking import rest_store
from mlflow.utils import rest_utils

from wwopt.cli import main
from wwopt.tuning import patience

WAITS = {"storage": 0.0, "tracking": 0.0}


def time_calls(call: Callable[..., Any], what: str) -> Callable[..., Any]:
    """The same function, its seconds added up."""

    def timed(*arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            WAITS[what] += time.perf_counter() - begun

    return timed


def leave_waits(folder: Path) -> None:
    """One file a process; CPU seconds since it started, imports included."""
    known = {**WAITS, "cpu": time.process_time()}
    (folder / f"{os.getpid()}.json").write_text(json.dumps(known))


if __name__ == "__main__":
    patience._ask = time_calls(patience._ask, "storage")
    for module in (rest_utils, rest_store):
        module.http_request = time_calls(module.http_request, "tracking")
    atexit.register(leave_waits, Path(os.environ["WWOPT_WAITS"]))
    main(["worker", *sys.argv[1:]])
