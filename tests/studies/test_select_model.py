"""How the study on selection judges: closed forms, witnesses, and the study itself where slow."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures.paths import STUDIES
from scipy.stats import kendalltau

from harness.selection_worth import Networks, judge, report, worth

RNG = np.random.default_rng
ERROR = np.array([0.05, 0.3, 0.1, 0.9, 0.2, 0.5])


def networks_of(error: np.ndarray = ERROR, **scores: np.ndarray) -> Networks:
    draws = {1: error[None] > 0.25, 100: np.stack([error, error])}
    return Networks("net", error, scores, {n: d.astype(float) for n, d in draws.items()}, 0)


def results_of(**scores: np.ndarray) -> dict[str, tuple[float, float]]:
    return judge([networks_of(**scores)], [np.arange(len(ERROR))])


def test_the_best_and_the_worst_order() -> None:
    results = results_of(right=ERROR, wrong=-ERROR, same=np.ones(6))
    assert results["right"] == (1.0, 0.0)
    assert results["wrong"] == pytest.approx((-1.0, 85.0))
    mean = 100.0 * (ERROR.mean() - ERROR.min())
    assert results["same"] == pytest.approx((0.0, mean))
    assert results["random"] == pytest.approx((0.0, mean))
    assert results["validation 100"] == (1.0, 0.0)


def test_tau_is_scipys_where_nothing_ties() -> None:
    score = RNG(0).normal(size=6)
    expected = kendalltau(score, ERROR).statistic
    assert results_of(some=score)["some"][0] == pytest.approx(expected)


def test_ties_are_worth_what_breaking_them_at_random_is() -> None:
    rng = RNG(1)
    tied = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    broken = [kendalltau(tied + 1e-6 * rng.random(6), ERROR).statistic for _ in range(4000)]
    tau, regret = results_of(tied=tied)["tied"]
    assert tau == pytest.approx(np.mean(broken), abs=0.02)
    assert regret == pytest.approx(100.0 * (np.mean([0.05, 0.1, 0.2]) - 0.05))


def test_architectures_count_alike() -> None:
    first, second = networks_of(s=ERROR), networks_of(s=-ERROR)
    rows = np.arange(6)
    tau, regret = judge([first, second], [rows, rows])["s"]
    assert tau == pytest.approx(0.0)
    assert regret == pytest.approx(42.5)


def test_worth_is_the_size_that_does_as_well() -> None:
    results = {
        "random": (0.0, 30.0),
        "validation 10": (0.4, 10.0),
        "validation 100": (0.8, 2.0),
        "validation 1000": (0.8, 0.0),
        "as ten": (0.4, 10.0),
        "as random": (0.0, 30.0),
        "worse": (-0.5, 60.0),
        "best": (0.9, 0.0),
        "between": (0.6, 6.0),
    }
    for column in (0, 1):
        assert worth(results, "as ten", column) == pytest.approx(10.0)
        assert worth(results, "as random", column) == 0.0
        assert worth(results, "worse", column) == 0.0
        # Half-way, on the scale of log(1 + size).
        assert worth(results, "between", column) == pytest.approx(np.sqrt(11 * 101) - 1.0)
    assert worth(results, "best", 0) == pytest.approx(100.0)  # a thousand do no better
    assert worth(results, "best", 1) == pytest.approx(1000.0)


def test_the_report_has_a_row_a_method_with_intervals() -> None:
    found = [networks_of(wwopt=ERROR + 0.1 * RNG(2).normal(size=6))]
    text = report(found, {"wwopt": "ours", "random": "chance"}, seed=0)
    assert re.search(r"\| ours \| -?\d\.\d\d \[-?\d\.\d\d, \d\.\d\d\] \| \d+\.\d \[", text)
    assert "| validation on 100 examples | 1.00 | 0.0 |" in text
    assert "By its order (tau), wwopt is worth" in text


@pytest.mark.slow
def test_the_study_runs_on_digits_and_trains_nothing_twice(tmp_path: Path) -> None:
    command = [sys.executable, STUDIES / "select_model.py", "--networks", "5", "--out", tmp_path]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(written) > 5
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == first
    assert {path: path.stat().st_mtime_ns for path in written} == written
    table = pd.read_csv(tmp_path / "digits-mlp" / "selection.csv")
    assert list(table["network"]) == sorted(path.name for path in written if "mlp" in path.name)
    assert table["accuracy"].between(0.0, 1.0).all()
    assert "5 of digits-mlp" in first
    (tau,) = re.findall(r"\| \*\*wwopt, weights alone\*\* \| (-?\d\.\d\d) ", first)
    assert float(tau) > 0.0


def test_a_zoo_without_weights_is_said(tmp_path: Path) -> None:
    from harness.zoos.candidates import train

    (tmp_path / "mnist-cnn_0.jsonl").write_text(
        '{"task": "mnist-cnn", "part": 0, "k": 0, "cfg": {}, "hist": {}}\n'
    )
    with pytest.raises(FileNotFoundError, match="made without --keep-weights: give another --out"):
        train("mnist-cnn", tmp_path, 1, None, 1)
