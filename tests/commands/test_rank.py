"""`wwopt rank` end to end: files, tables, MLflow's runs and models, exit statuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import nn

import wwopt
from wwopt.cli import main


def draw_state(width: int, *, spread: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """Two layers with columns of unequal scale: the more unequal, the heavier their tails."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, rows in (("fc1", 96), ("fc2", 80)):
        scales = torch.rand(width, generator=generator) ** -spread
        state[f"{name}.weight"] = torch.randn(rows, width, generator=generator) * scales
        state[f"{name}.bias"] = torch.zeros(rows)
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rank")
    save_file(draw_state(128, spread=0.0), folder / "flat.safetensors")
    save_file(draw_state(128, spread=0.4), folder / "heavy.safetensors")
    save_file(draw_state(200, spread=0.4), folder / "wide.safetensors")
    (folder / "noise.safetensors").write_bytes(b"noise")
    wwopt.analyze(folder / "wide.safetensors").to_frame().to_csv(folder / "wide.csv", index=False)
    return folder


def execute(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["rank", *map(str, arguments)])


def test_prints_the_question_the_order_and_what_to_beware_of(folder: Path) -> None:
    result = execute(folder / "flat.safetensors", folder / "heavy.safetensors")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("One architecture: the same names and shapes in all 2 layers")
    assert [line.split()[:2] for line in lines[3:5]] == [["1", "heavy"], ["2", "flat"]]
    assert any(line.startswith("heavy leads flat by") for line in lines)
    assert "flat: 2 of 2 layers like a random matrix: fc1, fc2" in result.stdout


def test_a_key_chooses_in_every_candidate(folder: Path, tmp_path: Path) -> None:
    heavy, flat = draw_state(128, spread=0.4), draw_state(128, spread=0.0)
    torch.save({"model": flat, "ema": heavy}, tmp_path / "a.tar")
    torch.save({"model": heavy, "ema": flat}, tmp_path / "b.tar")
    for options, best in (([], "b"), (["--key", "ema"], "a")):
        result = execute(tmp_path / "a.tar", tmp_path / "b.tar", *options)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[3].split()[:2] == ["1", best]
    plain = execute(tmp_path / "a.tar", folder / "flat.safetensors", "--key", "ema")
    assert plain.exit_code == 1
    assert "flat.safetensors is not ranked: " in plain.stderr and "leave it out" in plain.stderr


def test_a_candidate_that_cannot_be_read_is_named_and_the_status_is_one(folder: Path) -> None:
    bad = folder / "noise.safetensors"
    result = execute(folder / "flat.safetensors", folder / "heavy.safetensors", bad)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"wwopt: {bad} is not ranked: ")
    assert "heavy leads flat" in result.stdout


def test_none_that_can_be_read_is_status_two_and_one_line(folder: Path) -> None:
    result = execute(folder / "noise.safetensors", folder / "gone.pt")
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("wwopt: none of 2 candidates can be ranked")


def test_json_and_csv_are_the_rankings_own(folder: Path) -> None:
    paths = [str(folder / f"{name}.safetensors") for name in ("flat", "heavy", "wide")]
    ranking = wwopt.rank(paths)
    document = json.loads(execute(*paths, "--json").stdout)
    assert document == json.loads(json.dumps(ranking.to_dict()))
    table = pd.read_csv(io.StringIO(execute(*paths, "--csv").stdout))
    assert list(table["candidate"]) == [candidate.name for candidate in ranking]
    assert table["score"].to_numpy() == pytest.approx([candidate.score for candidate in ranking])


def test_a_layer_table_takes_part(folder: Path) -> None:
    result = execute(folder / "wide.csv", folder / "heavy.safetensors", "--json")
    (family,) = json.loads(result.stdout)["families"]
    assert family["objective"] == "alpha_hat"
    assert len(family["candidates"]) == 2


def test_labels_part_and_force_families(folder: Path) -> None:
    paths = [folder / f"{name}.safetensors" for name in ("flat", "heavy", "wide")]
    parted = json.loads(execute(*paths, "--family", "*wide*=large", "--json").stdout)
    assert [f["family"] for f in parted["families"]] == ["A", "large"]
    forced = json.loads(execute(*paths, "--family", "*=all", "--json").stdout)
    assert [f["family"] for f in forced["families"]] == ["all"]


def test_layers_and_objective_are_passed_on(folder: Path) -> None:
    paths = [folder / f"{name}.safetensors" for name in ("flat", "heavy")]
    result = execute(*paths, "--layers", "fc1", "--objective", "stable_rank", "--json")
    for row in json.loads(result.stdout)["candidates"]:
        layer = wwopt.analyze(row["candidate"])["fc1"]
        assert row["score"] == layer.stable_rank
        assert row["layers"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name candidates, a --study or an --experiment"),
        (["flat.safetensors", "--json", "--csv"], "exclude each other"),
        (["flat.safetensors", "--plot", "a.docx"], "ending must be one of .png"),
        (["flat.safetensors", "--plot", "nowhere/a.png"], "no folder nowhere"),
        (["flat.safetensors", "--family", "=x"], "takes NAME=LABEL, got '=x'"),
        (["flat.safetensors", "--family", "b=x"], "no candidate 'b'"),
        (["flat.safetensors", "--objective", "x"], "unknown objective 'x'"),
        (["flat.safetensors", "flat.safetensors"], "named twice"),
        (["runs:/abc"], "wwopt-runs holds no mlflow.db"),
        (["runs:/abc", "--tracking-uri", "sqlite:///gone.db"], "no such file"),
    ],
)
def test_says_what_is_wrong_and_stops(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    result = execute(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_picture_is_written(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "alphas.png"
    paths = [folder / f"{name}.safetensors" for name in ("flat", "heavy")]
    result = execute(*paths, "--plot", picture)
    assert result.exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in result.stderr


# MLflow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real store with a study of three trials, each a network of its own."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"

    def objective(trial: optuna.Trial) -> float:
        model = nn.Sequential(nn.Linear(128, 96), nn.Linear(96, 80))
        spread = trial.suggest_float("spread", 0.0, 0.5)
        state = draw_state(128, spread=spread)
        with torch.no_grad(), wwopt.record(trial, epochs=1, tracking=uri) as recorder:
            model[0].weight.copy_(state["fc1.weight"])
            recorder.step(model)
        return recorder.value

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="spreads", sampler=optuna.samplers.RandomSampler(0))
    study.optimize(objective, n_trials=3)
    return uri


def test_the_trials_of_a_study_are_ranked_by_their_weights(store: str) -> None:
    from wwopt.tracking.tracked_studies import read_study

    result = execute("--study", "spreads", "--tracking-uri", store, "--json")
    assert result.exit_code == 0, result.output
    folder = Path(store.removeprefix("sqlite:///")).parent
    assert execute("--study", "spreads", "--out", folder, "--json").stdout == result.stdout
    document = json.loads(result.stdout)
    (family,) = document["families"]
    assert family["objective"] == "weights-only"
    trials = read_study(store, "spreads").trials
    values = {f"trial {trial.number}": trial.value for trial in trials}
    assert {row["candidate"] for row in document["candidates"]} == set(values)
    for row in document["candidates"]:
        # Other shuffles than the trial's own move the traps' part a little.
        assert row["score"] == pytest.approx(values[row["candidate"]], abs=0.02)
        assert row["coverage"] > 0.9  # weights were read, a table does not know it


def test_runs_and_logged_models_are_candidates_beside_files(store: str, folder: Path) -> None:
    from wwopt.tracking.models import find_models
    from wwopt.tracking.tracked_studies import read_study

    trials = read_study(store, "spreads").trials
    run = f"runs:/{trials[0].run_id}"
    model = f"models:/{find_models(trials[1])[0]}"
    path = folder / "wide.safetensors"
    result = execute(run, model, path, "models:/m-gone", "--tracking-uri", store, "--json")
    assert result.exit_code == 1
    names = {row["candidate"] for row in json.loads(result.stdout)["candidates"]}
    assert names == {run, model, str(path)}
    assert "wwopt: models:/m-gone is not ranked" in result.stderr


def test_candidates_are_logged_as_models_and_ranked_again_from_there(
    folder: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    paths = [folder / f"{name}.safetensors" for name in ("flat", "heavy")]
    result = execute(*paths, "--log-to", uri, "--json")
    assert result.exit_code == 0, result.output
    logged = json.loads(result.stdout)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("wwopt rank")
    assert experiment is not None
    heavy = logged["candidates"][0]
    query = f"metrics.`rank/score` < {heavy['score'] + 1e-9}"
    (model,) = client.search_logged_models([experiment.experiment_id], query)
    assert model.params["source"] == heavy["candidate"]
    assert model.params["place"] == "1"
    means = wwopt.analyze(heavy["candidate"]).summary()
    metrics = {metric.key: metric.value for metric in model.metrics}
    assert metrics["alpha/mean"] == pytest.approx(means["alpha"])
    again = execute("--experiment", "wwopt rank", "--tracking-uri", uri, "--json")
    assert again.exit_code == 0, again.output
    scores = [row["score"] for row in json.loads(again.stdout)["candidates"]]
    assert scores == pytest.approx([row["score"] for row in logged["candidates"]])


def test_a_run_that_left_nothing_to_rank_is_named(store: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    bare = client.create_run(client.create_experiment("bare")).info.run_id
    result = execute("--experiment", "bare", "--tracking-uri", store)
    assert result.exit_code == 2
    assert "neither weights nor a layer table" in result.stderr
    result = execute(f"runs:/{bare}", "--study", "spreads", "--tracking-uri", store)
    assert result.exit_code == 1
    assert f"runs:/{bare} is not ranked" in result.stderr
