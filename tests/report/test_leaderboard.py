"""Leaderboards and pairs: order, what differs, words; and the command on real studies."""

import io
import json
import math
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from click.testing import CliRunner
from fixtures.studies import LAYERS

from wwopt.cli import main
from wwopt.report.leaderboard import find_differing, is_logarithmic, make_leaderboard
from wwopt.report.pairs import LayerPair, Pair, compare_pair, tell_changes
from wwopt.report.text import format_leaderboard, format_pair
from wwopt.tracking.hyperparameters import read_knobs
from wwopt.tracking.tracked_studies import TrackedStudy, read_study
from wwopt.tracking.tracked_trials import TrackedTrial

Recorded = tuple[optuna.Study, str]


def trial(number: int, value: float = math.nan, **given: Any) -> TrackedTrial:
    metrics = given.pop("metrics", {})
    if not math.isnan(value):
        metrics = {"objective/value": value, **metrics}
    values = {"state": "COMPLETE", "status": "ok", **given}
    return TrackedTrial(uri="", run_id=f"run{number}", number=number, metrics=metrics, **values)


def study(*trials: TrackedTrial) -> TrackedStudy:
    return TrackedStudy("", "1", "parent", "made", {}, {}, {}, trials)


@pytest.fixture(scope="module")
def tracked(recorded: Recorded) -> TrackedStudy:
    return read_study(recorded[1])


def test_complete_trials_come_first_and_those_that_violate_a_guard_last_of_them() -> None:
    made = study(
        trial(0, 0.5),
        trial(1, -9.0, state="PRUNED"),
        trial(2, 0.1),
        trial(3, -5.0, metrics={"guards/traps": 0.3, "guards/mean": -1.0}),
        trial(4, state="FAIL", tags={"wwopt.error": "ValueError: no"}),
        trial(5, state="RUNNING", status=""),
        trial(6),
    )
    board = make_leaderboard(made)
    assert list(board["trial"]) == [2, 0, 6, 3, 5, 1, 4]
    assert made.best is made[2]
    status = dict(zip(board["trial"], board["status"], strict=True))
    assert status[3] == "violates traps"
    assert status[4] == "ValueError: no" and status[5] == "running"


def test_another_metric_orders_the_trials() -> None:
    made = study(trial(0, 1.0, metrics={"a/b": 2.0}), trial(1, 2.0, metrics={"a/b": 1.0}))
    assert list(make_leaderboard(made, by="a/b")["trial"]) == [1, 0]
    with pytest.raises(ValueError, match="no trial of 'made' has the metric 'x'; there are a/b"):
        make_leaderboard(made, by="x")


def test_only_terms_and_hyperparameters_that_differ_are_shown() -> None:
    metrics = {"objective/tail": -1.0, "objective/failure": 0.0}
    made = study(
        trial(0, 1.0, metrics=metrics, params={"lr/a": "0.1", "lr/b": "0.5", "batch": "8"}),
        trial(1, 2.0, metrics=metrics, params={"lr/a": "0.2", "lr/b": "0.5", "batch": "8"}),
    )
    board = make_leaderboard(made)
    assert "tail" in board and "failure" not in board
    assert list(board["lr/a"]) == [0.1, 0.2] and "lr/b" not in board and "batch" not in board


def test_knots_stand_for_the_layers_that_they_tie() -> None:
    tied = trial(0, params={"lr/a": "0.1", "tuned/lr.first": "0.1", "tuned/kind": "wide"})
    assert read_knobs(tied) == {"lr.first": 0.1, "kind": "wide"}
    assert find_differing([tied, trial(1, params={"tuned/lr.first": "0.1"})]) == {
        "run0": {"kind": "wide"},
        "run1": {},
    }


def test_runs_of_others_show_all_their_metrics() -> None:
    board = make_leaderboard(study(trial(0, metrics={"loss": 1.0}), trial(1, metrics={"acc": 0.5})))
    assert {"loss", "acc"} <= set(board) and "objective" not in board
    text = format_leaderboard(study(trial(0, metrics={"loss": 1.0})), top=0, width=80)
    assert "No objective was logged" in text


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], False),
        ([0.001, 0.01, 0.1, 1.0], True),
        ([0.0, 0.01, 1.0], False),
        ([-1.0, 0.01, 1.0], False),
        ([0.3, 0.3], False),
    ],
)
def test_which_values_look_sampled_in_their_logarithm(values: list, logarithmic: bool) -> None:
    assert is_logarithmic(values) is logarithmic


def layer(name: str = "fc", **given: Any) -> LayerPair:
    nothing = (math.nan, math.nan)
    values = {"alpha": nothing, "sigma": nothing, "D": nothing, "traps": nothing}
    return LayerPair(name=name, status=("ok", "ok"), **(values | given))


def test_what_changed_is_told_by_hand() -> None:
    pair = Pair(
        trial(7),
        trial(12),
        (
            layer("a", alpha=(2.0, 5.0), sigma=(0.3, 0.4), traps=(0.0, 2.0)),
            layer("b", alpha=(2.0, 2.5), sigma=(0.3, 0.4), settings={"lr": (0.1, 0.4)}),
            layer("c", settings={"lr": (0.1, 0.05), "dropout": (0.0, 0.3)}),
        ),
        {},
        {},
    )
    assert pair.layers[0].change == 3.0 and pair.layers[0].clearness == pytest.approx(6.0)
    assert tell_changes(pair) == [
        "a: alpha 2.00 → 5.00 (+3.00, 6.0 standard errors)",
        "a: correlation traps 0 → 2",
        "b: lr 0.1 → 0.4 (× 4)",
        "c: dropout 0 → 0.3",
    ]


def test_alphas_that_agree_within_their_errors_are_said_to() -> None:
    pair = Pair(trial(0), trial(1), (layer(alpha=(2.0, 2.5), sigma=(0.3, 0.4)),), {}, {})
    assert tell_changes(pair) == ["no alpha moved by 2 standard errors"]


def test_a_pair_holds_each_layers_own_values(tracked: TrackedStudy) -> None:
    pair = compare_pair(tracked[0], tracked[3])
    assert [x.name for x in pair.layers] == list(LAYERS)
    assert all(set(x.settings) == {"lr", "momentum"} for x in pair.layers)
    assert all(a != b for x in pair.layers for a, b in x.settings.values())
    assert pair.metrics["objective/value"] == (tracked[0].value, tracked[3].value)
    assert next(iter(pair.metrics)) == "objective/value"
    assert pair.settings == {}  # every hyperparameter belongs to a layer
    swapped = compare_pair(tracked[3], tracked[0])
    for there, back in zip(pair.layers, swapped.layers, strict=True):
        assert there.change == -back.change and there.clearness == back.clearness


def test_a_pair_without_layer_tables_is_compared_by_what_there_is() -> None:
    def read_nothing(number: int) -> TrackedTrial:
        params = {"rate": str(number), "same": "1"}
        return TrackedTrial("", "", number, "COMPLETE", "", params=params, metrics={"loss": 1.0})

    pair = compare_pair(read_nothing(1), read_nothing(2))
    assert pair.layers == () and pair.settings == {"rate": (1.0, 2.0)}
    text = format_pair(pair, width=80)
    assert "Neither trial logged a table of its layers" in text and "rate" in text


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
