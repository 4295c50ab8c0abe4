"""Advice followed: every arm trains, by its own rates, and is judged at its own best rate."""

import dataclasses
import math
from pathlib import Path

import pytest
from fixtures.studies.made_data import write_data

from follow_advice import print_tables
from harness.layer_rates.advised_training import TASKS, train


@pytest.mark.parametrize("name", TASKS)
def test_arms_part_after_the_first_analysis(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WWOPT_DATA", str(write_data(tmp_path)))
    small = dataclasses.replace(TASKS[name], epochs=2, batches=3)
    runs = {arm: train(small, arm, 3e-3, 0) for arm in (*small.arms, "LLR")}
    assert len({run["loss"] for run in runs.values()}) >= 3  # nothing freezes so early
    assert all(math.isfinite(run["error"]) for run in runs.values())


def test_each_arm_is_compared_at_its_own_best_rate(capsys: pytest.CaptureFixture[str]) -> None:
    task = dataclasses.replace(TASKS["transformer"], rates=(0.1, 0.2))
    losses = {"plain": (3.0, 2.0), "TempBalance": (2.5, 2.6), "LLR": (1.0, 9.0)}
    found = {
        (arm, rate, seed): {
            "loss": loss,
            "error": 10 * loss,
            "frozen": 0,
            "train": 1,
            "analysis": 2,
        }
        for arm, pair in losses.items()
        for rate, loss in zip(task.rates, pair, strict=True)
        for seed in range(2)
    }
    print_tables(task, found)
    out = capsys.readouterr().out
    assert "| 0.1 | LLR | 0 | 10.00 | -20.00 [-20.00, -20.00] | 1.000 | -2.000" in out
    assert "| plain | 0.2 | 20.00 |  | 2.000 |  |" in out
    assert "| LLR | 0.1 | 10.00 | -10.00 [-10.00, -10.00] | 1.000 | -1.000" in out
    assert "| TempBalance | 0.1 | 25.00 | +5.00 [+5.00, +5.00] | 2.500 | +0.500" in out
