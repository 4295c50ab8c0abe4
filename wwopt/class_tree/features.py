"""What a network's last layer reads of labelled examples, taken once and kept in a file.

`inputs` are the values that enter the last linear layer, `labels` the classes; `ids` may name the
examples (files, rows of a table) and `images` show them.
"""

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.heads import Head, find_head
from wwopt.wording import first_line, write_names


@dataclass(frozen=True)
class Features:
    """Labelled examples as the last layer reads them."""

    inputs: NDArray[np.floating]  # (n, d)
    labels: NDArray[np.integer]  # (n,), from 0 on, in the order of the network's outputs
    ids: NDArray[np.str_] | None = None  # (n,), what the user calls each; None: its place
    images: NDArray[Any] | None = None  # (n, height, width) or the same with 3 colours

    def __post_init__(self) -> None:
        n = len(self.inputs)
        if self.inputs.ndim != 2 or self.inputs.dtype.kind not in "fiu":
            found = f"{self.inputs.dtype} of shape {self.inputs.shape}"
            raise ClassTreeError(f"inputs must be numbers of shape (examples, width), got {found}")
        if self.labels.dtype.kind not in "iu":
            kind = self.labels.dtype
            raise ClassTreeError(f"labels must be numbers of classes from 0 on, got {kind}")
        for name in ("labels", "ids", "images"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise ClassTreeError(f"there are {n} inputs and {len(values)} {name}")
        if self.labels.ndim != 1:
            raise ClassTreeError(f"labels must have shape (examples,), got {self.labels.shape}")
        if self.images is not None and not (
            self.images.ndim == 3 or (self.images.ndim == 4 and self.images.shape[3] == 3)
        ):
            shape = self.images.shape
            raise ClassTreeError(
                f"images must be (examples, height, width) or the same with 3 colours, got {shape}"
            )
        bad = np.flatnonzero(~np.isfinite(self.inputs).all(1))
        if bad.size:
            raise ClassTreeError(
                f"{bad.size} of {n} inputs are not finite, the first is number {bad[0]}"
            )
        if n == 0:
            raise ClassTreeError("there is no example in the features")

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: Any) -> "Features":
        """Some of the examples: a slice, a mask or numbers."""
        ids = None if self.ids is None else self.ids[rows]
        images = None if self.images is None else self.images[rows]
        return Features(self.inputs[rows], self.labels[rows], ids, images)

    def name(self, number: int) -> str:
        """What an example is called: its id, or its place."""
        return f"#{number}" if self.ids is None else str(self.ids[number])

    def save(self, path: str | Path) -> None:
        """Write them to a file of numpy's, .npz, compressed."""
        arrays = {name: value for name, value in vars(self).items() if value is not None}
        np.savez_compressed(Path(path), **arrays)


def load_features(path: str | Path) -> Features:
    """Read what `Features.save` or `numpy.savez` with those names wrote; nothing is unpickled.

    Raises:
        ClassTreeError: if the file is none of numpy's, lacks an array, or they do not fit.
        OSError: if it cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as opened:  # numpy leaves a broken archive open
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ClassTreeError(f"{path} is one array; numpy.savez keeps inputs and labels")
            missing = {"inputs", "labels"} - set(file.files)
            if missing:
                raise ClassTreeError(
                    f"{path} lacks {write_names(sorted(missing))}; it holds "
                    f"{write_names(file.files) or 'nothing'}"
                )
            known = ("inputs", "labels", "ids", "images")
            arrays = {name: file[name] for name in known if name in file.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, ClassTreeError):
            raise
        raise ClassTreeError(f"{path} is no .npz of plain arrays: {first_line(error)}") from error
    try:
        return Features(**arrays)
    except ClassTreeError as error:
        raise ClassTreeError(f"{path}: {error}") from error


def check_features(features: Features, head: Head, names: tuple[str, ...]) -> list[str]:
    """Refuse features of another network, and tell which classes have no example.

    Returns:
        Names of the classes without an example.

    Raises:
        ClassTreeError: if their width or their labels are not those of the layer.
    """
    width = features.inputs.shape[1]
    if width != head.weight.shape[1]:
        raise ClassTreeError(
            f"the features have {width} numbers an example, layer {head.layer!r} reads "
            f"{head.weight.shape[1]}; take them from the inputs of that layer (collect_features)"
        )
    low, high = int(features.labels.min()), int(features.labels.max())
    if low < 0 or high >= len(names):
        wrong = low if low < 0 else high
        raise ClassTreeError(f"a label is {wrong}, and the classes are 0 to {len(names) - 1}")
    counts = np.bincount(features.labels, minlength=len(names))
    return [name for name, count in zip(names, counts, strict=True) if count == 0]


def collect_features(
    model: nn.Module, loader: Iterable[tuple[Any, torch.Tensor]], *, layer: str | None = None
) -> Features:
    """Run a model over labelled batches and keep what enters its last layer.

    The model runs in evaluation mode and without gradients, and is left in the mode it was in. Of
    a layer that is called several times in one forward pass the last call counts where it holds the
    whole batch, and all of them in their order where they are its parts. Leading dimensions (a
    sequence's places) are flattened, in inputs and labels alike; labels below 0, as of places that
    do not count, are left out.

    Args:
        model: as it is used; it lies where it is.
        loader: of batches (model's argument, labels); an argument that is a mapping is unpacked.
        layer: name of the last layer; None to find it as `wwopt.class_tree` does.

    Raises:
        ClassTreeError: if the layer is not called, its inputs and the labels are not as many, or
            there is no last layer or no example.
    """
    name = find_head(model).layer if layer is None else layer
    module = model if name == "weight" else model.get_submodule(name)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    inputs, labels = [], []
    with _listening(module) as heard, _evaluating(model), torch.no_grad():
        for batch, target in loader:
            heard.clear()
            _run(model, batch, device)
            read = _join(heard, torch.as_tensor(target), name)
            counted = torch.as_tensor(target).reshape(-1).cpu() >= 0
            inputs.append(read[counted].float().cpu().numpy())
            labels.append(torch.as_tensor(target).reshape(-1).cpu()[counted].numpy())
    if not inputs:
        raise ClassTreeError("the loader gave no batch")
    return Features(np.concatenate(inputs), np.concatenate(labels).astype(np.int64))


def _run(model: nn.Module, batch: Any, device: torch.device) -> None:
    if isinstance(batch, torch.Tensor):
        model(batch.to(device))
    elif hasattr(batch, "keys"):
        model(**{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()})
    else:
        model(batch)


def _join(calls: list[torch.Tensor], target: torch.Tensor, name: str) -> torch.Tensor:
    """What one batch's calls of the layer read, one row a label."""
    rows = [call.reshape(-1, call.shape[-1]) for call in calls]
    if not rows:
        raise ClassTreeError(
            f"layer {name!r} was not called in the forward pass; name the one that is (layer=)"
        )
    if len(rows[-1]) == target.numel():
        return rows[-1].cpu()
    if sum(map(len, rows)) == target.numel():
        return torch.cat(rows).cpu()
    read = " + ".join(str(len(row)) for row in rows)
    raise ClassTreeError(
        f"layer {name!r} read {read} rows for {target.numel()} labels; they must be as many"
    )


@contextmanager
def _listening(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    heard: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: heard.append(given[0].detach()))
    try:
        yield heard
    finally:
        handle.remove()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
