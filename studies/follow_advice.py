"""Does it pay to follow the advice: to freeze layers, to let learning rates follow alpha?

    python studies/follow_advice.py --data FOLDER        # about 3 minutes on 2 cores

`mnist_mlp.py`'s network, 10 epochs on 3,000 images, analysed after each; 10 paired seeds and three
learning rates for all layers (momentum .5, dropout .2). Each seed trains plainly, freezing the
layers that have stopped moving (`freeze_layers`), and with TempBalance's factors
(`scale_learning_rates`). Equal epochs; CPU seconds of training alone, and of the analyses.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch
from torch.nn.functional import cross_entropy

import wwopt
from harness.markdown_tables import format_markdown
from harness.score_statistics import mean_interval
from wwopt.study.convergence import freeze_layers
from wwopt.study.temp_balance import scale_learning_rates

ARMS = ("plain", "freezing", "TempBalance")
RATES = (0.01, 0.05, 0.2)
EPOCHS, IMAGES, BATCH = 10, 3000, 64
COLUMNS = ("learning rate", "training", "layers frozen, % of epochs", "test error, %", "less plain")
COLUMNS += ("test loss", "less plain", "training, CPU s", "analyses, CPU s")


def train(arm: str, rate: float, seed: int) -> dict[str, float]:
    """Train one network; returns its test error and loss, what was frozen, and CPU seconds."""
    import mnist_mlp  # reads WWOPT_DATA

    (x, y), _, (x_test, y_test) = mnist_mlp.load_data()
    x, y = x[:IMAGES], y[:IMAGES]
    torch.manual_seed(seed)
    conditions = wwopt.Conditions(seed=seed, epochs=EPOCHS)
    model = mnist_mlp.make_model(conditions)
    layers = [name for name, _ in model.named_children() if name.startswith("l")]
    hp = wwopt.LayerHyperparameters(
        lr=dict.fromkeys(layers, rate),
        momentum=dict.fromkeys(layers, 0.5),
        dropout=dict.fromkeys(layers[:-1], 0.2),
    )
    optimizer = hp.optimizer(hp.apply_dropout(model), torch.optim.SGD)
    spent, frozen, start = 0.0, 0, time.process_time()
    with wwopt.record(optuna.create_study().ask(), conditions=conditions, every=1) as recorder:
        for _ in range(EPOCHS):
            begun = time.process_time()
            model.train()
            for batch in torch.randperm(IMAGES).split(BATCH):
                loss = cross_entropy(model(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            spent += time.process_time() - begun
            advice = recorder.step(model, train_loss=loss.item())
            frozen += sum(not p.requires_grad for n, p in model.named_parameters() if "weight" in n)
            if arm == "freezing":
                freeze_layers(optimizer, advice.convergence)
            elif arm == "TempBalance":
                scale_learning_rates(optimizer, advice.lr_factors)
    whole = time.process_time() - start
    model.eval()
    with torch.no_grad():
        logits = model(x_test)
    return {
        "error": 100.0 * float((logits.argmax(1) != y_test).double().mean()),
        "loss": float(cross_entropy(logits, y_test)),
        "frozen": 100.0 * frozen / (EPOCHS * len(layers)),  # % of layers times epochs
        "train": spent,
        "analysis": whole - spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder; else the variable WWOPT_DATA")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    if given.data is not None:
        os.environ["WWOPT_DATA"] = str(given.data.resolve())
    # Arms innermost: what else the machine does falls on all of them.
    cases = [(a, r, s) for r, s, a in product(RATES, range(given.seeds), ARMS)]
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        found = dict(zip(cases, pool.map(train, *zip(*cases, strict=True)), strict=True))
    rows = []
    for rate, arm in product(RATES, ARMS):
        runs = [found[arm, rate, seed] for seed in range(given.seeds)]
        plain = [found["plain", rate, seed] for seed in range(given.seeds)]
        cells = [f"{np.mean([r['frozen'] for r in runs]):.0f}"]
        for key, digits in (("error", 2), ("loss", 3)):
            less = np.array([r[key] - p[key] for r, p in zip(runs, plain, strict=True)])
            cells.append(f"{np.mean([r[key] for r in runs]):.{digits}f}")
            cells.append("" if arm == "plain" else f"{mean_interval(less):+.{digits}f}")
        cells += [f"{np.mean([r[key] for r in runs]):.2f}" for key in ("train", "analysis")]
        rows.append([f"{rate:g}", arm, *cells])
    print(format_markdown(pd.DataFrame(rows, columns=COLUMNS), index=False))


if __name__ == "__main__":
    main()
