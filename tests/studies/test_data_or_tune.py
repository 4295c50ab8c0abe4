"""The study that judges `recommend`: scenarios, what is known of them, what counts as right."""

import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.paths import STUDIES

import wwopt
from harness.scenarios.judgement import Case
from harness.scenarios.situations import SCENARIOS
from harness.scenarios.training import _loss, _part, load, make_model
from wwopt.recommendation.decisions import Amounts, decide
from wwopt.recommendation.gains import Gains

DIGITS = ("digits-60-w64-e40-t6", "digits-100-w16-e30-t5")


def test_scenarios_spread_over_what_decides() -> None:
    every = list(SCENARIOS.values())
    assert len(every) >= 24 and len({scenario.name for scenario in every}) == len(every)
    for wave in (1, 2, 3, 4, 5):
        part = [scenario for scenario in every if scenario.wave == wave]
        assert len(part) >= 30
        assert {"mlp", "cnn", "digits", "text"} <= {scenario.task for scenario in part}
        assert any(s.trials == 1 for s in part) and any(s.trials >= 10 for s in part)
        assert any(s.epochs <= 3 for s in part)
    kinds = Counter(kind for s in every for kind in (s.task, *s.kinds))
    news = {"norm", "adam", "cosine", "halves"}, {"rows", "photos", "manual", "deep", "uneven"}
    for wave, new in zip((2, 3), news, strict=True):
        assert all(kinds[kind] >= 4 for kind in new)
        before = [s for s in every if s.wave < wave]
        assert not any({s.task, *s.kinds} & new for s in before)


@pytest.mark.parametrize(
    "task", ["photos", "cancer", "diabetes", "manual", "rows", "code", "tiles"]
)
def test_every_task_has_networks_that_fit_its_data(task: str) -> None:
    if task == "rows":  # its images are a file that not everybody has
        training = torch.zeros(4, 784), torch.zeros(4, dtype=torch.long)
        scenario = next(s for s in SCENARIOS.values() if s.task == task)
    else:
        scenario = next(s for s in SCENARIOS.values() if s.task == task)
        training, _, test = load(scenario, None)
        seen = {*map(tuple, training[0].tolist())}
        assert task == "code" or not seen & {*map(tuple, test[0].tolist())}  # code repeats itself
    for wide in (0.25, 1.0, 4.0):
        model = make_model(scenario, wwopt.Conditions(seed=0, epochs=1, width=wide))
        x, y = training[0][:4], training[1][:4]
        loss = _loss(scenario, model(x), y)
        assert math.isfinite(loss.item()) and loss.item() > 0.0


def test_twice_the_data_are_there_and_parts_are_drawn_by_the_seed() -> None:
    scenario = SCENARIOS[DIGITS[0]]
    training, validation, test = load(scenario, None)
    assert len(training[0]) == 2 * scenario.examples and len(validation[0]) == 100
    assert len(test[0]) == 600
    rows = {tuple(map(float, x)) for part in (validation[0], test[0]) for x in part}
    assert not rows & {tuple(map(float, x)) for x in training[0]}  # nothing is seen twice

    def part(fraction: float, seed: int) -> np.ndarray:
        conditions = wwopt.Conditions(seed=seed, epochs=1, fraction=fraction)
        return _part(training, scenario, conditions)[0].numpy()

    assert len(part(0.5, 0)) == 30 and len(part(2.0, 0)) == 120
    assert (part(0.5, 0) == part(0.5, 0)).all() and (part(0.5, 0) != part(0.5, 1)).any()
    assert (part(2.0, 0)[:60] == part(1.0, 1)).all()


def test_right_is_what_comes_within_the_noise_of_the_best() -> None:
    draws = {"data": np.full(4, 0.2), "tune": np.full(4, 0.1)}
    gains = Gains(draws, {}, 1.0, 0.01)  # type: ignore[arg-type]
    decision = decide(gains, Amounts(None, 12, 0.0))
    true = {"data": 0.10, "tune": 0.12, "bigger": 0.0, "longer": 0.0, "stop": 0.0}
    case = Case("s", "no prices", 2, true, 0.03, decision, "data", gains, 4.0)
    assert decision.verdict == "data"
    assert case.regret("data") == pytest.approx(0.02) and case.is_right("data")
    assert not case.is_right("stop")
    assert not replace(case, noise=0.01).is_right("data")


@pytest.mark.slow
def test_scenarios_are_lived_once_and_judged_again_from_what_is_kept(tmp_path: Path) -> None:
    command = [sys.executable, str(STUDIES / "data_or_tune.py"), "--scenarios", *DIGITS]
    command += ["--jobs", "2", "--out", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert {file.stem for file in kept} == set(DIGITS)
    assert f"| {DIGITS[0]} (1) |" in first and f"| {DIGITS[1]} (2) |" in first
    assert "| silent, % |" in first and "always data: regret" in first
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert again == first
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == kept
