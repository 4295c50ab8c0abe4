"""Ctrl-C in the middle of real work: status 130, one line, and nothing left behind.

Every test waits for a real event of the running command (its progress bar, a picture, a running
trial) and then signals its whole process group, as a terminal does. The commands are `analyze`,
`check` and `tune`; those that only read are over too soon.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from fixtures.paths import WWOPT
from fixtures.studies.quick_studies import write_tiny_study
from matplotlib import image
from safetensors.torch import save_file

LONG = 120.0  # seconds; what should come comes much earlier

FOR_EVER = """
    for epoch in range(conditions.epochs):
        if epoch == 1 and os.environ.get("TRAIN_FOR_EVER"):
            Path(f"trains-{os.getpid()}").touch()
            while True:  # what a long epoch does
                torch.randn(200, 200) @ torch.randn(200, 200)
"""


class Command:
    """A running `wwopt …` in a process group of its own, with what it wrote so far."""

    def __init__(self, *arguments: str, cwd: Path, **variables: str) -> None:
        temporary = cwd / "tmp"
        temporary.mkdir(exist_ok=True)
        self.temporary = temporary
        self.process = subprocess.Popen(
            [*WWOPT, *arguments],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", **variables},
        )
        self.written: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self.threads = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in self.written
        ]
        for thread in self.threads:
            thread.start()

    def _read(self, name: str) -> None:
        with getattr(self.process, name) as stream:
            while piece := stream.read1():
                self.written[name] += piece

    @property
    def stderr(self) -> str:
        return self.written["stderr"].decode()

    def interrupt_when(self, event: Callable[[], bool]) -> None:
        """Wait for the event, signal the group, wait for the end."""
        wait_until(lambda: event() or self.process.poll() is not None)
        assert self.process.poll() is None, f"ended before the event: {self.stderr}"
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(LONG)
        for thread in self.threads:
            thread.join(LONG)

    def assert_interrupted(self, line: str = "wwopt: interrupted") -> None:
        assert self.process.returncode == 130, self.stderr
        assert self.written["stdout"] == b""
        # The bar overwrites itself by carriage returns.
        lines = [said for said in re.split(r"[\r\n]+", self.stderr) if said.strip()]
        assert [said for said in lines if not re.match(r"^[\w ]+: +\d+%\|", said)] == [line]
        wait_until(lambda: not self.is_group_alive())
        assert list(self.temporary.iterdir()) == []

    def is_group_alive(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        if self.is_group_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LONG)


def wait_until(event: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not event():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Commands hear Ctrl-C: a shell's background job ignores it, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def run(*arguments: str, **variables: str) -> Command:
        commands.append(Command(*arguments, cwd=tmp_path, **variables))
        return commands[-1]

    yield run
    for command in commands:
        command.kill()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint that takes many seconds: its bar appears after two."""
    path = tmp_path_factory.mktemp("large") / "large.safetensors"
    weights = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    save_file({f"layers.{i}.weight": weights.clone() for i in range(60)}, path)
    return str(path)


def test_within_a_layer_it_ends_with_one_line_and_nothing_left(tmp_path: Path) -> None:
    # Interrupted inside the work, by the work itself: no moment is left to luck.
    generator = torch.Generator().manual_seed(0)
    state = {f"{i}.weight": torch.randn(80, 60, generator=generator) for i in range(6)}
    save_file(state, tmp_path / "model.safetensors")
    code = (
        "import os, signal, sys, tempfile, wwopt.metrics.analysis as metrics\n"
        "from wwopt.cli import main\n"
        "real, calls = metrics.compute_spectrum, []\n"
        "def compute(*arguments, **options):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(*arguments, **options)\n"
        "metrics.compute_spectrum = compute\n"
        "main(['analyze', sys.argv[1]])\n"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.safetensors")],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert done.returncode == 130
    assert done.stderr.strip().splitlines()[-1] == "wwopt: interrupted"
    assert "Traceback" not in done.stderr
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("error", ["ValueError('no shape')", "RuntimeError('no shape')"])
def test_an_interrupt_that_compiled_code_turned_into_an_error_stays_one(
    tmp_path: Path, error: str
) -> None:
    save_file({"a.weight": torch.eye(60)}, tmp_path / "model.safetensors")
    code = (
        "import os, signal, sys, wwopt.metrics.analysis as metrics\n"
        "from wwopt.cli import main\n"
        "def compute(*arguments, **options):\n"
        "    try: os.kill(os.getpid(), signal.SIGINT); signal.pause()\n"
        f"    except KeyboardInterrupt: raise {error} from None\n"
        "metrics.compute_spectrum = compute\n"
        "main(['analyze', sys.argv[1]])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "wwopt: interrupted\n")


@pytest.mark.integration
@pytest.mark.parametrize("workers", ["1", "3"])
def test_analyze_leaves_nothing(
    start: Callable[..., Command], large: str, tmp_path: Path, workers: str
) -> None:
    command = start("analyze", large, "--csv", "--plot", "pictures", "--workers", workers)
    command.interrupt_when(lambda: "layers:" in command.stderr)
    command.assert_interrupted()
    assert list((tmp_path / "pictures").iterdir()) == []


@pytest.mark.integration
def test_check_leaves_no_history(start: Callable[..., Command], large: str, tmp_path: Path) -> None:
    command = start("check", large, large, "--history", "history.jsonl")
    command.interrupt_when(lambda: "layers:" in command.stderr)
    command.assert_interrupted()
    assert not (tmp_path / "history.jsonl").exists()


@pytest.mark.integration
def test_pictures_are_whole_or_not_there(start: Callable[..., Command], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {f"layers.{i}.weight": torch.randn(80, 60, generator=generator) for i in range(60)}
    save_file(state, tmp_path / "small.safetensors")
    command = start("analyze", "small.safetensors", "--json", "--plot", "pictures")
    pictures = tmp_path / "pictures"
    command.interrupt_when(lambda: len(list(pictures.glob("0*.png"))) >= 2)
    assert command.process.returncode == 130
    # What was printed before the pictures were begun stays whole.
    assert command.written["stdout"].rstrip().endswith(b"}")
    assert "Traceback" not in command.stderr
    assert command.stderr.strip().splitlines()[-1] == "wwopt: interrupted"
    found = sorted(pictures.iterdir())
    assert 3 <= len(found) < 61
    for picture in found:
        assert image.imread(picture).size > 0


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_is_left_without_work(
    start: Callable[..., Command], large: str, dask: Any
) -> None:
    command = start("analyze", large, "--dask", dask.scheduler.address)

    def working() -> bool:
        return any(dask.processing().values())

    command.interrupt_when(working)
    command.assert_interrupted()
    wait_until(lambda: dask.run_on_scheduler(count_tasks) == 0)
    # And it goes on working for others.
    assert dask.submit(sum, [1, 2]).result(LONG) == 3
    assert len(dask.scheduler_info()["workers"]) == 2


def count_tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


@pytest.mark.integration
def test_two_jobs_stop_and_resume(start: Callable[..., Command], tmp_path: Path) -> None:
    changes = {
        "import torch\n": "import os\nfrom pathlib import Path\nimport torch\n",
        "\n    for _ in range(conditions.epochs):\n": FOR_EVER,
        "epochs=4": "epochs=3",  # with a fourth the guards refuse trial 2 for its loss: status 1
    }
    write_tiny_study(tmp_path, changes)
    arguments = ("tune", "tiny.py", "--trials", "3", "--jobs", "2", "--no-explain")
    command = start(*arguments, TRAIN_FOR_EVER="1")
    command.interrupt_when(lambda: len(list(tmp_path.glob("trains-*"))) == 2)
    assert command.process.returncode == 130
    assert command.stderr.strip().splitlines()[-1] == (
        "wwopt: interrupted; the same command resumes"
    )
    assert "Traceback" not in command.stderr
    wait_until(lambda: not command.is_group_alive())
    # No trial is left running for ever, and the same command goes on.
    storage = f"sqlite:///{tmp_path / 'wwopt-runs' / 'optuna.db'}"
    (study,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert [t.user_attrs.get("wwopt.interrupted") for t in trials[:2]] == ["stopped"] * 2
    assert {t.state.name for t in trials[:2]} == {"FAIL"}
    assert {t.state.name for t in trials[2:]} == {"WAITING"}  # to be tried again
    again = start(*arguments)
    assert again.process.wait(LONG) == 0, again.stderr
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert [t.state.name for t in trials].count("COMPLETE") == 3
    assert {t.state.name for t in trials} == {"FAIL", "COMPLETE"}


DEADLOCK = """
import threading, click
from wwopt.commands.interrupts import bound_ending, hear_interrupts

@click.command()
@click.pass_context
def wait(context):
    lock = threading.Lock()
    lock.acquire()  # as a library whose taking of it was interrupted
    with hear_interrupts(context):
        bound_ending(0.2)
        try:
            print("waits", flush=True)
            lock.acquire()
        finally:
            lock.acquire()

wait()
"""


def test_what_a_library_holds_up_ends_all_the_same() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DEADLOCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == "waits\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(LONG) == 130
            said = process.stderr.read()
            assert said == "wwopt: interrupted; what still held it up was left\n"
        finally:
            process.kill()
