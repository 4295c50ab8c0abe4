"""The data of the studies, read once: MNIST's test images, Shakespeare, what scikit-learn brings.

Splits and draws are always the same, so that networks of different days can be compared. The files
that people copy read by themselves; everything else reads here.
"""

import argparse
import doctest
import gzip
import inspect
import math
import subprocess
import tarfile
import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

import numpy as np
import torch
from sklearn import datasets

from networks import CHARACTERS

MNIST = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
Tensors = tuple[torch.Tensor, torch.Tensor]  # inputs and targets: classes, or their probabilities


@dataclass(frozen=True)
class Data:
    """Inputs and targets; probabilities as targets where the true ones are known."""

    train: Tensors
    validation: Tensors
    test: Tensors


def load_digits() -> Tensors:
    """Scikit-learn's 1,797 digits of 8×8 pixels, (1797, 64) in [0, 1], and their labels."""
    images, labels = datasets.load_digits(return_X_y=True)
    return torch.as_tensor(images / 16.0, dtype=torch.float32), torch.as_tensor(labels)


def load_mnist(folder: Path | None, *, normalised: bool = True) -> Tensors:
    """MNIST's 10,000 test images, (10000, 784), and their labels.

    Args:
        folder: of the two files, whose names may have something before them, such as "mnist-".
        normalised: to mean 0 and variance 1 over MNIST's training images; else in [0, 1].

    Raises:
        FileNotFoundError: if the folder is not given or lacks them.
    """
    images, labels = (
        np.frombuffer(
            gzip.decompress(find_file(folder, name).read_bytes()), np.uint8, offset=header
        )
        for name, header in zip(MNIST, (16, 8), strict=True)
    )
    pixels = images.reshape(-1, 784) / 255.0
    x = torch.as_tensor((pixels - 0.1307) / 0.3081 if normalised else pixels, dtype=torch.float32)
    return x, torch.as_tensor(labels.astype(np.int64))


def load_text(folder: Path | None) -> torch.Tensor:
    """The characters of tinyshakespeare as numbers below `networks.CHARACTERS`.

    Raises:
        FileNotFoundError: if the folder is not given or lacks it.
    """
    text = find_file(folder, "tinyshakespeare.txt").read_text(encoding="utf-8")
    code = {character: i for i, character in enumerate(sorted(set(text)))}
    return torch.tensor([code[character] for character in text])


def load_manual() -> torch.Tensor:
    """The topics of Python's manual as numbers below `networks.CHARACTERS`: about 465,000.

    The text is that of the running Python, so figures differ a little between its versions.
    """
    return _encode("".join(topics[name] for name in sorted(topics)))


def load_code() -> torch.Tensor:
    """The source of some modules of Python's library, as `load_manual`."""
    modules = (argparse, doctest, inspect, subprocess, tarfile, typing)
    return _encode("".join(inspect.getsource(module) for module in modules))


def _encode(text: str) -> torch.Tensor:
    """Numbers of the characters, most frequent first; the rarest share the last one."""
    common = [character for character, _ in Counter(text).most_common(CHARACTERS - 1)]
    code = {character: i for i, character in enumerate(common)}
    return torch.tensor([code.get(character, CHARACTERS - 1) for character in text])


def load_photos() -> Tensors:
    """Scikit-learn's two photographs in 8×8 tiles: the means of 2×2 pixels, and all pixels.

    Returns:
        (8480, 48) and (8480, 192), of mean 0 and variance 1 over all.
    """
    tiles = []
    for name in ("china.jpg", "flower.jpg"):
        photo = torch.as_tensor(datasets.load_sample_image(name).copy()).float()  # (427, 640, 3)
        parts = photo[:424].unfold(0, 8, 8).unfold(1, 8, 8)  # (53, 80, 3, 8, 8)
        tiles.append(parts.flatten(0, 1))
    y = torch.cat(tiles)
    y = (y - y.mean()) / y.std()
    x = y.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean(dim=(3, 5))  # (8480, 3, 4, 4)
    return x.flatten(1), y.flatten(1)


def load_table(name: Literal["cancer", "diabetes"]) -> Tensors:
    """Scikit-learn's tables, standardised: 569 tumours of two classes; 442 patients, a number."""
    load = datasets.load_breast_cancer if name == "cancer" else datasets.load_diabetes
    x, y = (torch.as_tensor(values) for values in load(return_X_y=True))
    x = ((x - x.mean(dim=0)) / x.std(dim=0)).float()
    return x, y if name == "cancer" else ((y - y.mean()) / y.std()).float()[:, None]


def find_file(folder: Path | None, name: str) -> Path:
    """A file of that name in the folder, or else the shortest name that ends like it."""
    if folder is None:
        raise FileNotFoundError(f"{name} is needed: pass its folder with --data FOLDER")
    paths = sorted(folder.glob(f"*{name}"), key=lambda path: (len(path.name), path.name))
    if not paths:
        raise FileNotFoundError(f"{folder} lacks {name}")
    return paths[0]


def shuffle_and_cut(
    data: Tensors, counts: Sequence[int], *, rng: np.random.Generator | None = None
) -> list[Tensors]:
    """Parts of the examples in random order; where the examples end, a part ends early.

    Args:
        data: inputs and targets.
        counts: examples of each part.
        rng: None for a fresh one of seed 0, which gives the same order each time.
    """
    x, y = data
    order = torch.as_tensor((rng or np.random.default_rng(0)).permutation(len(x)))
    cuts = pairwise(accumulate(counts, initial=0))
    return [(x[order[start:stop]], y[order[start:stop]]) for start, stop in cuts]


def cut_windows(
    codes: torch.Tensor, start: int, count: int, *, stride: int, context: int
) -> Tensors:
    """Windows of a text, (n, context), and the characters after each of theirs.

    Args:
        codes: of the characters, shape (characters,).
        start: of the part of the text.
        count: characters of it.
        stride: between the starts of two windows.
        context: characters in a window.
    """
    starts = torch.arange(start, start + count - context, stride)
    rows = starts[:, None] + torch.arange(context)
    return codes[rows], codes[rows + 1]


def draw_teacher(num_train: int) -> Data:
    """Inputs with a power-law covariance; classes drawn from a random network's probabilities.

    The test set's targets are the teacher's probabilities: its loss and error carry no label
    noise, and the teacher's own are the Bayes loss and error.
    """
    generator = torch.Generator().manual_seed(0)
    dimensions, classes = 128, 10
    scales = torch.arange(1, dimensions + 1) ** -0.5
    first = torch.randn(dimensions, 48, generator=generator) / scales.square().sum().sqrt()
    second = torch.randn(48, classes, generator=generator) / math.sqrt(48)

    def draw(n: int) -> Tensors:
        x = torch.randn(n, dimensions, generator=generator) * scales
        return x, (9.0 * torch.tanh(2.0 * (x @ first)) @ second).softmax(1)

    (x, p), (x_validation, p_validation), test = draw(num_train), draw(1000), draw(40_000)
    y, y_validation = (
        torch.multinomial(q, 1, generator=generator)[:, 0] for q in (p, p_validation)
    )
    return Data((x, y), (x_validation, y_validation), test)
