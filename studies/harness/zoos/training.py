"""Train one network of a zoo and record its spectra and losses at ¼, ½ and the end of training.

The record has the fields of a zoo folder: a line of JSON a network, and an npz file with, for each
checkpoint ("0" is the initialisation) and layer: `esd`, `esd_c` (of W minus its mean), `rand` (of
the shuffled W), `rand_c` (of the shuffled, centred W), `rand_c_top` (the top 8 of two more
shuffles), `shape` (rows, columns, slices), `stats` (mean, variance, kurtosis, largest |w|,
‖W - W_init‖, ‖W_init‖).
"""

import json
import math
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_model
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from harness.data import Data
from harness.zoos.tasks import TASKS, Task, draw_config, load_data
from wwopt.metrics.model_metrics import MIN_EIGENVALUES
from wwopt.spectra.spectrum import compute_spectrum
from wwopt.weights.matrices import WeightMatrix, read_weights

FRACTIONS = ("0.25", "0.5", "1.0")
Array = NDArray[np.float64]


def make_zoo(
    name: str,
    folder: Path,
    *,
    networks: int,
    data: Path | None = None,
    jobs: int = 1,
    keep: bool = False,
) -> Path:
    """Train those of the first networks of a task that the folder lacks; returns its records."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_0.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    known = {json.loads(line)["k"] for line in lines}
    missing = [index for index in range(networks) if index not in known]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train_network, name, k, folder, data, keep) for k in missing]
        for future in tqdm(as_completed(futures), desc=name, total=len(futures)):
            with path.open("a") as file:
                file.write(future.result() + "\n")
    return path


def train_network(
    name: str, index: int, folder: Path, data_folder: Path | None = None, keep: bool = False
) -> str:
    """Train one network, write its npz file, and return its line of JSON.

    Args:
        name: of the task.
        index: of the network; its configuration, initialisation and data order follow from it.
        folder: of the zoo.
        data_folder: where MNIST's test images and tinyshakespeare.txt lie.
        keep: write the weights of every checkpoint beside the npz, as safetensors.
    """
    torch.set_num_threads(1)
    task = TASKS[name]
    data = load_task(name, data_folder)
    config = draw_config(task, index)
    torch.manual_seed(task.stream + index)
    model = task.make_model()
    optimizer = make_optimizer(task, model, config)
    arrays: dict[str, Array] = {}
    start = {m.name: m.read().double() for m in _analysable(model)}
    _store(arrays, "0", model, start, index)
    record: dict[str, Any] = {"task": name, "part": 0, "k": index, "cfg": config, "hist": {}}
    began, running, total = time.perf_counter(), math.nan, 0.0
    checkpoints = {round(float(fraction) * task.epochs): fraction for fraction in FRACTIONS}
    for epoch in range(1, task.epochs + 1):
        losses = train_epoch(task, model, optimizer, data, config["batch"])
        total += losses.mean()
        for loss in losses:
            running = loss if math.isnan(running) else 0.98 * running + 0.02 * loss
        if not math.isfinite(running):
            record["diverged"] = True
            break
        if epoch in checkpoints:
            fraction = checkpoints[epoch]
            record["hist"][fraction] = _measure(task, model, data) | {
                "ema": float(running),
                "sotl": float(total),
                "t": time.perf_counter() - began,
            }
            _store(arrays, fraction, model, start, index)
            if keep:
                save_model(model, str(folder / f"{name}_0_{index}_{fraction}.safetensors"))
    record["names"] = list(start)
    np.savez_compressed(folder / f"{name}_0_{index}.npz", **arrays)
    return json.dumps(record)


@cache
def load_task(name: str, folder: Path | None) -> Data:
    """A task's data, read once a process."""
    return load_data(TASKS[name], folder)


def make_optimizer(task: Task, model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    """Set the dropouts, and make one parameter group a weight; the rest follows the one before."""
    drops = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for module, rate in zip(drops, config["drop"], strict=True):
        module.p = rate
    groups: list[dict[str, Any]] = []
    early: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "place" not in name:
            lr, momentum = config["lr"][len(groups)], config["mom"][len(groups)]
            sgd = task.optimizer is torch.optim.SGD
            rate = {"momentum": momentum} if sgd else {"betas": (momentum, 0.99)}
            groups.append({"params": [parameter, *early], "lr": lr, **rate})
            early = []
        elif groups:
            groups[-1]["params"].append(parameter)
        else:
            early.append(parameter)
    return task.optimizer(groups, weight_decay=config.get("weight_decay", 0.0))


def train_epoch(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, batch: int
) -> Array:
    """One epoch (of text: 50 batches); returns the batches' losses."""
    model.train()
    x, y = data.train
    order = torch.randperm(len(x))
    batches = order.split(batch)[:50] if task.data == "text" else order.split(batch)
    losses = []
    for rows in batches:
        loss = cross_entropy(model(x[rows]).flatten(0, -2), y[rows].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).double().numpy()


@torch.no_grad()
def _measure(task: Task, model: nn.Module, data: Data) -> dict[str, float]:
    """Losses and accuracies without dropout, on training, validation and test data."""
    model.eval()
    found: dict[str, float] = {}
    few = 400 if task.data == "text" else 4000
    for key, (x, y) in (("tr", data.train), ("va", data.validation), ("te", data.test)):
        if key == "tr":
            x, y = x[:: max(1, len(x) // few)], y[:: max(1, len(y) // few)]
        logits = torch.cat([model(part) for part in x.split(500)]).flatten(0, -2)
        targets = y if y.dtype.is_floating_point else y.flatten()
        best = logits.argmax(1)
        right = (
            targets.gather(1, best[:, None])[:, 0]
            if targets.dtype.is_floating_point
            else (best == targets).float()
        )
        names = {"tr": ("trl", "tra"), "va": ("val", "vaa"), "te": ("tel", "tea")}[key]
        found[names[0]] = float(cross_entropy(logits, targets))
        found[names[1]] = float(right.mean())
        if key == "va" and task.data != "text":
            for count in (100, 300):
                found[f"vaa{count}"] = float(right[:count].mean())
                found[f"val{count}"] = float(cross_entropy(logits[:count], targets[:count]))
    return found


def _analysable(model: nn.Module) -> list[WeightMatrix]:
    return [
        matrix
        for matrix in read_weights(model).matrices
        if matrix.shape[1] * matrix.num_slices >= MIN_EIGENVALUES and matrix.name != "place"
    ]


def _store(
    arrays: dict[str, Array],
    checkpoint: str,
    model: nn.Module,
    start: dict[str, torch.Tensor],
    seed: int,
) -> None:
    for matrix in _analysable(model):
        W = matrix.read().double()
        spectrum = compute_spectrum(matrix, seed=seed)
        assert spectrum.shuffled_eigenvalues is not None and spectrum.shuffled_tops is not None
        permuted = W.flatten()[torch.randperm(W.numel(), generator=_generator(seed))].view_as(W)
        initial = start[matrix.name]
        values = {
            "esd": spectrum.eigenvalues,
            "esd_c": _eigenvalues(W - W.mean()),
            "rand": _eigenvalues(permuted),
            "rand_c": spectrum.shuffled_eigenvalues,
            "rand_c_top": spectrum.shuffled_tops[1:],
            "shape": np.array([W.shape[1], W.shape[2], W.shape[0]], dtype=np.float64),
            "stats": np.array(
                [
                    spectrum.element_mean,
                    spectrum.element_variance,
                    spectrum.kurtosis,
                    spectrum.max_abs,
                    float((W - initial).norm()),
                    float(initial.norm()),
                ],
                dtype=np.float64,
            ),
        }
        for what, value in values.items():
            arrays[f"{checkpoint}/{matrix.name}/{what}"] = np.asarray(value)


def _eigenvalues(W: torch.Tensor) -> Array:
    """Of the smaller Gram matrix of every slice, pooled, ascending."""
    W = W if W.shape[1] >= W.shape[2] else W.transpose(1, 2)
    values: Array = torch.linalg.eigvalsh(W.transpose(1, 2) @ W).flatten().clamp(min=0).numpy()
    return np.sort(values)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
