"""What `inference_cost` counts is what a file holds, and what it times grows with the work."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from wwopt.metrics.inference_cost import count_model_bytes, measure_latency


class Tied(nn.Module):
    """An embedding that is the head too, a buffer that is stored and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(64, 64), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embed(x)))


@pytest.mark.parametrize(
    "model", [nn.Linear(10, 3).bfloat16(), Tied(), nn.LSTM(5, 7), nn.Conv2d(3, 4, 3).half()]
)
def test_bytes_are_those_of_the_file(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_model(model, str(path))
    assert count_model_bytes(model) == path.stat().st_size


def test_bytes_by_hand() -> None:
    header = '{"bias":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},'
    header += '"weight":{"dtype":"F32","shape":[3,10],"data_offsets":[12,132]}}'
    assert count_model_bytes(nn.Linear(10, 3, device="meta")) == 8 + 8 * -(-len(header) // 8) + 132


class Repeats(nn.Module):
    """So many products of its one matrix with itself."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(192))
        self.times, self.seen = times, set[tuple[bool, bool, int]]()

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        self.seen.add((self.training, torch.is_grad_enabled(), torch.get_num_threads()))
        for _ in range(self.times):
            x = x @ self.weight
        return scale * x


def test_a_pass_of_twelve_products_takes_twelve_times_one() -> None:
    x, weight = torch.randn(192, 192), torch.eye(192)
    found = measure_latency(Repeats(12), x, reference=lambda: x @ weight)
    assert 8.0 < found < 18.0  # measured 12.0 to 13.1; the rest is for busy machines


def test_the_model_runs_as_it_will_be_used_and_is_left_as_it_was() -> None:
    model, threads = Repeats(1).train(), torch.get_num_threads()
    as_tuple = measure_latency(model, (torch.randn(4, 192),))
    by_name = measure_latency(model, {"x": torch.randn(4, 192), "scale": 2.0})
    assert 0.0 < as_tuple < 1.0 and 0.0 < by_name < 1.0  # 4 rows against 256
    assert model.seen == {(False, False, 1)}
    assert model.training and torch.get_num_threads() == threads


def test_modes_come_back_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout()).train()
    model[0].eval()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        measure_latency(model, torch.randn(2, 5))
    assert [module.training for module in model.modules()] == [True, False, True]
