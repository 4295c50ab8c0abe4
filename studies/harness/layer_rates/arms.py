"""The arms of `fine_tune_minilm.py`: how rates get from a point of a search to every layer.

All networks of a seed are lines of JSON in FOLDER/seed-N.jsonl; what is there is not trained again.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from scipy.stats import qmc

import wwopt
from harness.layer_rates.fine_tuning import fine_tune
from harness.layer_rates.minilm import DEPTH, MiniLM
from harness.layer_rates.speakers import SPEAKERS, load_speakers
from wwopt.study.spec import derive_seed
from wwopt.study.temp_balance import Rule

RATES = (5e-5, 1.5e-3)  # of AdamW, the same for every arm and every knot, in their logarithm
DECAYS = (0.5, 1.0)  # from a block to the one beneath; ULMFiT's is .38, BERT's heirs' .8 to .95
DIMENSIONS = {"one rate": 1, "geometric decay": 2, "LLR": 1, "TempBalance": 1, "per layer": 3}
RULES: dict[str, Rule] = {"LLR": "LLR", "TempBalance": "TempBalance"}
Record = dict[str, Any]


def run_seed(
    seed: int, arms: tuple[str, ...], trials: int, folder: Path, data: Path | None
) -> list[Record]:
    """All networks of a seed, trained or read; arms in turn, so that what else runs hits all."""
    torch.set_num_threads(1)
    path = folder / f"seed-{seed}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    known = {(r["arm"], r["number"]): r for r in map(json.loads, lines)}
    space = find_space()
    parts = load_speakers(data, seed)
    for number in range(trials):
        for arm in arms:
            if (arm, number) in known:
                continue
            point = draw_points(arm, trials, seed)[number]
            rates = spread_rates(arm, point, space)
            # A seed for each number, the same in every arm: heads and orders are paired.
            found = fine_tune(rates, parts, rule=RULES.get(arm), seed=derive_seed(seed, number))
            record = {"arm": arm, "number": number, "point": list(point), **found}
            ends = {"word": rates["word"], "head": rates["head"]}
            known[arm, number] = record | {"rates": ends}
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(known[arm, number]) + "\n")
    return [known[arm, number] for arm in arms for number in range(trials)]


def find_space() -> wwopt.LayerSpace:
    """The space of MiniLM's learning rates: a profile over depth with three knots."""
    return wwopt.LayerSpace.from_model(
        MiniLM(SPEAKERS), lr=RATES, dropout=None, momentum=None, tie="depth"
    )


def draw_points(arm: str, trials: int, seed: int) -> NDArray[np.float64]:
    """A Latin hypercube, (trials, dimensions) in [0, 1); of one dimension the same in all arms."""
    sampler = qmc.LatinHypercube(DIMENSIONS[arm], rng=np.random.default_rng(derive_seed(seed, 0)))
    points: NDArray[np.float64] = sampler.random(trials)
    return points


def spread_rates(arm: str, point: NDArray[np.float64], space: wwopt.LayerSpace) -> dict[str, float]:
    """Layer → peak of its rate, without the factors of a rule."""
    knots = [RATES[0] * (RATES[1] / RATES[0]) ** float(u) for u in point]
    if arm == "per layer":
        names = list(space.distributions(0))
        trial = optuna.trial.FixedTrial(dict(zip(names, knots, strict=True)))
        return dict(space.suggest(trial).lr)
    decay = 1.0
    if arm == "geometric decay":
        decay = DECAYS[0] + (DECAYS[1] - DECAYS[0]) * float(point[1])
    return {layer: knots[0] * decay ** depth_below_head(layer) for layer in space.layers}


def depth_below_head(layer: str) -> int:
    """0 for the head, 1 for the last block, 7 for the embeddings."""
    if layer == "head":
        return 0
    return DEPTH - int(layer.split(".")[1]) if layer.startswith("blocks.") else DEPTH + 1
