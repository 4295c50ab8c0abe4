"""What does `--quick` lose? Layers of trained networks and made ones, estimated and in full.

    python benchmarks/error_quick.py --data FOLDER --out quick      # about 15 minutes of a core

Trains 24 MLPs 784-1024-1024-1024-10 and 16 MLPs 784-2048-2048-1024-10 on 3,000 MNIST images with
hyperparameters at random (some diverge, some hardly train), and keeps them in --out. Each layer
with both sides from 1,024 on is decomposed and estimated, the estimate forced on: in use, layers
below 1,536 columns stay exact. Then layers of sixteen kinds of entries in two shapes, with traps
and without: who finds them? Then layers that were damaged, or changed harmlessly: what does the
gate say? Windows of the layers for comparison. Results: docs/large-models.md. FOLDER is that of the
studies of MNIST.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries below are loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from scipy.stats import kendalltau  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from tqdm import tqdm  # noqa: E402

from wwopt import check  # noqa: E402
from wwopt.metrics.analysis import metrics_from_spectra  # noqa: E402
from wwopt.metrics.model_metrics import LayerMetrics  # noqa: E402
from wwopt.metrics.verdicts import judge_layer  # noqa: E402
from wwopt.spectra.power_law import averaged_hill  # noqa: E402
from wwopt.spectra.spectrum import compute_spectrum  # noqa: E402
from wwopt.spectra.trap_screen import may_have_traps  # noqa: E402
from wwopt.weights.matrices import WeightMatrix, read_weights  # noqa: E402

SMALLEST = 1024  # columns of the layers that are compared
# Name of the networks → layers, epochs to draw from, first seed of the hyperparameters, how many.
NETWORKS = {
    "mlp": ((784, 1024, 1024, 1024, 10), (1, 2, 4, 6), 0, 24),
    "big": ((784, 2048, 2048, 1024, 10), (1, 1, 2, 3), 100, 16),
}
WINDOWS = (128, 256, 512)  # sides
SHAPES = ((1024, 1024), (3000, 1024))
CHECKED = 8  # networks of which a layer is damaged
DRAWS = 4  # of every kind of entries in every shape


def train(path: Path, name: str, seed: int) -> None:
    """Train a network with hyperparameters at random."""
    from mnist_mlp import load_data
    from networks import mlp

    widths, epochs, first, _ = NETWORKS[name]
    (images, labels), *_ = load_data()
    images, labels = images[:3000], labels[:3000]
    chance = np.random.default_rng(first + seed)
    torch.manual_seed(seed)
    network = mlp(*widths)
    lr = float(10 ** chance.uniform(-2.5, -0.3))
    momentum = float(chance.choice([0.0, 0.9]))
    decay = float(chance.choice([0.0, 1e-3, 1e-2]))
    length = int(chance.choice(epochs))
    optimizer: torch.optim.Optimizer = torch.optim.SGD(
        network.parameters(),
        lr=lr / 4.0 if momentum else lr,
        momentum=momentum,
        weight_decay=decay,
    )
    if seed % 3 == 2:
        lr = float(10 ** chance.uniform(-4, -2.3))
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=decay)
    for _ in range(length):
        for batch in torch.randperm(len(images)).split(32 if seed % 2 else 64):
            loss = cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    save_file(network.state_dict(), path)


def measure(matrix: WeightMatrix, *, quick: bool) -> LayerMetrics:
    spectrum = compute_spectrum(matrix, full_shuffle=False, quick_from=1 if quick else None)
    return metrics_from_spectra([spectrum]).layers[0]


def order(found: list[tuple[LayerMetrics, LayerMetrics]], name: str) -> float:
    """Kendall's tau between the two ways."""
    full, quick = ([getattr(x, name) for x in side] for side in zip(*found, strict=True))
    return float(kendalltau(full, quick)[0])


def hill_of_windows(matrix: WeightMatrix, size: int, most: int = 256) -> float:
    """Hill estimate of at most so many square windows, pooled (FARMS, ICML 2025)."""
    weights = matrix.read()[0].double().numpy()
    corners = [
        (row, column)
        for row in range(0, weights.shape[0] - size + 1, size)
        for column in range(0, weights.shape[1] - size + 1, size)
    ]
    if len(corners) > most:
        chosen = np.random.default_rng(0).choice(len(corners), most, replace=False)
        corners = [corners[i] for i in chosen]
    windows = [weights[row : row + size, column : column + size] for row, column in corners]
    return averaged_hill(np.concatenate([np.linalg.eigvalsh(w.T @ w) for w in windows]))


def compare_windows(folder: Path) -> None:
    """Print how windows of the layers order them, whose estimate would cost about as much."""
    exact: dict[str, list[float]] = {}
    found: dict[str, list[list[float]]] = {}
    for path in tqdm(sorted(folder.glob("*.safetensors")), desc="windows"):
        for matrix in read_weights(path).matrices:
            if matrix.shape[1] >= SMALLEST:
                kind = f"{path.name.split('-')[0]} {matrix.name}, {matrix.shape}"
                exact.setdefault(kind, []).append(measure(matrix, quick=False).hill)
                tried = [hill_of_windows(matrix, size) for size in WINDOWS]
                found.setdefault(kind, []).append(tried)
    heads = " | ".join(f"windows of {size}" for size in WINDOWS)
    print(f"\n| tau of Hill | {heads} |\n|---|{'---|' * len(WINDOWS)}")
    for kind, tried in found.items():
        taus = [float(kendalltau(exact[kind], column)[0]) for column in zip(*tried, strict=True)]
        print(f"| {kind} | {' | '.join(f'{tau:.3f}' for tau in taus)} |")


def compare_trained(folder: Path) -> None:
    """Print, for each layer of each kind of network, how the estimate orders and misses."""
    pairs: dict[str, list[tuple[LayerMetrics, LayerMetrics]]] = {}
    for path in tqdm(sorted(folder.glob("*.safetensors")), desc="networks"):
        for matrix in read_weights(path).matrices:
            if matrix.shape[1] >= SMALLEST:
                kind = f"{path.name.split('-')[0]} {matrix.name}, {matrix.shape}"
                found = measure(matrix, quick=False), measure(matrix, quick=True)
                pairs.setdefault(kind, []).append(found)
    print(
        "| layer | networks | tau of Hill | its error: mean, deviation | tau of alpha | verdicts |"
    )
    print("|---|---|---|---|---|---|")
    everything = [pair for found in pairs.values() for pair in found]
    for kind, found in pairs.items():
        errors = np.array([q.hill - f.hill for f, q in found])
        alike = sum(judge_layer(f).verdict == judge_layer(q).verdict for f, q in found)
        print(
            f"| {kind} | {len(found)} | {order(found, 'hill'):.3f} | {errors.mean():+.3f}, "
            f"{errors.std():.3f} | {order(found, 'alpha'):.3f} | {alike} of {len(found)} |"
        )
    alike = sum((f.num_traps > 0) == (q.num_traps > 0) for f, q in everything)
    print(f"\ntraps as in full: {alike} of {len(everything)} layers")
    apart = np.array([abs(q.alpha - f.alpha) / q.sigma for f, q in everything])
    relative = np.array([abs(q.alpha / f.alpha - 1.0) for f, q in everything])
    print(
        f"alpha: off by {np.median(relative):.1%} in the middle, "
        f"{np.quantile(relative, 0.9):.0%} in nine of ten; within its own error in "
        f"{np.mean(apart < 1):.0%}, within twice that in {np.mean(apart < 2):.0%}"
    )
    # Shapes mix: each Hill estimate less that of a random matrix of its shape.
    taken = [[x.hill - x.hill_random for x in side] for side in zip(*everything, strict=True)]
    print(f"across shapes, less the random matrix's: tau {kendalltau(*taken)[0]:.3f}")


def draw_kinds(
    chance: np.random.Generator, shape: tuple[int, int]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Entries of sixteen kinds; those with few huge ones sit at the edge of having traps."""
    normal = chance.standard_normal(shape)
    yield "Gaussian", normal
    for degrees in (3, 4, 5, 6, 8):
        yield f"Student t, {degrees}", chance.standard_t(degrees, shape)
    for share in (0.5, 0.1, 0.05):
        yield f"{1 - share:.0%} zeros", normal * (chance.random(shape) < share)
    yield "Laplace", chance.laplace(size=shape)
    for count, size in ((1, 30), (1, 40), (3, 45), (10, 60), (5, 35), (2, 100)):
        entries = normal.copy()
        at = chance.choice(entries.size, count, replace=False)
        entries.flat[at] = size * chance.choice([-1, 1], count)
        yield f"{count} entries of {size} deviations", entries


def compare_traps() -> None:
    """Print how often the two ways agree about traps, and how often a shuffle was spared."""
    rows: dict[str, list[tuple[bool, bool, bool]]] = {}
    for shape in SHAPES:
        for seed in range(DRAWS):
            for kind, entries in draw_kinds(np.random.default_rng(seed), shape):
                weights = torch.tensor(entries.astype(np.float32))
                matrix = read_weights({"layer.weight": weights}).matrices[0]
                full, quick = measure(matrix, quick=False), measure(matrix, quick=True)
                shuffled = may_have_traps(
                    *matrix.shape,
                    variance=quick.element_variance,
                    kurtosis=quick.kurtosis,
                    max_abs=quick.max_abs,
                    mean=quick.element_mean,
                )
                row = full.num_traps > 0, quick.num_traps > 0, shuffled
                rows.setdefault(kind, []).append(row)
    print("\n| entries | layers | with traps, in full | with traps, quickly | alike | shuffled |")
    print("|---|---|---|---|---|---|")
    for kind, found in [*rows.items(), ("all", [row for rows_ in rows.values() for row in rows_])]:
        a, b, c = (sum(column) for column in zip(*found, strict=True))
        alike = sum(x == y for x, y, _ in found)
        print(f"| {kind} | {len(found)} | {a} | {b} | {alike} | {c} |")


def compare_gates(folder: Path) -> None:
    """Print what `check` and `check --quick` say of damaged and of harmlessly changed layers."""
    from harness.damage import ONE_LAYER, quantize

    grey = ("4 bits per row", "pruned 50 %", "pruned 80 %", "pruned 90 %")  # as calibrate_gate.py
    harmless = {"bf16": lambda w: w.bfloat16().float(), "int8 per row": lambda w: quantize(w, 8)}
    rows: dict[str, list[tuple[bool, bool]]] = {}
    for path in tqdm(sorted(folder.glob("big-*.safetensors"))[:CHECKED], desc="checks"):
        weights = load_file(path)["l1.weight"]
        for kind, edit in {**ONE_LAYER, **harmless}.items():
            torch.manual_seed(0)
            sides = {"l1.weight": weights}, {"l1.weight": edit(weights)}
            found = [not check(*sides, quick=quick).passed for quick in (False, True)]
            rows.setdefault(kind, []).append((found[0], found[1]))
    groups = {
        "damage": [row for kind in ONE_LAYER if kind not in grey for row in rows[kind]],
        "harmless": [row for kind in harmless for row in rows[kind]],
        "neither": [row for kind in grey for row in rows[kind]],
    }
    print("\n| a layer of 2,048 × 2,048 | cases | broken by `check` | by `check --quick` | alike |")
    print("|---|---|---|---|---|")
    for group, found in groups.items():
        full, quick = (sum(column) for column in zip(*found, strict=True))
        alike = sum(a == b for a, b in found)
        print(f"| {group} | {len(found)} | {full} | {quick} | {alike} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder; else the variable WWOPT_DATA")
    parser.add_argument("--out", type=Path, default=Path("quick"))
    given = parser.parse_args()
    if given.data is not None:
        os.environ["WWOPT_DATA"] = str(given.data.resolve())
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "studies"))
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, (*_, count) in NETWORKS.items():
        for seed in tqdm(range(count), desc=f"training {name}"):
            path = given.out / f"{name}-{seed}.safetensors"
            if not path.exists():
                train(path, name, seed)
    compare_trained(given.out)
    compare_windows(given.out)
    compare_traps()
    compare_gates(given.out)


if __name__ == "__main__":
    main()
