"""The last linear layer is found where there is one, and otherwise all that may be are named."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wwopt.class_tree.errors import ClassTreeError
from wwopt.class_tree.heads import find_head
from wwopt.weights.stored_tensors import WeightsError


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 16)
        self.age = nn.Linear(16, 5)
        self.species = nn.Linear(16, 7)


def test_weights_and_biases_are_those_of_the_module() -> None:
    model = mlp(6, 8, 8, 4)
    head = find_head(model)
    x = torch.randn(5, 8)
    expected = model[2](x).detach().numpy()
    np.testing.assert_allclose(head.logits(x.numpy()), expected, atol=1e-6)
    assert head.layer == "2"


def test_files_that_sort_their_names_have_the_same_last_layer(tmp_path: Path) -> None:
    state = dict(zip(("z.weight", "z.bias"), mlp(6, 8)[0].state_dict().values(), strict=True))
    last = nn.Linear(8, 3)
    state |= {"a.weight": last.weight.detach(), "a.bias": last.bias.detach()}
    save_file(state, tmp_path / "m.safetensors")
    head = find_head(tmp_path / "m.safetensors")
    assert head.layer == "a" and head.weight.shape == (3, 8)
    np.testing.assert_array_equal(head.bias, last.bias.detach().double().numpy())


def test_a_layer_alone_and_one_without_bias_are_heads() -> None:
    alone = nn.Linear(5, 3)
    np.testing.assert_allclose(find_head(alone).bias, alone.bias.detach().numpy())
    assert not find_head(nn.Sequential(nn.Linear(5, 3, bias=False))).bias.any()


def test_a_last_layer_as_wide_as_its_own_input_is_found() -> None:
    assert find_head(mlp(64, 10, 10)).layer == "1"


def test_three_classes_are_no_colours_and_names_tell_what_shapes_do_not() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 3))
    assert find_head(model).layer == "2"
    assert find_head(mlp(4, 16, 4), classes=4).layer == "1"  # as many inputs as classes


def test_of_several_the_number_of_classes_chooses() -> None:
    assert find_head(TwoHeads(), classes=7).layer == "species"
    with pytest.raises(ClassTreeError, match=r"2 linear .*: age \(5 rows\), species \(7 rows\)"):
        find_head(TwoHeads())
    with pytest.raises(ClassTreeError, match=r"age \(5 rows\), species \(7 rows\).*--layer"):
        find_head(TwoHeads(), classes=6)
    assert find_head(TwoHeads(), layer="age").weight.shape == (5, 16)


def test_where_none_is_told_to_be_the_last_all_are_named() -> None:
    with pytest.raises(ClassTreeError, match=r"0 \(6 rows\), 1 \(12 rows\); choose by --layer"):
        find_head(mlp(12, 6, 12))
    assert find_head(mlp(12, 6, 12), layer="1").weight.shape == (12, 6)


@pytest.mark.parametrize(
    ("model", "layer", "error", "message"),
    [
        (nn.Conv2d(3, 8, 3), None, ClassTreeError, r"no linear layer.*weight \(conv2d\)"),
        (nn.BatchNorm1d(4), None, ClassTreeError, "no linear layer.*it has no layer"),
        (nn.Sequential(nn.Conv2d(3, 8, 3)), "0", ClassTreeError, "kind conv2d, no matrix"),
        (mlp(6, 8, 4), "head", WeightsError, "no layer 'head'; did you mean"),
        (nn.Sequential(mlp(6, 8, 4)), "0", ClassTreeError, "'0' names 2 layers: 0.0, 0.1"),
    ],
)
def test_models_without_such_a_layer_are_told(
    model: nn.Module, layer: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        find_head(model, layer=layer)


def test_a_layer_that_broke_is_told() -> None:
    model = mlp(6, 8, 4)
    with torch.no_grad():
        model[1].bias[0] = torch.nan
    with pytest.raises(ClassTreeError, match="layer '1' has biases that are not finite"):
        find_head(model)
