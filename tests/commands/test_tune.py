"""`wwopt tune` end to end: what it prints, leaves and refuses, and its exit statuses."""

from pathlib import Path

import pytest
from fixtures.machines.processes import run_wwopt, unused_port
from fixtures.studies.quick_studies import TINY_STUDY, write_tiny_study
from fixtures.studies.tuned_folders import runs_of, trial_runs
from mlflow import MlflowClient

from wwopt.report.two_objectives import find_front
from wwopt.study.constraints import is_feasible
from wwopt.tracking.tracked_studies import read_study
from wwopt.tuning.tuning import tune


def test_the_command_runs_a_study_and_says_what_came_out(study_file: str, tmp_path: Path) -> None:
    result = run_wwopt("tune", study_file, "--trials", "3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Study tiny: 3 trials" in result.stdout
    assert (
        "Guided by validation-free, which reads the weights and the training loss" in result.stdout
    )
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
        (
            ["tiny.py", "--objective", "beauty"],
            "unknown objective preset 'beauty'; known: weights-",
        ),
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
    told = find_front(read_study(whole.run.uri, "tiny"))  # what compare and the report show
    assert [t.number for t in told] == [t.number for t in whole.best_trials]


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
    stopped = runs_of(tmp_path / "wwopt-runs", "tags.`wwopt.interrupted` = 'stopped'")
    assert [run.info.status for run in stopped] == ["FAILED"]
    assert not runs_of(tmp_path / "wwopt-runs", "attributes.status = 'RUNNING'")
    resumed = run_wwopt("tune", path, "--trials", "4", cwd=tmp_path)
    assert resumed.returncode == 0
    assert "4 trials (4 complete; 1 was interrupted and tried again)" in resumed.stdout
