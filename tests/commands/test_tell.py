"""docs/ask-and-tell.md as it stands: its files and its shell, about `tell`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.paths import ROOT

import wwopt

TEXT = (ROOT / "docs" / "ask-and-tell.md").read_text()


@pytest.mark.slow
def test_the_shell_of_the_page_makes_a_study_of_three_jobs(tmp_path: Path) -> None:
    for kind, name in (("python", "away.py"), ("py", "job.py")):
        (block,) = re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
        (tmp_path / name).write_text(block)
    (shell,) = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    wwopt_here = f'"{sys.executable}" -c "from wwopt.cli import main; main()"'
    setup = f'set -u\nwwopt() {{ {wwopt_here} "$@"; }}\npython() {{ "{sys.executable}" "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-c", setup + shell],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "That was the study's last trial." in done.stdout, done.stderr
    assert "study 'away' has all of its 3 trials" in done.stderr
    study = wwopt.read_study(f"sqlite:///{tmp_path / 'wwopt-runs' / 'mlflow.db'}", "away")
    assert [trial.state for trial in study.trials] == ["COMPLETE"] * 3
