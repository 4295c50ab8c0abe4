"""Two processes on what is no database: a journal in a shared folder, and Optuna's proxy.

About `storage` and `leases`: what workers need of it is the same everywhere.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from fixtures.machines.processes import unused_port
from fixtures.paths import WWOPT
from fixtures.studies.quick_studies import write_tiny_study
from optuna.trial import TrialState

from wwopt.study.tries import INTERRUPTED_ATTR
from wwopt.tuning.claims.places import list_finished
from wwopt.tuning.storage import open_storage

PROXY = """
import sys
from wwopt.tuning.storage import open_storage
from optuna.storages import run_grpc_proxy_server
run_grpc_proxy_server(open_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""
KILLS = """
    import os, pathlib, signal
    mark = pathlib.Path(__file__).with_suffix(".mark")
    try:
        mark.touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    except FileExistsError:
        pass
    model = hp"""


@pytest.fixture(params=["journal", "grpc"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "journal":
        yield f"journal://{tmp_path / 'optuna.log'}"
        return
    pytest.importorskip("grpc", reason="needs the package grpcio")
    port = unused_port()
    database = f"sqlite:///{tmp_path / 'behind.db'}"
    proxy = subprocess.Popen([sys.executable, "-W", "ignore", "-c", PROXY, database, str(port)])
    yield f"grpc://127.0.0.1:{port}"
    proxy.kill()
    proxy.wait()


@pytest.mark.integration
def test_two_processes_fill_every_place_once_though_one_is_killed(
    tmp_path: Path, address: str
) -> None:
    path = write_tiny_study(tmp_path, {"\n    model = hp": KILLS})
    command = [*WWOPT, "tune", path, "--trials", "6", "--storage", address, "--no-explain"]
    running = [subprocess.Popen(command, cwd=tmp_path) for _ in range(2)]
    statuses = sorted(process.wait(300) for process in running)
    assert statuses[0] == -9 and statuses[1] in (0, 1)
    study = optuna.load_study(study_name="tiny", storage=open_storage(address))
    assert [t.state for t in list_finished(study)] == [TrialState.COMPLETE] * 6
    (lost,) = [t for t in study.trials if INTERRUPTED_ATTR in t.user_attrs]
    assert lost.user_attrs[INTERRUPTED_ATTR] == "lost" and len(study.trials) == 7
