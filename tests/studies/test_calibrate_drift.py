"""The study of drift: its weeks, its breakages, and replays that decide as the commands do."""

import os
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fixtures.machines.stores import StoreIn
from fixtures.weights.damaged_models import State, model
from safetensors.torch import save_file

import calibrate_drift
from harness.retrainings import histories, replays
from harness.retrainings.histories import History
from harness.retrainings.replays import ACCEPTED, CHECK, WATCH, Checked, replay
from harness.retrainings.tables import find_first, share
from harness.retrainings.training import BREAKAGES, HEALTHY, TASKS, Week, open_stream, train_week
from wwopt.cli import main
from wwopt.gate.watching import Watcher, score_arrivals
from wwopt.tracking.watches import open_watch

JUMPS = {8: 1.12, 9: 1.5}  # week → factor on a layer: a drift, and a break
LAST = 11


def make_week(week: int) -> State:
    generator = torch.Generator().manual_seed(week)
    factor = JUMPS.get(week, 1.0)
    return {
        name: (factor if name == "fc2.weight" else 1.0)
        * (w + 0.005 * torch.randn(w.shape, generator=generator))
        for name, w in model().items()
        if name in {"fc1.weight", "fc2.weight"}
    }


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """Twelve checkpoints, written a second apart."""
    monkeypatch.setattr(replays, "WEEKS", LAST)
    folder = tmp_path / "weeks"
    folder.mkdir()
    history = History("", "continued", 0, "", folder)
    start = time.time() - 1000.0
    for week in range(LAST + 1):
        save_file(make_week(week), history.path(week))
        os.utime(history.path(week), (start + week, start + week))
    return history


def passed(checks: list[Checked]) -> list[bool]:
    return [not (checked.broken or checked.drifts) for checked in checks]


def test_replays_decide_as_the_commands_do(
    history: History, tmp_path: Path, store_in: StoreIn
) -> None:
    by_command = []
    for week in range(1, LAST + 1):
        pair = [str(history.path(week - 1)), str(history.path(week))]
        done = CliRunner().invoke(main, ["check", *pair, "--history", str(tmp_path / "h.jsonl")])
        by_command.append(done.exit_code == 0)
    assert passed(replay(history, CHECK)) == by_command
    watch = open_watch(store_in(tmp_path), str(history.folder))
    outcomes = list(score_arrivals(Watcher(watch, folder=history.folder)))
    assert passed(replay(history, WATCH)) == [outcome.passed for outcome in outcomes[1:]]
    alarms = {then: replay(history, then) for then in (ACCEPTED, CHECK, WATCH)}
    for checks in alarms.values():
        assert checks[7].drifted and checks[8].broken and not checks[6].drifts
    # The way back is as far again, and is not one where the last that passed is meant.
    assert alarms[CHECK][9].broken and not alarms[WATCH][9].broken


def test_an_alarm_is_found_from_the_week_of_the_breakage_on() -> None:
    early, late = (Checked(week, 9, ("fc",), ()) for week in (HEALTHY, HEALTHY + 3))
    assert find_first([early], drift=True) is None
    assert find_first([early, late], drift=False) == 3
    assert share(1, 100) == "1/100, 1.0 % [0.2, 5.4]" and share(0, 0) == "–"


def test_data_grow_or_a_window_moves_over_them() -> None:
    grown, moved = (open_stream("digits-mlp", seed, None) for seed in (0, 2))
    for stream in (grown, moved):
        first, last = stream.take(0, 1.0), stream.take(26, 1.0)
        assert len(first[0]) == TASKS["digits-mlp"].size
        assert len(stream.take(26, 0.5)[0]) == pytest.approx(len(last[0]) / 2, abs=1)
        together = torch.cat([last[0], stream.held_out[0]])
        assert len(together.unique(dim=0)) > 0.98 * len(together)  # no image is on both sides
    assert len(grown.take(26, 1.0)[0]) > len(grown.take(0, 1.0)[0])
    assert len(moved.take(26, 1.0)[0]) == len(moved.take(0, 1.0)[0])


def test_a_frozen_layer_stays_and_the_others_move() -> None:
    stream = open_stream("digits-mlp", 0, None)
    torch.manual_seed(0)
    network = TASKS["digits-mlp"].make()
    before = {name: w.clone() for name, w in network.state_dict().items()}
    train_week(network, stream.take(0, 0.2), 1, recipe=0, week=Week(frozen=True))
    after = network.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == ["2.weight"]


def test_breakages_begin_small_and_grow() -> None:
    for name, make in BREAKAGES.items():
        weeks = [make(1), make(14)]
        assert weeks[0] != Week() and (weeks[0] == weeks[1]) == (name == "a layer frozen")


@pytest.mark.slow
def test_the_study_prints_its_tables_and_trains_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(tmp_path), "--cache", str(tmp_path / "cache"), "--broken", "1"]
    arguments += ["--networks", "digits-mlp", "--seeds", "0", "1"]
    calibrate_drift.main(arguments)
    first = capsys.readouterr().out
    assert "4 harmless histories, 10 that break" in first
    assert "| drift, 20 and more past checks |" in first and "| data − 15 % a week |" in first
    monkeypatch.setattr(histories, "_train", None)
    monkeypatch.setattr(histories, "measure_side", None)
    calibrate_drift.main([*arguments, "--cached"])
    assert capsys.readouterr().out == first
