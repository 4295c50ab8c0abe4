"""Tensors of a state dict are read late and as they are; what is no tensor has a reason."""

import re

import pytest
import torch
from torch import nn

from wwopt.weights.matrices import read_weights


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
