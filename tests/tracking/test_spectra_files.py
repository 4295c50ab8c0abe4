"""Spectra come back from a file as they were written."""

from pathlib import Path

import numpy as np

from wwopt.tracking.spectra_files import unpack_spectra, write_spectra


def test_fields_and_arrays_of_each_layer_come_back(tmp_path: Path) -> None:
    layers = [
        {"name": "a/b", "shape": (3, 2), "eigenvalues": np.array([1.0, 2.0]), "shuffled": None},
        {"name": "c", "shape": (2, 2), "eigenvalues": np.array([]), "shuffled": np.ones((2, 2))},
    ]
    write_spectra(tmp_path / "spectra.npz", layers)
    with np.load(tmp_path / "spectra.npz", allow_pickle=False) as stored:
        found = unpack_spectra(dict(stored))
    for layer, back in zip(layers, found, strict=True):
        assert back["name"] == layer["name"] and back["shape"] == list(layer["shape"])
        np.testing.assert_array_equal(back["eigenvalues"], layer["eigenvalues"])
    assert found[0]["shuffled"] is None and found[1]["shuffled"].shape == (2, 2)
