"""`wwopt watch` end to end: passes, statuses, a registry, and no second watcher."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures.machines.stores import StoreIn
from fixtures.paths import WWOPT
from fixtures.weights.damaged_models import edited, model
from mlflow import MlflowClient
from safetensors.torch import save_file

from wwopt.cli import main
from wwopt.commands.watch import _alone


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["watch", "--shuffles", "0", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def put(path: Path, content: object, *, age: float) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content, path)  # type: ignore[arg-type]
    then = time.time() - age
    os.utime(path, (then, then))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


def test_one_pass_has_the_exit_statuses_of_check(
    folder: Path, tmp_path: Path, store_in: StoreIn
) -> None:
    once = (folder, "--once", "--log-to", store_in(tmp_path))
    assert run(*once)[:2] == (0, "Nothing new.\n")
    put(folder / "a.safetensors", model(), age=900)
    status, output, said = run(*once)
    assert status == 0 and output.startswith("a.safetensors: passed, 4 layers, score -")
    assert output.endswith(", the first\n") and "Watching" in said
    put(folder / "b.safetensors", edited(lambda w: w * 4.0, "fc2"), age=800)
    status, output, _ = run(*once)
    assert status == 1 and "b.safetensors: 1 of 4 layers broke" in output
    assert "\n  fc2 broke: scaled by 4\n" in output
    put(folder / "c.pt", b"\x80\x02 this is none", age=700)
    status, output, _ = run(*once)
    assert status == 2 and output.startswith("c.pt: skipped, it cannot be read: ")
    put(folder / "d.safetensors", model(), age=0)  # just written: the pass waits for it
    status, output, _ = run(*once, "--quiet", "0.2")
    assert status == 0 and output.startswith("d.safetensors: passed")
    put(folder / "e.safetensors", b"{", age=5)
    status, output, _ = run(*once)
    assert status == 0 and output.startswith("e.safetensors: left for the next time, not complete")
    assert run(*once, "--max-scale", "0.5")[0] == 2


def test_versions_of_a_registered_model_are_watched(tmp_path: Path, store_in: StoreIn) -> None:
    uri = store_in(tmp_path)
    client = MlflowClient(uri, registry_uri=uri)
    experiment = client.create_experiment("made", artifact_location=(tmp_path / "a").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.create_registered_model("digits")

    def register(name: str, factor: float) -> None:
        file = tmp_path / "model.safetensors"
        save_file(edited(lambda w: w * factor, "fc2"), file)
        client.log_artifact(run_id, str(file), name)
        client.create_model_version("digits", source=f"runs:/{run_id}/{name}", run_id=run_id)

    register("good", 1.0)
    client.create_model_version("digits", source=f"runs:/{run_id}/none", run_id=run_id)
    register("bad", 4.0)
    once = ("models:/digits", "--once", "--tracking-uri", uri, "--quiet", 0)
    status, output, _ = run(*once)
    assert status == 1
    assert [line.split(",")[0] for line in output.splitlines()] == [
        "digits/1: passed",
        "digits/2: skipped",
        "digits/3: 1 of 4 layers broke",
        "  fc2 broke: scaled by 4",
    ]
    register("good again", 1.0)
    assert run(*once)[1].startswith("digits/4: passed, 4 layers")
    assert run("models:/nobody", "--once", "--tracking-uri", uri)[0] == 2


@pytest.mark.parametrize("source", ["models:/", "models:/digits/1", "models:/digits@x", "nowhere"])
def test_what_cannot_be_watched_is_told(source: str) -> None:
    assert run(source, "--once")[0] == 2


def test_a_second_watcher_is_kept_away() -> None:
    store = "sqlite:///x"
    with _alone(store, "/here"), _alone(store, "/elsewhere"):  # noqa: SIM117
        with pytest.raises(ValueError, match="being watched already"), _alone(store, "/here"):
            pass
    with _alone(store, "/here"):
        pass


@pytest.mark.slow
def test_a_watch_goes_on_until_it_is_interrupted(
    folder: Path, tmp_path: Path, store_in: StoreIn
) -> None:
    uri = store_in(tmp_path)
    options = ["--log-to", uri, "--every", "0.2", "--quiet", "0.1", "--shuffles", "0"]
    with subprocess.Popen(
        [*WWOPT, "watch", str(folder), *options], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for name in ("a", "b"):
                put(folder / f"{name}.safetensors", model(), age=0)
                assert process.stdout.readline().startswith(f"{name}.safetensors: passed")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()
