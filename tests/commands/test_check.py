"""`wwopt check` end to end: words, JSON, options, its history and exit statuses."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fixtures.machines.processes import run_wwopt
from fixtures.machines.stores import StoreIn
from fixtures.readers.junit_files import read_junit
from fixtures.weights.damaged_models import State, edited, model, pushed, rounded
from safetensors.torch import save_file

import wwopt
from wwopt.cli import main
from wwopt.gate.thresholds import Thresholds
from wwopt.tracking.tracked_studies import read_study


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    states: Mapping[str, State] = {
        "good": model(),
        "same": edited(lambda w: rounded(w, 8)),
        "bad": edited(lambda w: w * 4.0, "fc2"),
    }
    paths = {name: tmp_path / f"{name}.safetensors" for name in states}
    for name, state in states.items():
        save_file(state, paths[name])
    return paths


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["check", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_a_key_is_of_the_side_that_has_it(files: dict[str, Path], tmp_path: Path) -> None:
    bad = edited(lambda w: w * 4.0, "fc2")
    torch.save({"model": bad, "ema": model(), "epoch": 3}, tmp_path / "last.tar")
    assert run(files["good"], tmp_path / "last.tar")[0] == 1
    assert run(files["good"], tmp_path / "last.tar", "--key", "ema")[0] == 0
    assert run(tmp_path / "last.tar", files["bad"], "--key", "ema")[0] == 1
    assert run(tmp_path / "last.tar", tmp_path / "last.tar", "--key", "ema")[0] == 0
    status, _, said = run(files["good"], files["same"], "--key", "ema")
    assert status == 2 and "good.safetensors holds one model under no key" in said
    assert run(files["good"], tmp_path / "last.tar", "--key", "swa")[0] == 2


def test_the_command_end_to_end(files: dict[str, Path], tmp_path: Path) -> None:
    def execute(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_wwopt("check", files["good"], *arguments)

    history = ["--history", str(tmp_path / "history.jsonl")]
    broken = execute(files["bad"], *history)
    assert broken.returncode == 1, broken.stderr
    assert "1 of 4 layers broke.\n  fc2: scaled by 4\n" in broken.stdout
    assert "Drift: not judged" in broken.stdout
    fine = execute(files["same"], *history)
    assert fine.returncode == 0, fine.stderr
    assert fine.stdout.startswith("Passed: 4 layers.")
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2
    absent = execute(tmp_path / "absent.safetensors", *history)
    assert absent.returncode == 2
    assert absent.stderr.count("\n") == 1 and "absent.safetensors" in absent.stderr
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2


def test_the_commands_json(files: dict[str, Path]) -> None:
    status, output, _ = run(files["good"], files["bad"], "--json")
    assert status == 1
    document = json.loads(output)
    assert document["broken"] == {"fc2": "scaled by 4"}
    expected = wwopt.check(files["good"], files["bad"])
    assert document["layers"][1]["ks"] == expected.layers[1].change.ks
    assert "history" not in document


def test_the_commands_thresholds_and_layers(files: dict[str, Path]) -> None:
    assert run(files["good"], files["bad"], "--max-scale", "5")[0] == 0
    assert run(files["good"], files["bad"], "--max-scale", "inf", "--shuffles", 0)[0] == 0
    assert run(files["good"], files["bad"], "--layers", "fc1,head")[0] == 0
    status, _, message = run(files["good"], files["bad"], "--max-scale", "0.5")
    assert (status, message) == (2, "wwopt: threshold scale must be above 1, got 0.5\n")
    help_text = CliRunner().invoke(main, ["check", "--help"]).stdout
    for name in vars(Thresholds()):
        assert f"--max-{name.replace('_', '-')} " in help_text


def test_the_command_when_it_cannot(files: dict[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("this is no checkpoint")
    history = tmp_path / "history.jsonl"
    history.write_text("{\n")
    for arguments in (
        (files["good"], text),
        (text, files["good"]),
        (files["good"], files["good"], "--layers", "fx"),
        (files["good"], files["good"], "--history", history),
        (files["good"], files["good"], "--device", "no such device"),
    ):
        status, output, message = run(*arguments)
        assert (status, output) == (2, "")
        assert message.startswith("wwopt: ") and message.count("\n") == 1
    assert history.read_text() == "{\n"


def test_the_command_finds_drift_that_the_gate_lets_through(
    files: dict[str, Path], tmp_path: Path
) -> None:
    history = tmp_path / "history.jsonl"
    for week in range(6):
        state = edited(lambda w, size=0.02 + 0.002 * week: pushed(w, size))
        save_file(state, tmp_path / "week.safetensors")
        assert run(files["good"], tmp_path / "week.safetensors", "--history", history)[0] == 0
    save_file(edited(lambda w: w * 1.15, "fc2"), tmp_path / "week.safetensors")
    status, output, _ = run(files["good"], tmp_path / "week.safetensors", "--history", history)
    assert status == 1
    assert output.startswith("Passed: 4 layers.")
    assert "Drift:\n  fc2: " in output
    document = json.loads(
        run(files["good"], tmp_path / "week.safetensors", "--history", history, "--json")[1]
    )
    # What drifted is not taken for the new normal, until somebody accepts it.
    assert document["history"]["drift"][0]["layer"] == "fc2"
    history.write_text(history.read_text().replace('"passed": false', '"passed": true'))
    accepted = run(files["good"], tmp_path / "week.safetensors", "--history", history)
    assert accepted[0] == 0


def test_the_files_of_a_pipeline_say_what_the_command_says(
    files: dict[str, Path], tmp_path: Path
) -> None:
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    to = ["--junit", junit, "--markdown", summary]
    assert run(files["good"], files["bad"], *to)[0] == 1
    assert read_junit(junit.read_text()).failures == 1
    assert run(files["good"], files["same"], *to)[0] == 0
    assert read_junit(junit.read_text()).failures == 0
    assert run(files["good"], tmp_path / "absent.pt", *to)[0] == 2
    suite = read_junit(junit.read_text())
    assert suite.errors == 1 and "absent.pt does not exist" in next(iter(suite)).result[0].message
    heads = [line for line in summary.read_text().splitlines() if line.startswith("###")]
    assert heads == [  # each was appended
        "### wwopt check: 1 of 4 layers broke",
        "### wwopt check: passed, 4 layers",
        "### wwopt check could not be done",
    ]
    status, _, said = run(files["good"], files["same"], "--junit", tmp_path / "no" / "x.xml")
    assert status == 2 and "there is no folder" in said


def test_the_check_is_logged_where_it_is_told_to(
    files: dict[str, Path], tmp_path: Path, store_in: StoreIn
) -> None:
    uri = store_in(tmp_path)
    status, output, said = run(files["good"], files["bad"], "--log-to", uri, "--json")
    assert status == 1 and json.loads(output)["passed"] is False
    assert said == f"Logged to experiment 'wwopt check' of {uri}\n"
    (trial,) = read_study(uri, "wwopt check").trials
    assert trial.params["after"] == str(files["bad"])
    status, output, said = run(files["good"], files["bad"], "--log-to", "http://127.0.0.1:9")
    assert (status, output) == (2, "") and "cannot be reached" in said


def test_the_kind_of_change_stands_beside_the_verdict_and_moves_no_status(
    files: dict[str, Path], tmp_path: Path
) -> None:
    status, said, _ = run(files["good"], files["same"])
    assert status == 0
    assert said.splitlines()[1] == "Change: quantised, in all layers (250 to 255 values per row)."
    junit, summary = tmp_path / "check.xml", tmp_path / "summary.md"
    status, said, _ = run(
        files["good"], files["bad"], "--json", "--junit", junit, "--markdown", summary
    )
    assert status == 1
    document = json.loads(said)
    assert document["change"]["kind"] == "scaled"
    assert document["change"]["layers"]["scaled"] == ["fc2"]
    kinds = {row["layer"]: row["kind"] for row in document["layers"]}
    assert kinds["fc2"] == "scaled" and kinds["fc1"] == "identical"
    assert 'name="change" value="scaled"' in junit.read_text()
    assert "scaled by a factor" in summary.read_text()
    other = tmp_path / "other.safetensors"
    save_file(model(seed=5), other)
    status, said, _ = run(files["good"], other)
    assert status == 0 and "Are these two a pair?" in said
