"""Compress a network: sizes, verdicts, limits, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import wwopt
from wwopt.compression.compression import compress
from wwopt.compression.errors import CompressionError
from wwopt.compression.plans import LayerPlan
from wwopt.compression.retraining import Retraining
from wwopt.gate.thresholds import Thresholds


def test_the_front_door() -> None:
    assert wwopt.compress is compress


def test_the_plain_size_is_that_of_a_plain_file(trained: nn.Module, tmp_path: Path) -> None:
    found = compress(trained, bits=4)
    save_file(trained.state_dict(), tmp_path / "plain.safetensors")
    assert found.bytes_before == (tmp_path / "plain.safetensors").stat().st_size
    assert found.write(tmp_path / "x.safetensors") == found.bytes
    assert found.ratio == found.bytes_before / found.bytes > 6


def test_a_dense_file_has_the_same_weights_under_their_own_names(
    trained: nn.Module, tmp_path: Path
) -> None:
    found = compress(trained, bits=3, sparsity=0.3, limits=False)
    found.write(tmp_path / "d.safetensors", dense=True)
    loaded = load_file(tmp_path / "d.safetensors")
    trained.load_state_dict(loaded)
    assert all(torch.equal(loaded[name], value) for name, value in found.weights.items())


def test_a_module_a_state_dict_and_a_file_give_the_same(trained: nn.Module, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "m.pt")
    sources: list[Any] = [trained, trained.state_dict(), tmp_path / "m.pt"]
    found = [compress(source, bits=4, sparsity=0.4, by="alpha") for source in sources]
    assert len({one.bytes for one in found}) == 1
    for one in found[1:]:
        pairs = zip(one.weights.values(), found[0].weights.values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert one.broken == found[0].broken


def test_what_the_gate_says_is_what_check_says(trained: nn.Module, tmp_path: Path) -> None:
    found = compress(trained, bits=3, limits=False)
    found.write(tmp_path / "x.safetensors")
    judged = wwopt.check(trained.state_dict(), tmp_path / "x.safetensors")
    assert found.broken and found.broken == judged.broken
    assert not found.passed
    assert compress(trained, bits=8).passed


def test_a_broken_layer_says_how_far_it_could_go(trained: nn.Module) -> None:
    found = compress(trained, bits=2)
    for layer in found.layers:
        assert layer.broken and layer.limit is not None and layer.limit.bits is not None
        at_limit = compress(trained, plans={layer.name: layer.limit})
        assert at_limit.passed
        beyond = LayerPlan(bits=layer.limit.bits - 1)
        assert compress(trained, plans={layer.name: beyond}, limits=False).broken.keys() == {
            layer.name
        }
    strict = compress(trained, bits=8, thresholds=Thresholds(noise=1e-9))
    assert {layer.limit for layer in strict.layers} == {None}  # no milder one is harmless


def test_a_cut_layer_is_not_judged_by_the_rank_that_it_was_cut_to(trained: nn.Module) -> None:
    found = compress(trained, rank=0.98, limits=False)
    cut = next(layer for layer in found.layers if layer.plan.rank)
    (check,) = cut.checks
    assert check.change.rank > 0.02 and not cut.broken
    brutal = compress(trained, rank=2, limits=False)
    assert brutal.broken.keys() >= {"0", "2"}


def test_layers_without_a_change_are_not_measured_again(trained: nn.Module) -> None:
    found = compress(trained, bits=4, keep=["3"])
    rows = found.to_frame().set_index("layer")
    assert found.layers[-1].checks == () and np.isnan(rows.loc["3", "noise"])
    assert rows.loc["0", "bytes"] < rows.loc["0", "bytes_before"] == 4 * 96 * 120
    assert rows.loc["3", "bytes"] == rows.loc["3", "bytes_before"]


def test_the_share_of_zeros_is_over_all_weights(trained: nn.Module) -> None:
    found = compress(trained, sparsity=0.5, by="alpha", limits=False)
    assert found.zeros == pytest.approx(0.5, abs=1e-4)


def test_plain_data_has_no_nan(trained: nn.Module) -> None:
    found = compress(trained, bits=2, sparsity=0.5, rank="erg")
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["bytes"] == found.bytes and len(document["layers"]) == 3
    assert document["limits"].keys() == document["broken"].keys() == found.broken.keys()
    assert set(document["spectral_change"]) == {"noise", "relative_change", "ks"}


def test_convolutions_of_several_groups_are_judged_by_their_own_slices() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 32, 3, groups=2), nn.ConvTranspose2d(32, 16, 3, groups=4))
    found = compress(model, bits=8)
    assert [layer.checks[0].before.num_slices for layer in found.layers] == [18, 36]
    assert found.passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.01}, r"would have [\d,]+ bytes, and it has [\d,]+ as it is"),
        ({"bits": 4, "keep": "0"}, "keep must be a list of names, got the string '0'"),
        ({"bits": 4, "keep": ["head"]}, "no layer 'head'"),
        ({"plans": {"x": LayerPlan(bits=4)}}, "no layer 'x'; the layers are 0, 2, 3"),
        ({"plans": {"0": LayerPlan(rank=97)}}, "rank must be from 1 to 96"),
        ({}, "nothing to do"),
    ],
)
def test_says_what_it_cannot_do(trained: nn.Module, options: Any, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        compress(trained, **options)


def test_rounds_need_something_to_prune(trained: nn.Module) -> None:
    retraining = Retraining(lambda *_: None, None, None, rounds=2)
    with pytest.raises(CompressionError, match="training on goes with pruning or a budget"):
        compress(trained, bits=4, retraining=retraining)


def test_refuses_broken_sources(trained: nn.Sequential, tmp_path: Path) -> None:
    with torch.no_grad():
        trained[2].weight[3, 4] = torch.nan
    with pytest.raises(CompressionError, match="layer '2' has weights that are not finite"):
        compress(trained, bits=4)
    (tmp_path / "m.safetensors").write_bytes(b"\x20\0\0\0\0\0\0\0{broken")
    with pytest.raises(wwopt.WeightsError):
        compress(tmp_path / "m.safetensors", bits=4)
