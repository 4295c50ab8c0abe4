"""The study of noisy labels, on zoos whose losses are made up: counts, areas and limits by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from noisy_labels import main

LAYER = "0"


def make_zoo(folder: Path, task: str, losses: list[float], *, right: float = 0.9) -> Path:
    """A zoo folder of networks with these training losses, and one random layer each."""
    zoo = folder / task
    zoo.mkdir()
    lines = []
    for index, loss in enumerate(losses):
        weights = np.random.default_rng(index).normal(size=(80, 60))
        eigenvalues = np.linalg.eigvalsh(weights.T @ weights)
        layer = {
            "esd": eigenvalues,
            "rand_c": eigenvalues,
            "rand_c_top": eigenvalues[None, :-9:-1],
            "shape": np.array([80.0, 60.0, 1.0]),
            "stats": np.array([0.0, 1.0, 3.0, 4.0, 1.0, 1.0]),
        }
        arrays = {f"1.0/{LAYER}/{name}": value for name, value in layer.items()}
        np.savez(zoo / f"{task}_0_{index}.npz", **arrays)  # type: ignore[arg-type]
        end = {"trl": loss, "ema": loss + 0.1, "vaa": right}
        record = {"task": task, "part": 0, "k": index, "cfg": {}, "hist": {"1.0": end}}
        lines.append(json.dumps(record | {"names": [LAYER]}))
    (zoo / f"{task}_0.jsonl").write_text("\n".join(lines))
    return zoo


@pytest.fixture
def zoos(tmp_path: Path) -> list[str]:
    # The limit at an error of .1 is .2 - 1.5 ln .9 = .358.
    made = (
        make_zoo(tmp_path, "mnist-mlp-noise", [0.3, 0.5, 0.7, 0.9]),
        make_zoo(tmp_path, "mnist-mlp", [0.1, 0.2, 0.3, 0.8]),
        make_zoo(tmp_path, "mnist-cnn-noise", [0.5, 0.6]),
        make_zoo(tmp_path, "mnist-cnn", [0.1, 0.2]),
        make_zoo(tmp_path, "shakespeare-gpt", [0.1]),
    )
    return [str(zoo) for zoo in made]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    return f"{result.exit_code}\n{result.output}"


def test_counts_areas_and_limits_are_those_of_the_losses(zoos: list[str]) -> None:
    found = run(*zoos)
    assert found.startswith("0\n")
    # Measured; running, which is .1 more.
    assert "| mnist-mlp-noise, 27% wrong | 3 of 4 | 4 of 4 |" in found
    assert "| mnist-mlp, 0% wrong | 1 of 4 | 2 of 4 |" in found
    assert "| **all noisy** | 5 of 6: 83% [" in found
    assert "| **all clean** | 1 of 6: 17% [" in found
    # Of 16 pairs the noisy loss is larger in 12 (.3, .5 and .7 lose to .8), and equal in one.
    assert f"| mnist-mlp-noise against mnist-mlp | {12.5 / 16:.2f} [" in found
    assert "| mnist-cnn-noise against mnist-cnn | 1.00 [1.00, 1.00] |" in found
    assert "mnist-mlp-noise against mnist-cnn" not in found and "gpt" not in found
    # A limit between .2 and .5 parts the CNNs, and tells three of four noisy MLPs, one clean one.
    (row,) = (line for line in found.splitlines() if line.startswith("| cnn → mlp, loss measured"))
    assert row.endswith("| 100%, 0% | 75%, 25% |")


def test_what_learned_less_than_half_does_not_count(zoos: list[str], tmp_path: Path) -> None:
    lost = make_zoo(tmp_path, "mnist-mlp-sweeps", [0.1, 2.0], right=0.4)
    assert "| mnist-mlp-sweeps, 0% wrong | 0 of 0 | 0 of 0 |" in run(*zoos, str(lost))


def test_zoos_that_cannot_be_compared_are_named(zoos: list[str]) -> None:
    found = run(*zoos[:2])
    assert found.startswith("1\n")
    assert "got mnist-mlp-noise, mnist-mlp; make mnist-mlp-noise" in found


def test_a_task_of_unknown_noise_is_named(zoos: list[str], tmp_path: Path) -> None:
    other = make_zoo(tmp_path, "mnist-mlp-mine", [0.1])
    found = run(*zoos, str(other))
    assert found.startswith("1\n") and "task 'mnist-mlp-mine', whose label noise" in found
