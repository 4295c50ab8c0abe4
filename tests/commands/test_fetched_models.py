"""Models of MLflow's registry wherever a path goes, fetched from a real store."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures.machines.stores import StoreIn
from fixtures.weights.damaged_models import edited, model
from mlflow import MlflowClient
from safetensors.torch import save_file

from wwopt.cli import main
from wwopt.commands.fetched_models import fetch_models, find_store
from wwopt.tracking.addresses import fetch_weights, list_versions
from wwopt.tracking.store import TrackingError


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, store_in: StoreIn) -> str:
    """A store with a model of three versions: good, bad, and good again in two shards.

    Version 1 has the alias "champion". Each was registered as others do it: as artifacts of a run,
    by their address, without a logged model.
    """
    folder = tmp_path_factory.mktemp("registry")
    uri = store_in(folder)
    client = MlflowClient(uri, registry_uri=uri)
    experiment = client.create_experiment("retrained", artifact_location=(folder / "a").as_uri())
    client.create_registered_model("digits")
    run = client.create_run(experiment).info.run_id
    for name, state in (("good", model()), ("bad", edited(lambda w: w * 4.0, "fc2"))):
        save_file(state, folder / "model.safetensors")
        client.log_artifact(run, str(folder / "model.safetensors"), name)
    state = model()
    parts = {
        "model-00001-of-00002.safetensors": ["fc1.weight", "fc1.bias"],
        "model-00002-of-00002.safetensors": ["fc2.weight", "fc3.weight", "head.weight"],
    }
    shards = folder / "shards"
    shards.mkdir()
    for file, names in parts.items():
        save_file({name: state[name] for name in names}, shards / file)
    weight_map = {name: file for file, names in parts.items() for name in names}
    index = json.dumps({"weight_map": weight_map})
    (shards / "model.safetensors.index.json").write_text(index)
    client.log_artifacts(run, str(shards), "shards")
    for name in ("good", "bad", "shards"):
        client.create_model_version("digits", source=f"runs:/{run}/{name}", run_id=run)
    client.set_registered_model_alias("digits", "champion", "1")
    return uri


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [*arguments, "--shuffles", "0"])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_a_version_is_what_was_registered_and_not_its_runs_first_file(registry: str) -> None:
    champion = ["check", "models:/digits@champion", "--tracking-uri", registry]
    status, output, _ = run(*champion, "models:/digits/2")
    assert status == 1 and "fc2: scaled by 4" in output
    assert run(*champion, "models:/digits/3")[0] == 0


def test_both_sides_and_the_base_may_be_addresses(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(model(), tmp_path / "good.safetensors")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    assert run("check", str(tmp_path / "good.safetensors"), "models:/digits/1")[0] == 0
    status, output, said = run("analyze", "models:/digits/1", "models:/digits/9", "--json")
    assert status == 1 and list(json.loads(output)) == ["models:/digits/1"]
    assert "digits" in said and "not found" in said and said.count("\n") == 1
    base = ["--base", "models:/digits/1", "--layers", "fc2"]
    assert "4.00" not in run("analyze", str(tmp_path / "good.safetensors"), *base)[1]


def test_files_are_gone_when_the_block_ends(registry: str) -> None:
    with fetch_models(["models:/digits/1", "here.pt"], registry) as (fetched, here):
        assert Path(fetched).is_file() and here == "here.pt"
    assert not Path(fetched).exists()


def test_the_store_is_given_or_the_environments_or_that_of_tune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///of-the-environment")
    assert find_store("sqlite:///given") == "sqlite:///given"
    assert find_store(None) == "sqlite:///of-the-environment"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(TrackingError, match=r"wwopt-runs holds no mlflow.db"):
        find_store(None)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("models:/digits/9", "not found"),
        ("models:/digits@nobody", "nobody"),
        ("models:/digits", "name a version, models:/digits/1"),
        ("models:/m-nothing", "m-nothing"),
    ],
)
def test_an_address_of_nothing_is_one_line(registry: str, address: str, why: str) -> None:
    status, output, said = run("check", address, address, "--tracking-uri", registry)
    assert (status, output) == (2, "") and why in said and said.count("\n") == 1


def test_a_version_without_weights_is_told(registry: str, tmp_path: Path) -> None:
    client = MlflowClient(registry, registry_uri=registry)
    experiment = client.create_experiment("other", artifact_location=(tmp_path / "a").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, "no weights", "page/text.txt")
    client.create_registered_model("texts")
    client.create_model_version("texts", source=f"runs:/{run_id}/page", run_id=run_id)
    with pytest.raises(TrackingError, match="was logged without weights"):
        fetch_weights(registry, "models:/texts/1", tmp_path / "f")
    with pytest.raises(TrackingError, match="was logged without weights"):
        fetch_weights(registry, f"runs:/{run_id}", tmp_path / "f")


def test_versions_are_listed_in_their_order(registry: str) -> None:
    versions = list_versions(registry, "digits")
    assert [number for number, _ in versions] == [1, 2, 3]
    with pytest.raises(TrackingError, match="nobody"):
        list_versions(registry, "nobody")
    with pytest.raises(TrackingError, match=r"not found|Invalid|cannot"):
        list_versions(registry, "it's")
