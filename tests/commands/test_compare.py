"""`wwopt compare` end to end: leaderboard, pairs, JSON, CSV, and what makes no sense."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from fixtures.studies.quick_studies import LAYERS
from fixtures.studies.recorded_study import Recorded

from wwopt.cli import main


def run(recorded: Recorded, *arguments: str) -> tuple[int, str]:
    folder = Path(recorded[1].removeprefix("sqlite:///")).parent
    result = CliRunner().invoke(main, ["compare", str(folder), *arguments])
    assert result.stderr == ""
    return result.exit_code, result.stdout


def test_the_command_prints_a_leaderboard(recorded: Recorded) -> None:
    code, text = run(recorded, "--top", "3")
    assert code == 0
    assert "Study härte/1: 14 trials (12 complete, 1 pruned, 1 failed)." in text
    assert "11 more; --top 0 shows all." in text
    best = str(recorded[0].best_trial.number)
    rows = [line.split()[0] for line in text.splitlines() if "COMPLETE" in line]
    assert len(rows) == 3 and rows[0] == best


def test_the_command_sets_two_trials_side_by_side(recorded: Recorded) -> None:
    code, text = run(recorded, "--pair", "0", "3")
    assert code == 0
    assert "trial 0 (complete) and trial 3 (complete)" in text
    assert "What changed most:" in text and "too few eigenvalues" in text
    assert "±" in text and LAYERS[0] in text


def test_the_command_prints_data(recorded: Recorded) -> None:
    _, text = run(recorded, "--json", "--pair", "0", "3", "--importance")
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert len(document["leaderboard"]) == 14
    assert [x["name"] for x in document["pair"]["layers"]] == list(LAYERS)
    assert document["importance"]["trials"] == 12
    _, text = run(recorded, "--csv")
    assert pd.read_csv(io.StringIO(text))["trial"].iloc[0] == recorded[0].best_trial.number
    _, text = run(recorded, "--csv", "--pair", "0", "3")
    assert list(pd.read_csv(io.StringIO(text))["layer"]) == list(LAYERS)


def test_the_command_refuses_what_makes_no_sense(recorded: Recorded) -> None:
    folder = str(Path(recorded[1].removeprefix("sqlite:///")).parent)
    for arguments in (["--json", "--csv"], ["--csv", "--importance"], ["--pair", "0", "99"]):
        result = CliRunner().invoke(main, ["compare", folder, *arguments])
        assert result.exit_code == 2
    assert "has no trial 99" in result.stderr
