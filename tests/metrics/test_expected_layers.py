"""A checkpoint is known by its layers, whatever wrapper wrote their names; no other is taken."""

import pytest
import torch
from torch import nn

from wwopt.metrics.analysis import analyze
from wwopt.metrics.expected_layers import match_layers
from wwopt.study.space.model_layers import find_weight_layers
from wwopt.weights.stored_tensors import WeightsError


def net(wide: int = 80) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, wide), nn.ReLU(), nn.Linear(wide, 60))


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.module.", "net."])
def test_names_come_back_without_the_wrappers(prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in net().state_dict().items()}
    found = match_layers(analyze(state), find_weight_layers(net()), source="file")
    assert [layer.name for layer in found.layers] == ["0", "2"]
    assert [layer.alpha for layer in found.layers] == [x.alpha for x in analyze(net()).layers]


def test_layers_of_many_kinds_match_themselves_in_a_module_and_in_a_file() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 16, 3, groups=2)
            self.attention = nn.MultiheadAttention(64, 4)
            self.rnn = nn.LSTM(50, 60)
            self.embedding = nn.Embedding(100, 64)
            self.head = nn.Linear(64, 100, bias=False)
            self.head.weight = self.embedding.weight  # tied

    model = Mixed()
    for source in (model, model.state_dict()):
        match_layers(analyze(source), find_weight_layers(model), source="file")


def test_another_network_is_refused_by_name_and_size() -> None:
    expected = find_weight_layers(net())
    other = nn.Sequential(nn.Linear(64, 80), nn.Linear(80, 60))
    with pytest.raises(WeightsError, match="it lacks 2, and has 0, 1"):
        match_layers(analyze(other), expected, source="file")
    with pytest.raises(WeightsError, match="its layer 0 has 50 eigenvalues, where 64 were"):
        match_layers(analyze(net(50)), expected, source="file")
