"""Read a zoo folder: configurations, losses and spectra of trained networks.

The format is what `objective_vs_test_error.py make` writes; `training.py` says what each field
is.
"""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import wwopt

CHECKPOINTS = ("0", "0.25", "0.5", "1.0")  # of training; "0" is the initialisation


@dataclass(frozen=True)
class Network:
    """One trained network of a zoo."""

    task: str
    index: int
    config: dict[str, Any]  # "lr", "mom" per layer, "drop" per dropout, and more
    history: dict[str, dict[str, float]]  # checkpoint → losses and accuracies
    diverged: bool  # its loss became non-finite
    names: tuple[str, ...]  # analysed layers
    path: Path  # of its arrays

    def spectra(self, checkpoint: str) -> tuple[wwopt.LayerSpectrum, ...]:
        """The layers' spectra at a checkpoint."""
        with np.load(self.path) as arrays:
            return tuple(_layer(arrays, checkpoint, name) for name in self.names)

    def movement(self, checkpoint: str) -> tuple[float, ...]:
        """‖W - W_init‖ / ‖W_init‖ of each layer; needs the initial weights."""
        with np.load(self.path) as arrays:
            stats = [arrays[f"{checkpoint}/{name}/stats"] for name in self.names]
        return tuple(float(s[4] / s[5]) for s in stats)

    @cached_property
    def _metrics(self) -> dict[str, wwopt.ModelMetrics]:
        return {}

    def metrics(self, checkpoint: str) -> wwopt.ModelMetrics:
        """The layers' metrics at a checkpoint, computed once."""
        if checkpoint not in self._metrics:
            self._metrics[checkpoint] = wwopt.metrics_from_spectra(self.spectra(checkpoint))
        return self._metrics[checkpoint]

    def outcome(self, key: str, checkpoint: str = "1.0") -> float:
        """A loss or accuracy, e.g. "tel" (test loss), "tea" (test accuracy); NaN if diverged."""
        return self.history.get(checkpoint, {}).get(key, math.nan)


def read_zoo(folder: Path) -> list[Network]:
    """All networks of a zoo folder, in the order of their indices.

    Raises:
        FileNotFoundError: if the folder holds no records.
    """
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no .jsonl file, so it is no zoo folder")
    networks = []
    for file in files:
        for line in file.read_text().splitlines():
            record = json.loads(line)
            arrays = folder / f"{record['task']}_{record['part']}_{record['k']}.npz"
            networks.append(
                Network(
                    task=record["task"],
                    index=record["k"],
                    config=record["cfg"],
                    history=record.get("hist", {}),
                    diverged=bool(record.get("diverged")),
                    names=tuple(record.get("names", ())),
                    path=arrays,
                )
            )
    return sorted(networks, key=lambda network: network.index)


def _layer(arrays: Any, checkpoint: str, layer: str) -> wwopt.LayerSpectrum:
    esd, shuffled, tops, shape, stats = (
        arrays[f"{checkpoint}/{layer}/{what}"]
        for what in ("esd", "rand_c", "rand_c_top", "shape", "stats")
    )
    rows, columns, slices = (int(size) for size in shape)
    return wwopt.LayerSpectrum(
        name=layer,
        shape=(max(rows, columns), min(rows, columns)),
        num_slices=slices,
        eigenvalues=esd,
        shuffled_eigenvalues=shuffled,
        shuffled_tops=np.vstack([np.sort(shuffled)[: -tops.shape[1] - 1 : -1], tops]),
        element_mean=float(stats[0]),
        element_variance=float(stats[1]),
        kurtosis=float(stats[2]),
        max_abs=float(stats[3]),
    )
