"""The spectra of layers in one file of numpy's, whole."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_spectra(path: Path, layers: Iterable[Mapping[str, Any]]) -> None:
    """Write the fields of each layer's `wwopt.LayerSpectrum`.

    Args:
        path: ends in `.npz`.
        layers: one after the other: a name, numbers and texts, and arrays or None.
    """
    arrays: dict[str, Any] = {}
    fields: list[dict[str, Any]] = []
    for index, layer in enumerate(layers):
        arrays |= {f"{index}/{k}": v for k, v in layer.items() if isinstance(v, np.ndarray)}
        fields.append({k: v for k, v in layer.items() if not isinstance(v, np.ndarray)})
    # Not compressed: of doubles that differ in every digit a twentieth would be saved.
    np.savez(path, layers=np.array(json.dumps(fields)), **arrays)


def unpack_spectra(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The layers of a file that `write_spectra` wrote, from its arrays."""
    layers: list[dict[str, Any]] = json.loads(str(stored["layers"]))
    for place, values in stored.items():
        index, slash, field = place.partition("/")
        if slash:
            layers[int(index)][field] = values
    return layers
