"""The scripts of docs/torchrun.md run under torchrun, about `processes`."""

import re
from pathlib import Path

import pytest
from fixtures.machines.torchrun import run_torchrun
from fixtures.paths import ROOT

import wwopt

BLOCKS = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "torchrun.md").read_text(), re.DOTALL)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("block", "uri", "name"),
    [(0, "runs/mlflow.db", "together"), (1, "mlflow.db", "loop")],
    ids=["tune", "optuna"],
)
def test_a_script_of_the_page_makes_one_study_of_two_trials(
    block: int, uri: str, name: str, tmp_path: Path
) -> None:
    assert len(BLOCKS) == 2
    script = tmp_path / "page.py"
    script.write_text(BLOCKS[block])
    done = run_torchrun(script, cwd=tmp_path)
    assert done.status == 0, done.said
    study = wwopt.read_study(f"sqlite:///{tmp_path / uri}", name)
    assert [trial.state for trial in study.trials] == ["COMPLETE", "COMPLETE"]
