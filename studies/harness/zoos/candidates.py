"""Networks to choose among: trained where they are missing, scored by every method, their errors.

What `select_model.py` compares. Networks are safetensors files, as somebody who chooses has them.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_model
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold, cross_val_predict
from tqdm import tqdm

import wwopt
from harness.data import Data
from harness.score_statistics import Array
from harness.selection_worth import Networks
from harness.zoos.digits import DIGITS, load_digits_data, train_digits
from harness.zoos.tasks import TASKS, Task, load_data
from harness.zoos.training import make_zoo

SIZES = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000)  # of validation sets
DRAWS = 40  # validation sets of each size


def gather(
    name: str, folder: Path, networks: int, *, data: Path | None, jobs: int, seed: int
) -> Networks:
    """Train what the folder lacks of a task's networks, and measure all that did not diverge."""
    read = load_digits_data() if name in DIGITS else load_data(TASKS[name], data)
    paths = train(name, folder, networks, data, jobs)
    return measure(name, paths, read, diverged=networks - len(paths), seed=seed)


def train(name: str, folder: Path, networks: int, data: Path | None, jobs: int) -> list[Path]:
    """Train what the folder lacks; returns the weights of those that did not diverge.

    Raises:
        FileNotFoundError: if the folder's networks were trained before, without their weights kept.
    """
    paths = [folder / f"{name}_0_{index}_1.0.safetensors" for index in range(networks)]
    if name not in DIGITS:
        make_zoo(name, folder, networks=networks, data=data, jobs=jobs, keep=True)
        if not any(path.exists() for path in paths):
            raise FileNotFoundError(
                f"{folder} has networks without their weights, made without --keep-weights: give "
                f"another --out, or remove it"
            )
        return [path for path in paths if path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for index, path in enumerate(tqdm(paths, desc=name)):
        if not path.with_suffix(".tried").exists():
            train_digits(name, index, path)
            path.with_suffix(".tried").touch()
    return [path for path in paths if path.exists()]


def measure(name: str, paths: Sequence[Path], data: Data, *, diverged: int, seed: int) -> Networks:
    """Score the networks by every method, and count their errors."""
    task = DIGITS.get(name) or TASKS[name]
    wrong = [find_errors(task, data, path) for path in tqdm(paths, desc=f"{name}: errors")]
    validation, test = (np.array([pair[side] for pair in wrong]) for side in (0, 1))
    rng = np.random.default_rng([seed, len(paths)])
    total = validation.shape[1]
    draws = {
        size: np.array(
            [validation[:, rng.permutation(total)[:size]].mean(axis=1) for _ in range(DRAWS)]
        )
        for size in SIZES
        if size <= total
    }
    ranking = wwopt.rank({path.name: path for path in paths}, seed=seed, progress=True)
    models = {path.name: ranking[path.name].metrics for path in paths}
    scores = {"wwopt": np.array([ranking[name].score for name in models])}
    for statistic in ("alpha", "alpha_hat", "log_norm", "log_spectral_norm", "stable_rank"):
        other = wwopt.rank(models, objective=statistic)
        scores[statistic] = np.array([other[name].score for name in models])
    scores["kurtosis"] = np.array(
        [np.mean([layer.kurtosis for layer in model.counted]) for model in models.values()]
    )
    scores["size"] = np.array([-ranking[name].parameters for name in models])
    error = test.mean(axis=1)
    scores["fitted"] = fit_moments(list(models.values()), error, seed)
    table = pd.DataFrame({"network": list(models), "accuracy": 1.0 - error, **scores})
    table.to_csv(paths[0].parent / "selection.csv", index=False)
    return Networks(name, error, scores, draws, diverged)


@torch.no_grad()
def find_errors(task: Task, data: Data, path: Path) -> tuple[Array, Array]:
    """1 where a validation or test image is told wrong, else 0."""
    model = task.make_model()
    load_model(model, str(path))
    model.eval()
    found = []
    for x, y in (data.validation, data.test):
        best = torch.cat([model(part).argmax(1) for part in x.split(500)])
        found.append((best != y).double().numpy())
    return found[0], found[1]


def fit_moments(models: Sequence[wwopt.ModelMetrics], error: Array, seed: int) -> Array:
    """Test errors as foretold from element moments by trees that were fitted to other networks'."""
    features = [
        [
            value
            for layer in metrics.counted
            for value in (
                abs(layer.element_mean) / math.sqrt(layer.element_variance),
                math.log(layer.element_variance),
                math.log(layer.kurtosis),
                math.log(layer.max_abs),
            )
        ]
        for metrics in models
    ]
    trees = ExtraTreesRegressor(n_estimators=200, random_state=seed)
    folds = KFold(min(8, len(models)), shuffle=True, random_state=seed)
    return np.asarray(cross_val_predict(trees, np.array(features), error, cv=folds))
