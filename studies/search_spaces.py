"""Which way of tying layers together comes nearest to a known optimum, within which budget?

    python studies/search_spaces.py                 # 8 minutes on 2 cores for 5 seeds

A synthetic problem without training: 18 layers with a learning rate, a dropout and a momentum each.
The best values follow a smooth profile over depth, which favours depth knots by construction, plus
a residual of each layer's own, a share of the range. What is printed is the mean squared distance
of the best trial from the optimum, in units of that of a random point. Results: docs/studies.md.
"""

import argparse
from collections.abc import Callable
from typing import Literal

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

import wwopt
from harness.markdown_tables import format_markdown
from wwopt.tuning.samplers.refinement import make_refining_sampler
from wwopt.tuning.samplers.sampling import choose_sampler, make_sampler

LAYERS = 18
RANGES = {"lr": (1e-3, 1.0), "dropout": (0.0, 0.5), "momentum": (0.0, 0.9)}
RANDOM = 1 / 6  # mean squared distance of two uniform points
Distance = Callable[[wwopt.LayerHyperparameters], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, nargs="+", default=[45, 100])
    parser.add_argument("--residuals", type=float, nargs="+", default=[0.05, 0.15])
    given = parser.parse_args()
    searches: list[tuple[str, int | None]] = [("global", None), ("depth", None), ("layer", None)]
    searches += [("coarse-to-fine", percent) for percent in (30, 50, 70)]
    columns = [(n, r) for r in given.residuals for n in given.trials]
    rows = []
    for tie, percent in tqdm(searches):
        cells = []
        for trials, residual in columns:
            coarse = None if percent is None else trials * percent // 100
            found = [search(tie, coarse, trials, residual, seed) for seed in range(given.seeds)]
            cells.append(f"{np.mean(found):.3f}")
        label = tie if percent is None else f"{tie}, {percent} % coarse"
        rows.append([label, *cells])
    heads = ["tie", *(f"{n} trials, residual {r:g}" for n, r in columns)]
    print(format_markdown(pd.DataFrame(rows, columns=heads), index=False))


def search(
    tie: Literal["global", "depth", "layer", "coarse-to-fine"],
    coarse: int | None,
    trials: int,
    residual: float,
    seed: int,
) -> float:
    """Distance of the best trial from the optimum."""
    modules: list[nn.Module] = []
    for _ in range(LAYERS):
        modules += [nn.Linear(2, 2), nn.Dropout()]
    model = nn.Sequential(*modules)
    space = wwopt.LayerSpace.from_model(model, tie=tie, coarse_trials=coarse, **RANGES)
    distance = make_problem(residual, seed)
    kind = choose_sampler(len(space.distributions(0)), trials)
    study = optuna.create_study()
    for number in range(trials):
        sampler = make_sampler(kind, 1000 * seed + number)
        refine = make_refining_sampler(space, sampler, seed=seed)
        study.sampler = refine if tie == "coarse-to-fine" else sampler
        trial = study.ask()
        study.tell(trial, distance(space.suggest(trial)))
    return study.best_value


def make_problem(residual: float, seed: int) -> Distance:
    """The distance of hyperparameters from an optimum, in units of a random point's."""
    rng = np.random.default_rng([seed, 7])
    depth = np.linspace(0.0, 1.0, LAYERS)
    profile = np.stack(
        [np.interp(depth, [0, 0.5, 1], rng.uniform(0.2, 0.8, 3)) for _ in RANGES]
    ) + 0.05 * np.sin(2 * np.pi * depth)
    goal = np.clip(profile + residual * rng.standard_normal(profile.shape), 0.0, 1.0)

    def measure(hp: wwopt.LayerHyperparameters) -> float:
        found = np.stack([to_unit(kind, getattr(hp, kind)) for kind in RANGES])
        return float(np.square(found - goal).mean() / RANDOM)

    return measure


def to_unit(kind: str, values: dict[str, float]) -> NDArray[np.float64]:
    """Values in units of their range, of its logarithm for learning rates: shape (LAYERS,)."""
    low, high = RANGES[kind]
    x = np.array(list(values.values()))
    if kind == "lr":
        low, high, x = np.log(low), np.log(high), np.log(x)
    unit: NDArray[np.float64] = (x - low) / (high - low)
    return unit


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main()
