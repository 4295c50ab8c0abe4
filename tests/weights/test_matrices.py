"""All sources agree, ties count once, layers are chosen by name, and the rest has a reason."""

import pickle
from pathlib import Path

import pytest
import torch
from fixtures.weights.matrices import by_name, from_file
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wwopt.weights.matrices import Weights, read_vector, read_weights
from wwopt.weights.stored_tensors import WeightsError


def assert_same(weights: Weights, others: Weights) -> None:
    """Same layers with the same values, in any order."""
    ours, theirs = by_name(weights), by_name(others)
    assert ours.keys() == theirs.keys()
    for name, slices in ours.items():
        torch.testing.assert_close(slices, theirs[name], rtol=1e-6, atol=1e-7)


@given(
    st.dictionaries(
        st.text("abh.0_weight", min_size=1, max_size=12),
        st.lists(st.integers(0, 3), max_size=5).map(tuple),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=150, deadline=None)
def test_every_tensor_is_a_matrix_or_has_a_reason(shapes: dict[str, tuple[int, ...]]) -> None:
    weights = read_weights({name: torch.ones(shape) for name, shape in shapes.items()})
    names = [name for m in weights.matrices for name in (m.name, *m.tied)]
    assert len(set(names)) == len(names)
    for matrix in weights.matrices:
        slices, rows, columns = matrix.read().shape
        assert (slices, max(rows, columns), min(rows, columns)) == (
            matrix.num_slices,
            *matrix.shape,
        )
    assert all(weights.skipped.values())
    assert len({name.partition(".q")[0] for name in names}) + len(weights.skipped) >= 1


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(12, 6)
        self.fc = nn.Linear(6, 6)
        self.again = self.fc
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.wte.weight


def test_tied_weights_count_once_under_their_first_name(tmp_path: Path) -> None:
    model = Tied()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    for source in (model, model.state_dict(), tmp_path / "w.pt"):
        tied = {matrix.name: matrix.tied for matrix in read_weights(source).matrices}
        assert tied == {"wte": ("head",), "fc": ("again",)}


def test_equal_values_are_not_tied() -> None:
    assert (
        len(read_weights({"a.weight": torch.ones(3, 3), "b.weight": torch.ones(3, 3)}).matrices)
        == 2
    )


def test_module_state_dict_and_files_agree(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(9, 6), nn.Linear(6, 8), nn.Conv2d(4, 6, 3), nn.MultiheadAttention(6, 2)
    ).to(torch.bfloat16)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    expected = read_weights(model)
    assert_same(read_weights(model.state_dict()), expected)
    assert_same(read_weights(tmp_path / "w.pt"), expected)
    assert_same(from_file(model, tmp_path), expected)
    assert {matrix.dtype for matrix in expected.matrices} == {"bfloat16"}


def test_a_matrix_in_a_file_can_be_sent_to_another_process(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LSTM(4, 5))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    for weights in (from_file(model, tmp_path), read_weights(tmp_path / "w.pt")):
        for matrix in weights.matrices:
            sent = pickle.dumps(matrix)
            assert len(sent) < 2000  # a path and a name, no values
            assert torch.equal(pickle.loads(sent).read(), matrix.read())


def test_layers_are_chosen_by_name_module_or_pattern() -> None:
    model = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 1), "fc": nn.Linear(4, 4)})
    weights = read_weights(model, layers=["attn.in_proj", "f?"])
    assert [m.name for m in weights.matrices] == [
        "attn.in_proj.q",
        "attn.in_proj.k",
        "attn.in_proj.v",
        "fc",
    ]
    assert weights.skipped["attn.out_proj"] == "not selected"
    assert [m.name for m in read_weights(Tied(), layers=["head"]).matrices] == ["wte"]
    compiled = {"_orig_mod.fc.weight": torch.ones(3, 3)}
    assert [m.name for m in read_weights(compiled, layers=["fc"]).matrices] == ["_orig_mod.fc"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["fc_1"], r"no layer 'fc_1'; did you mean 'fc1'"),
        (["zzzz"], r"no layer 'zzzz'; did you mean 'fc1'"),
        (["fc1.bias"], r"layer 'fc1.bias' is not analysed: vector"),
        (["conv"], r"layer 'conv' is not analysed: one channel per group"),
        ("fc1", "must be a list of names, got the string 'fc1'"),
    ],
)
def test_an_unknown_layer_is_an_error_with_a_way_out(layers: list[str], message: str) -> None:
    model = nn.ModuleDict({"fc1": nn.Linear(3, 3), "conv": nn.Conv2d(1, 3, 3)})
    with pytest.raises(WeightsError, match=message):
        read_weights(model, layers=layers)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "holds no tensors .keys: none.; pass a state dict"),
        ({"lr": 0.1}, "keys: 'lr'"),
        (3, "cannot read weights from a int; pass an nn.Module"),
    ],
)
def test_what_is_no_source_says_so(source: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_weights(source)


def test_a_matrix_says_how_many_outputs_it_has() -> None:
    model = nn.Sequential(nn.Linear(6, 9), nn.Conv2d(3, 8, 3), nn.LSTM(4, 5))
    for matrix in read_weights(model).matrices:
        assert matrix.outputs == matrix.read().shape[1]


def test_a_vector_beside_the_matrices_is_read_by_its_name(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 2, bias=False))
    torch.save({"ema": model.state_dict(), "epoch": 3}, tmp_path / "w.pt")
    for source, key in ((model, None), (model.state_dict(), None), (tmp_path / "w.pt", "ema")):
        bias = read_vector(source, "0.bias", key=key)
        torch.testing.assert_close(bias, model[0].bias.detach())
        assert read_vector(source, "1.bias", key=key) is None
        assert read_vector(source, "0.weight", key=key) is None  # a matrix
