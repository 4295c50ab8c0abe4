"""The pictures of a model are files with safe names, in the model's order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.metrics.pictures.plots import slugify, write_plots

if TYPE_CHECKING:
    from fixtures.weights.layers import SpectrumOf


pytestmark = pytest.mark.usefixtures("nothing_of_matplotlib_is_changed")
RNG = np.random.default_rng


def size_of(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_files_have_safe_names_in_the_models_order(spectrum_of: SpectrumOf, tmp_path: Path) -> None:
    names = ["../../etc/passwd", "a/b", "a:b", "", "层", "x" * 300]
    weights = RNG(0).standard_normal((20, 10))
    metrics = metrics_from_spectra([spectrum_of(weights, name=name) for name in names])
    folder = tmp_path / "new" / "pictures"
    written = write_plots(metrics, folder)
    assert [path.name for path in written] == [
        "overview.png",
        "001-etc-passwd.png",
        "002-a-b.png",
        "003-a-b.png",
        "004-layer.png",
        "005-layer.png",
        f"006-{'x' * 80}.png",
    ]
    assert sorted(folder.iterdir()) == sorted(written)
    assert all(min(size_of(path)) > 300 for path in written)
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]


@pytest.mark.parametrize(
    ("name", "slug"),
    [("encoder.0.fc", "encoder.0.fc"), ("..", "layer"), (".hidden", "hidden"), ("a//b", "a-b")],
)
def test_slugs(name: str, slug: str) -> None:
    assert slugify(name) == slug
