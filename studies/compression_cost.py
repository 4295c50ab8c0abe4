"""What does `wwopt compress` cost, setting by setting, and does the gate's verdict tell it?

    python studies/compression_cost.py --data FOLDER --cache FOLDER  # 10 minutes, 1 core

FOLDER of --data holds MNIST's test images (t10k, IDX, gzip); without it only scikit-learn's digits
are used. The networks are those of `calibrate_gate.py`, the seeds others. Each is compressed by
each setting, without training on. A cached network is not trained again.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import nn
from tqdm import tqdm

from harness.damage import NETWORKS, load_data, train
from harness.markdown_tables import format_markdown
from wwopt.compression import compress

FIRST_SEED = 100  # those of calibrate_gate.py are below
SETTINGS: dict[str, dict[str, Any]] = {
    "8 bits": {"bits": 8},
    "4 bits": {"bits": 4},
    "4 bits, groups of 32": {"bits": 4, "group": 32},
    "4 bits by alpha": {"bits": 4, "by": "alpha"},
    "3 bits": {"bits": 3},
    "3 bits, clipped": {"bits": 3, "clip": True},
    "3 bits by alpha, clipped": {"bits": 3, "by": "alpha", "clip": True},
    "2 bits": {"bits": 2},
    "2 bits, clipped": {"bits": 2, "clip": True},
    "50 % zeros": {"sparsity": 0.5},
    "50 % zeros by alpha": {"sparsity": 0.5, "by": "alpha"},
    "80 % zeros": {"sparsity": 0.8},
    "80 % zeros by alpha": {"sparsity": 0.8, "by": "alpha"},
    "80 % zeros by alpha, epsilon .1": {"sparsity": 0.8, "by": "alpha", "epsilon": 0.1},
    "rank erg": {"rank": "erg"},
    "rank tail": {"rank": "tail"},
    "90 % of energy": {"rank": 0.9},
    "rank erg, 4 bits": {"rank": "erg", "bits": 4},
    "50 % zeros, 4 bits": {"sparsity": 0.5, "bits": 4},
}


def find_networks(data: dict[str, Any], seeds: int, cache: Path) -> list[tuple[str, nn.Module]]:
    """Trained networks, by kind and seed."""
    cache.mkdir(parents=True, exist_ok=True)
    found = []
    wanted = [(name, seed) for name in NETWORKS for seed in range(FIRST_SEED, FIRST_SEED + seeds)]
    for name, seed in tqdm(wanted, desc="networks"):
        task, make, epochs = NETWORKS[name]
        if task not in data:
            continue
        torch.manual_seed(seed)
        model = make()
        file = cache / f"{name}-{seed}.pt"
        if file.exists():
            model.load_state_dict(torch.load(file, weights_only=True))
        else:
            train(model, data[task][0], epochs, seed)
            torch.save(model.state_dict(), file)
        found.append((name, model.eval()))
    return found


def accuracy(model: nn.Module, held_out: tuple[torch.Tensor, torch.Tensor]) -> float:
    with torch.no_grad():
        return float((model(held_out[0]).argmax(1) == held_out[1]).double().mean())


def measure(name: str, model: nn.Module, data: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each setting."""
    task, make, _ = NETWORKS[name]
    before, copy, rows = accuracy(model, data[task][2]), make().eval(), []
    for setting, options in SETTINGS.items():
        try:
            found = compress(model, **options, limits=False)
        except ValueError:  # no smaller
            continue
        copy.load_state_dict(found.weights)
        lost = 100.0 * (before - accuracy(copy, data[task][2]))
        row = {"network": name, "setting": setting, "lost": lost, "ratio": found.ratio}
        rows.append(row | {"broken": len(found.broken), "layers": len(found.layers)})
    return rows


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a setting, in their order."""
    table = {}
    for setting in SETTINGS:
        own = rows[rows["setting"] == setting]
        if own.empty:
            continue
        table[setting] = {
            "times smaller": f"{own['ratio'].mean():.1f}",
            "points lost, mean": f"{own['lost'].mean():.1f}",
            "median": f"{own['lost'].median():.1f}",
            "worst": f"{own['lost'].max():.1f}",
            "layers called broken": f"{100 * own['broken'].sum() / own['layers'].sum():.0f} %",
            "networks": str(len(own)),
        }
    frame = pd.DataFrame.from_dict(table, orient="index")
    frame.index.name = "setting"
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with MNIST's test images")
    parser.add_argument("--cache", type=Path, default=Path("compression-cost"))
    parser.add_argument("--seeds", type=int, default=4, help="networks of each kind")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(args.data)
    networks = find_networks(data, args.seeds, args.cache)
    rows = [
        row for name, model in tqdm(networks, desc="settings") for row in measure(name, model, data)
    ]
    frame = pd.DataFrame(rows)
    print(format_markdown(summarize(frame)))
    share = frame["broken"] / frame["layers"]
    tau = stats.kendalltau(share, frame["lost"]).statistic
    print(f"\nKendall's tau of the share of layers called broken with the points lost: {tau:.2f}")
    harmless = frame[frame["lost"] <= 0.5]
    called = (harmless["broken"] > 0).mean()
    print(f"{len(harmless)} cost at most half a point; {100 * called:.0f} % have a broken layer.")
    passed = frame[frame["broken"] == 0]
    print(f"{len(passed)} have none; the worst of them lost {passed['lost'].max():.1f} points.")


if __name__ == "__main__":
    main()
