"""A module in pieces reads as the whole one, tensor by tensor, in one process of a mesh."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from wwopt.metrics.analysis import analyze
from wwopt.study.trial.trial_log import _count_bytes
from wwopt.weights.sharded_modules import ShardedModule, gather_on_first, is_sharded, named_tensors


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def make() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 70), nn.BatchNorm1d(70), nn.Linear(70, 64, bias=False))
    model.append(nn.Linear(64, 70))
    model[3].weight = model[0].weight  # tied
    return model


@pytest.mark.slow
def test_a_sharded_module_is_read_as_the_whole_one(mesh: None) -> None:
    from torch.distributed.fsdp import fully_shard

    whole, model = make(), make()
    fully_shard(model)
    assert is_sharded(model) and not is_sharded(whole)
    asked: list[str] = []

    def gather(name: str) -> torch.Tensor:
        asked.append(name)
        return gather_on_first(named_tensors(model)[name].detach())

    sharded = ShardedModule(model, gather)
    found, expected = analyze(sharded), analyze(whole)
    assert [x.name for x in found.layers] == [x.name for x in expected.layers]
    assert [x.alpha for x in found.layers] == [x.alpha for x in expected.layers]
    assert [x.kind for x in found.layers] == ["linear", "linear"]
    assert [x.tied for x in found.layers] == [x.tied for x in expected.layers]
    assert set(asked) == {"0.weight", "2.weight"}  # biases and norms stay where they are
    state = sharded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.state_dict().items())
    assert _count_bytes(sharded) == _count_bytes(whole)
