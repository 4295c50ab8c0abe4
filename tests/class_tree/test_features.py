"""Features are what enters the last layer, however the model calls it; bad ones are refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.networks.class_trees import NAMES, draw_features, make_classifier, make_tree
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.features import Features, check_features, collect_features, load_features

X = torch.arange(30.0).reshape(10, 3) / 10.0
Y = torch.arange(10) % 4


def test_they_are_the_inputs_of_the_last_layer_and_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(*make_classifier()[:2], nn.Dropout(), nn.Linear(6, 4))
    model[1].eval()
    found = collect_features(model, DataLoader(TensorDataset(X, Y), batch_size=4))
    np.testing.assert_allclose(found.inputs, model[:2](X).detach().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(found.labels, Y.numpy())
    assert [part.training for part in model] == [True, False, True, True]
    assert not model[3]._forward_pre_hooks


class Reused(nn.Module):
    """A head that is called on halves of the batch, or on an auxiliary input first."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self.head, self.how = nn.Linear(3, 6), nn.Linear(6, 4), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        read = self.body(x)
        if self.how == "halves":
            return torch.cat([self.head(part) for part in read.chunk(2)])
        if self.how == "pooled first":
            self.head(read.mean(0, keepdim=True))
        return self.head(read)


@pytest.mark.parametrize("how", ["once", "halves", "pooled first"])
def test_a_head_that_is_reused_counts_once_for_each_label(how: str) -> None:
    model = Reused(how)
    found = collect_features(model, [(X, Y)], layer="head")
    np.testing.assert_allclose(found.inputs, model.body(X).detach().numpy(), rtol=1e-6)


def test_places_of_sequences_are_examples_and_ignored_ones_are_none() -> None:
    model, x = Reused("once"), torch.randn(2, 5, 3)
    labels = torch.tensor([[0, 1, 2, -100, -100], [3, 0, -100, -100, -100]])
    found = collect_features(model, [(x, labels)], layer="head")
    np.testing.assert_array_equal(found.labels, [0, 1, 2, 3, 0])
    np.testing.assert_allclose(found.inputs[3], model.body(x)[1, 0].detach().numpy(), rtol=1e-6)


def test_batches_may_be_keyword_arguments() -> None:
    found = collect_features(Reused("once"), [({"x": X}, Y)], layer="head")
    assert len(found) == 10


@pytest.mark.parametrize(
    ("batches", "layer", "message"),
    [
        ([(X, Y[:9])], "head", "layer 'head' read 10 rows for 9 labels"),
        ([], "head", "the loader gave no batch"),
    ],
)
def test_batches_that_do_not_fit_are_said(batches: list, layer: str, message: str) -> None:
    with pytest.raises(ClassTreeError, match=message):
        collect_features(Reused("once"), batches, layer=layer)


def test_a_layer_that_is_not_called_is_said() -> None:
    model = Reused("once")
    model.idle = nn.Linear(6, 4)
    with pytest.raises(ClassTreeError, match="layer 'idle' was not called"):
        collect_features(model, [(X, Y)], layer="idle")


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    ids, images = np.array([f"bild-{i}.png" for i in range(80)]), np.zeros((80, 2, 2), np.uint8)
    plain = draw_features()
    whole = Features(plain.inputs, plain.labels, ids, images)
    whole.save(tmp_path / "f.npz")
    read = load_features(tmp_path / "f.npz")
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(read, name), values)
    assert read[3:5].name(1) == "bild-4.png" and plain.name(7) == "#7"
    np.savez(tmp_path / "own.npz", inputs=plain.inputs, labels=plain.labels)
    assert len(load_features(tmp_path / "own.npz")) == 80


def good(**changed: Any) -> dict[str, Any]:
    return {"inputs": np.ones((3, 2)), "labels": np.array([0, 1, 2])} | changed


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (good(labels=np.array([0, 1])), "3 inputs and 2 labels"),
        (good(inputs=np.ones(3)), "inputs must be numbers of shape (examples, width)"),
        (good(labels=np.array([0.0, 1.0, 2.0])), "labels must be numbers of classes"),
        (good(labels=np.array([[0], [1], [2]])), "labels must have shape (examples,)"),
        (good(inputs=np.array([[1, 2], [np.nan, 1], [0, 0]])), "1 of 3 inputs are not finite"),
        (good(ids=np.array(["a"])), "3 inputs and 1 ids"),
        (good(images=np.zeros((3, 4))), "images must be (examples, height, width)"),
        (good(inputs=np.ones((0, 2)), labels=np.zeros(0, int)), "no example"),
        ({"inputs": np.ones((3, 2))}, "lacks labels; it holds inputs"),
        (good(ids=np.array([{}, {}, {}], object)), "is no .npz of plain arrays: Object arrays"),
    ],
)
def test_files_that_hold_something_else_are_said(
    arrays: dict[str, Any], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(ClassTreeError, match=re.escape(message)) as caught:
        load_features(tmp_path / "f.npz")
    assert str(tmp_path / "f.npz") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_files_that_are_none_of_numpys_are_said(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(ClassTreeError, match=r"f\.npz is no \.npz of plain arrays"):
        load_features(tmp_path / "f.npz")
    with pytest.raises(FileNotFoundError):
        load_features(tmp_path / "none.npz")


def test_one_array_alone_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.ones(3))
    with pytest.raises(ClassTreeError, match="is one array"):
        load_features(tmp_path / "f.npy")


def test_features_of_another_network_are_refused_and_missing_classes_told() -> None:
    head = make_tree().head
    assert check_features(draw_features()[[0, 1, 3]], head, NAMES) == ["car"]
    with pytest.raises(ClassTreeError, match="3 numbers an example, layer 'head' reads 2"):
        check_features(Features(np.ones((1, 3)), np.array([0])), head, NAMES)
    for label in (-1, 4):
        with pytest.raises(ClassTreeError, match=f"a label is {label}, and the classes are 0 to 3"):
            check_features(Features(np.ones((1, 2)), np.array([label])), head, NAMES)
