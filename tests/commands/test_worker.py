"""`wwopt worker` joins what `tune` began, or begins it, and leaves the report if it is last."""

import subprocess
from pathlib import Path

import pytest
from fixtures.machines.processes import run_wwopt
from fixtures.paths import WWOPT
from fixtures.studies.tuned_folders import runs_of, trial_runs

from wwopt.tracking import read_study


def test_without_a_study_it_says_how_to_begin_one(study_file: str, tmp_path: Path) -> None:
    result = run_wwopt("worker", study_file, cwd=tmp_path)
    assert result.returncode == 2
    assert "there is no study 'tiny' in the storage yet: start it with `wwopt tune`" in (
        result.stderr
    )
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_two_commands_that_start_at_once_make_one_study(study_file: str, tmp_path: Path) -> None:
    """On empty databases: the exact number of trials, one parent run, one report."""
    commands = [
        ("tune", study_file, "--trials", "8"),
        ("tune", study_file, "--trials", "6"),
        ("worker", study_file, "--trials", "8"),
    ]
    running = [
        subprocess.Popen(
            [*WWOPT, *command],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    said = [process.communicate(timeout=500) for process in running]
    assert [p.returncode for p in running] == [0, 0, 0], said
    assert [text.count("Study tiny: 8 trials (8 complete)") for text, _ in said[:2]] == [1, 1]
    out = tmp_path / "wwopt-runs"
    assert trial_runs(out) == [str(number) for number in range(8)]
    parents = runs_of(out, "tags.`wwopt.kind` = 'study'")
    assert [run.info.status for run in parents] == ["FINISHED"]
    study = read_study(f"sqlite:///{out / 'mlflow.db'}")
    assert len({tuple(sorted(trial.params.items())) for trial in study.trials}) == 8
    assert {p.name for p in out.iterdir()} == {"optuna.db", "mlflow.db", "artifacts"}
    assert len(list(out.rglob("report.html"))) == 1
