"""`wwopt compress` end to end: a file, its reading back, a study's network, and wrong input."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fixtures.machines.stores import StoreIn
from fixtures.networks.compressed import make_trained
from fixtures.studies.quick_studies import write_tiny_study
from mlflow import MlflowClient
from safetensors import safe_open
from safetensors.torch import load_file

from wwopt.cli import main

NOTE = "dequantized from 4 bits"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in the working directory."""
    monkeypatch.chdir(tmp_path)
    torch.save(make_trained().state_dict(), tmp_path / "m.pt")
    return tmp_path


def run(*arguments: object, command: str = "compress") -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [command, *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_four_bits_and_what_the_other_commands_see(folder: Path) -> None:
    status, said, _ = run("m.pt", "-o", "c.safetensors", "--bits", 4, "--group", 32)
    size = (folder / "c.safetensors").stat().st_size
    assert status == 0 and f"c.safetensors: {size:,} bytes" in said
    with safe_open(folder / "c.safetensors", "pt") as file:
        assert "docs/compression.md" in file.metadata()["wwopt"]
        assert file.get_tensor("0.weight.codes").numel() == 96 * 120 // 2
    status, said, _ = run("c.safetensors", "--json", command="analyze")
    assert status == 0 and json.loads(said)["c.safetensors"]["notes"]["0"] == NOTE
    assert run("m.pt", "c.safetensors", command="check")[0] == 0


def test_a_broken_layer_is_status_1_and_the_file_is_there(folder: Path) -> None:
    status, said, _ = run("m.pt", "-o", "c.safetensors", "--bits", 2, "--json")
    document = json.loads(said)
    assert status == 1 and document["broken"].keys() == {"0", "2", "3"}
    assert document["limits"]["0"]["bits"] > 2
    assert (folder / "c.safetensors").stat().st_size == document["bytes"]
    assert run("m.pt", "-o", "c.safetensors", "--bits", 2, "--max-noise", "inf")[0] == 1
    switched = [f"--max-{name}" for name in ("noise", "max-abs", "kurtosis", "ks", "norm", "scale")]
    switched += [f"--max-{name}" for name in ("stable-rank", "spectral-norm", "hill", "alpha")]
    off = [word for option in switched for word in (option, "inf")]
    status, said, _ = run("m.pt", "-o", "c.safetensors", "--bits", 4, *off, "--max-rank", "inf")
    assert status == 0


def test_all_at_once_by_alpha_and_dense(folder: Path) -> None:
    options = ["--sparsity", 0.5, "--bits", 5, "--rank", "erg", "--by", "alpha", "--keep", "3"]
    status, said, _ = run("m.pt", "-o", "d.safetensors", *options, "--dense", "--no-limits")
    assert status == 1 and "plain weights; packed they take" in said
    loaded = load_file(folder / "d.safetensors")
    make_trained().load_state_dict(loaded)
    assert torch.equal(loaded["3.weight"], make_trained()[3].weight)
    ranks = [run("m.pt", "-o", "d.safetensors", "--rank", rank)[0] for rank in (".9", 20, "tail")]
    assert set(ranks) <= {0, 1}


def test_it_is_logged(folder: Path, store_in: StoreIn) -> None:
    uri = store_in(folder)
    for bits in (8, 4):
        status, _, noted = run("m.pt", "-o", "c.safetensors", "--bits", bits, "--log-to", uri)
        assert status == 0 and f"Logged under {folder / 'm.pt'}" in noted
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("wwopt compress")
    runs = client.search_runs([experiment.experiment_id], "tags.`wwopt.kind` = 'compression'")
    assert sorted(run.data.params["bits"] for run in runs) == ["4.0", "8.0"]


def test_a_studys_network_is_trained_on_measured_and_logged(folder: Path) -> None:
    study = write_tiny_study(
        folder, {"train_loss=loss.item())": "train_loss=loss.item(), error=loss.item())"}
    )
    tuned = CliRunner().invoke(main, ["tune", study, "--trials", "1", "--out", "runs"])
    assert tuned.exit_code == 0, tuned.output
    options = ["--study", study, "--out", "runs", "-o", "c.safetensors", "--no-limits"]
    status, said, noted = run(*options, "--sparsity", 0.8, "--retrain", 2, "--bits", 8)
    assert status in (0, 1) and "train logs of the compressed network: " in said
    assert "Logged under trial 0 to sqlite:" in noted
    uri = ["--tracking-uri", f"sqlite:///{folder / 'runs' / 'mlflow.db'}"]
    status, said, _ = run("tiny", *uri, command="compare")
    assert status == 0 and "80 % zeros, 8 bits, 2 rounds" in said and "as trained" in said
    status, said, _ = run("tiny", *uri, "--json", command="compare")
    rows = json.loads(said)["compressed"]
    assert [row["variant"] for row in rows] == ["as trained", "80 % zeros, 8 bits, 2 rounds"]
    assert run(*options, "--bits", 4, "--trial", 7)[0] == 2
    status, said, _ = run(*options, "--budget", "1/4", "--retrain", 2)
    assert status in (0, 1) and "before it was trained on" in said, said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.pt", "-o", "m.pt", "--bits", 4], "m.pt is what is to be compressed"),
        (["m.pt", "-o", "none/c", "--bits", 4], "there is no folder"),
        (["m.pt", "-o", "c"], "nothing to do: give bits, a sparsity or a rank"),
        (["m.pt", "-o", "c", "--bits", 9], "bits must be 2 to 8, got 9"),
        (["m.pt", "-o", "c", "--sparsity", 1.2], "sparsity must be from 0 to below 1, got 1.2"),
        (["m.pt", "-o", "c", "--sparsity", 0.01], "as it is: ask for fewer bits"),
        (["m.pt", "-o", "c", "--rank", "most"], "'most' is no rank"),
        (["m.pt", "-o", "c", "--bits", 4, "--keep", "4"], "no layer '4'; did you mean"),
        (["m.pt", "-o", "c", "--bits", 4, "--retrain", 2], "belong to --study"),
        (["-o", "c", "--bits", 4], "either MODEL or --study"),
        (["m.pt", "-o", "c", "--bits", 4, "--study", "s.py"], "either MODEL or --study"),
        (["-o", "c", "--bits", 4, "--study", "s.py", "--log-to", "x"], "leave --log-to out"),
        (["-o", "c", "--bits", 4, "--study", "s.py", "--retrain", -1], "rounds are 0 or more"),
        (["none.pt", "-o", "c", "--bits", 4], "none.pt does not exist"),
        (["bad.safetensors", "-o", "c", "--bits", 4], "no sound safetensors file"),
        (["bad.pt", "-o", "c", "--bits", 4], "bad.pt"),
        (["nan.pt", "-o", "c", "--bits", 4], "layer 'fc' has weights that are not finite"),
        (["twice.safetensors", "-o", "c", "--bits", 4], "quantized already (packed 4 bits)"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_file(
    folder: Path, arguments: list[object], message: str
) -> None:
    (folder / "bad.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (folder / "bad.pt").write_bytes(b"\x80\x04cos\nsystem\n.")
    torch.save({"fc.weight": torch.full((9, 9), torch.nan)}, folder / "nan.pt")
    if arguments[0] == "twice.safetensors":
        run("m.pt", "-o", "twice.safetensors", "--bits", 4)
    there = {path: path.read_bytes() for path in folder.iterdir()}
    status, said, noted = run(*arguments)
    assert status == 2 and message in noted and said == ""
    assert {path: path.read_bytes() for path in folder.iterdir()} == there
