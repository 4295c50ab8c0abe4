import pytest
import torch
from torch import nn

from wwopt.compression import list_layers
from wwopt.compression.damage import END_WEIGHT, LayerDamage, find_ends, spectral_norm


@pytest.mark.parametrize("shape", [(1, 5, 3), (1, 200, 300), (4, 40, 150)])
def test_the_spectral_norm_is_the_largest_singular_value(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    truth = float(torch.linalg.matrix_norm(matrices.flatten(0, 1).double(), 2))
    assert spectral_norm(matrices) == pytest.approx(truth, rel=5e-3)
    assert spectral_norm(1e-30 * matrices) == pytest.approx(1e-30 * truth, rel=5e-3)
    assert spectral_norm(0.0 * matrices) == 0.0


def test_damage_is_between_unlike_distances() -> None:
    before = torch.diag(torch.tensor([4.0, 3.0]))[None]
    after = before + torch.diag(torch.tensor([0.3, 0.4]))[None]
    layer = LayerDamage(before, end=False)
    error = layer.error(after)
    assert error**2 == pytest.approx(0.4 / 4.0 * 0.5 / 5.0)
    assert layer.damage(error) == pytest.approx(0.4 * 0.5 / 5.0)
    end = LayerDamage(before, end=True)
    assert end.error(after) == pytest.approx(END_WEIGHT**0.5 * error)
    assert end.damage(end.error(after)) == pytest.approx(END_WEIGHT * 0.04)
    twice = LayerDamage(2.0 * before, end=False)
    assert twice.error(2.0 * after) == pytest.approx(error)
    assert twice.damage(error) == pytest.approx(2.0 * layer.damage(error))


def test_a_layer_of_zeros_is_never_damaged() -> None:
    zeros = torch.zeros(1, 3, 3)
    assert LayerDamage(zeros, end=False).error(zeros) == 0.0


def test_ends_face_the_world() -> None:
    mlp = nn.Sequential(
        nn.Linear(784, 512), nn.Linear(512, 256), nn.Linear(256, 256), nn.Linear(256, 10)
    )
    assert find_ends(list_layers(mlp)) == {"0", "3"}
    cnn = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(512, 64),
        nn.Linear(64, 10),
    )  # fmt: skip
    assert find_ends(list_layers(cnn)) == {"0", "4"}


def test_ends_of_a_transformer_with_fused_attention() -> None:
    block = nn.TransformerEncoderLayer(64, 4, 128)
    model = nn.ModuleDict({"embed": nn.Embedding(65, 64), "a": block, "head": nn.Linear(64, 65)})
    assert find_ends(list_layers(model)) == {"embed", "head"}
