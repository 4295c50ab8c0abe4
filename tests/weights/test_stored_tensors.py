"""Tensors of a state dict are read late and as they are; what is no tensor has a reason."""

import re

import pytest
import torch
from torch import nn

from wwopt.weights.files.training_checkpoints import mark_moments, store_state
from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError, is_quantized, store_tensor


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.ones(3), "vector"),
        (torch.tensor(1.0), "scalar"),
        (torch.ones(0, 5), r"empty: shape \(0, 5\)"),
        (torch.ones(1, 9), "one row or column: 1 x 9"),
        (torch.ones(9, 1), "one row or column: 9 x 1"),
        (torch.ones(3, 3, dtype=torch.int64), "int64: not a weight"),
        (torch.ones(3, 3, dtype=torch.bool), "bool: not a weight"),
        (torch.ones(3, 3, dtype=torch.complex64), "complex"),
        (torch.ones(3, 3, device="meta"), "meta tensor"),
        (torch.eye(3).to_sparse(), "sparse_coo tensor"),
        (torch.ones(2, 3, 4, 5, 6, 7), "6-dimensional"),
        ("text", "not a tensor: str"),
    ],
)
def test_what_is_no_matrix_has_a_reason(tensor: object, why: str) -> None:
    weights = read_weights({"fc.weight": torch.ones(2, 2), "x.weight": tensor})
    assert [matrix.name for matrix in weights.matrices] == ["fc"]
    assert re.search(why, weights.skipped["x.weight"])


def test_values_that_are_not_finite_are_read_as_they_are() -> None:
    weight = torch.tensor([[torch.nan, torch.inf], [0.0, -torch.inf]])
    (matrix,) = read_weights({"fc.weight": weight}).matrices
    assert torch.equal(matrix.read()[0].isnan(), weight.isnan())


def test_reading_is_late() -> None:
    layer = nn.Linear(3, 3)
    (matrix,) = read_weights(layer).matrices
    with torch.no_grad():
        layer.weight.fill_(7.0)
    assert torch.equal(matrix.read(), torch.full((1, 3, 3), 7.0))
    assert not matrix.read().requires_grad


def test_what_is_no_weight_can_be_read_all_the_same() -> None:
    steps = store_tensor("steps", torch.tensor([7]))
    assert steps.problem and steps.readable and steps.read().tolist() == [7]
    meta = store_tensor("w", torch.ones(3, 3, device="meta"))
    assert not meta.readable
    with pytest.raises(WeightsError, match="cannot be read: meta tensor"):
        meta.read()


def test_what_lies_beside_a_model_is_marked() -> None:
    state = {"model": {"w": torch.ones(3, 3)}, "optimizer": {"state": {}}, "epoch": 3}
    assert {t.name: t.beside for t in store_state(state)} == {
        "w": False,
        "optimizer": True,
        "epoch": True,
    }
    (moment,) = mark_moments([store_tensor("w.exp_avg", torch.ones(3, 3))])
    assert moment.beside


def test_codes_are_quantized_and_plain_integers_are_not() -> None:
    assert is_quantized("int8") and is_quantized("float8_e8m0fnu")
    assert not is_quantized("int64") and not is_quantized("float8_e4m3fn")
