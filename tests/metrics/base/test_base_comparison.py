"""What fine-tuning did to a layer: closed forms, then PEFT's own count of intruders."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from wwopt.metrics.analysis import analyze
from wwopt.metrics.base.base_comparison import compare_with_base
from wwopt.metrics.base.movements import ChangeKind
from wwopt.metrics.model_metrics import DIFFERENCE
from wwopt.metrics.objective import SpectralObjective
from wwopt.metrics.text import describe
from wwopt.weights.matrices import read_factors
from wwopt.weights.stored_tensors import WeightsError

SIZE = 60


def base() -> nn.Sequential:
    """Two layers, the first with singular values 60, 59, … and the axes as singular vectors."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, 80))
    with torch.no_grad():
        net[0].weight.copy_(torch.diag(torch.arange(SIZE, 0.0, -1.0)))
    return net


def test_a_change_along_the_bases_own_axes_brings_no_intruder() -> None:
    tuned = base()
    with torch.no_grad():
        tuned[0].weight[0, 0] += 3.0
        tuned[0].weight[1, 1] += 4.0
    first, second = compare_with_base(tuned, base()).layers
    norm = math.sqrt(sum(k * k for k in range(1, SIZE + 1)))
    assert first.movement == pytest.approx(5.0 / norm, rel=1e-6)
    assert (first.delta_norm, first.delta_spectral_norm) == pytest.approx((5.0, 4.0), rel=1e-6)
    assert first.delta_stable_rank == pytest.approx(25.0 / 16.0, rel=1e-6)
    assert first.intruders == 0.0 and first.rank is None and math.isnan(first.balance)
    assert (second.movement, second.intruders) == (0.0, 0.0)
    assert math.isnan(second.delta_stable_rank)


def test_a_strong_direction_between_all_axes_is_an_intruder() -> None:
    """Its cosine with each of 60 axes is 1/√60 = .13."""
    tuned, ones = base(), torch.full((SIZE,), 1.0 / math.sqrt(SIZE))
    with torch.no_grad():
        tuned[0].weight.add_(500.0 * torch.outer(ones, ones))
    found = compare_with_base(tuned, base())
    assert found.layers[0].intruders == 1.0
    assert compare_with_base(tuned, base(), cosine=0.1).layers[0].intruders == 0.0
    assert [layer.name for layer in found.moved] == ["0"]
    assert found.summary()["intruders"] == 1.0
    assert found.summary()["delta_stable_rank"] == pytest.approx(1.0, rel=1e-5)
    assert list(found.to_frame()["name"]) == ["0", "2"]


def test_a_difference_is_measured_and_not_judged() -> None:
    """Of one direction it would be called collapsed, were it a network."""
    tuned = base()
    with torch.no_grad():
        tuned[0].weight[0, 0] += 3.0
    metrics = analyze(tuned, base=base())
    assert [layer.status for layer in metrics.layers] == [DIFFERENCE, DIFFERENCE]
    assert metrics["0"].stable_rank == pytest.approx(1.0) and not metrics.broken
    assert math.isnan(SpectralObjective()(metrics).value)
    assert "is not judged as one" in describe(metrics)


def adapter(folder: Path, name: str = "base_model.model.0") -> Path:
    torch.manual_seed(2)
    a, b = torch.randn(4, SIZE), torch.randn(SIZE, 4)
    factors = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": 0.5 * b}
    save_file(factors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": 4}))
    return folder


def test_an_adapters_folder_is_compared_by_its_product_and_its_factors(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    (factors,) = read_factors(folder)
    assert (factors.rank, factors.scaling) == (4, 2.0)
    a, b = factors.read_a(), factors.read_b()
    found = compare_with_base(folder, base())
    first, second = found.layers
    assert first.delta_norm == pytest.approx(float((2.0 * b @ a).norm()), rel=1e-4)
    assert first.balance == pytest.approx(float(b.norm() / a.norm()), rel=1e-6)
    assert first.rank == 4 and second.rank is None and second.movement == 0.0
    assert found.of_adapter and found.change.kind is ChangeKind.LOW_RANK
    assert found.change.layers == {ChangeKind.IDENTICAL: ("2",), ChangeKind.LOW_RANK: ("0",)}
    assert (first.delta_rank, first.full_rank) == (4, SIZE)


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="pass base=, the model that it was made of"):
        compare_with_base(base())
    with pytest.raises(WeightsError, match="no layer in common"):
        compare_with_base(base(), {"other.weight": torch.randn(70, 60)})
    other = nn.Sequential(nn.Linear(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, 90))
    turned = compare_with_base(
        base(), {"0.weight": torch.eye(SIZE), "2.weight": torch.ones(60, 80)}
    )
    assert turned.skipped["2"] == "another shape there"  # of the same (N, M), but turned
    found = compare_with_base(base(), other)
    assert found.skipped["2"] == "another shape there" and len(found.layers) == 1
    assert read_factors(base()) == ()


@pytest.mark.slow
def test_pefts_module_holds_its_base_and_counts_the_same_intruders() -> None:
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.intruders import reduce_intruder_dimension

    plain = base()
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["0", "2"])
    model = get_peft_model(copy.deepcopy(plain), config)
    assert [x.movement for x in compare_with_base(model).layers] == [0.0, 0.0]  # B starts at zero
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 3.0)
    found, apart = compare_with_base(model), compare_with_base(model, plain)
    assert found.layers == apart.layers
    assert model.base_model.model[0].disable_adapters is False
    merged = compare_with_base(copy.deepcopy(model).merge_and_unload(), plain)
    for ours, whole in zip(found.layers, merged.layers, strict=True):
        assert ours.rank == 8 and ours.balance > 0.0
        assert ours.movement == pytest.approx(whole.movement, rel=1e-4)
        assert ours.intruders == whole.intruders > 0.0
    said: list[str] = []
    reduce_intruder_dimension(copy.deepcopy(model), logging_sink=said.append)
    counts = [float(line.split()[-1]) for line in said if "Intruders:" in line]
    assert counts == [layer.intruders for layer in found.layers]


def test_fused_and_turned_layers_and_files_elsewhere_are_compared(tmp_path: Path) -> None:
    """GPT-2's c_attn holds q, k and v in x out; the base lies in two shards, or in memory."""
    generator = torch.Generator().manual_seed(0)
    state = {
        "h.0.attn.c_attn.weight": torch.randn(64, 192, generator=generator),
        "wte.weight": torch.randn(90, 64, generator=generator),
    }
    delta = 0.1 * torch.randn(64, 2, generator=generator) @ torch.randn(2, 64, generator=generator)
    tuned = {name: weight.clone() for name, weight in state.items()}
    tuned["h.0.attn.c_attn.weight"][:, 64:128] += delta  # k
    shards = {"wte.weight": "a.safetensors", "h.0.attn.c_attn.weight": "b.safetensors"}
    for name, file in shards.items():
        save_file({name: state[name]}, tmp_path / file)
    index = {"metadata": {}, "weight_map": shards}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/base/model.safetensors", save(state))
    for base_of in (state, tmp_path, "memory://base/model.safetensors"):
        found = compare_with_base(tuned, base_of)
        kinds = {layer.name: layer.kind for layer in found.layers}
        assert kinds == {
            "h.0.attn.c_attn.q": ChangeKind.IDENTICAL,
            "h.0.attn.c_attn.k": ChangeKind.LOW_RANK,
            "h.0.attn.c_attn.v": ChangeKind.IDENTICAL,
            "wte": ChangeKind.IDENTICAL,
        }
    only = compare_with_base(tuned, tmp_path, layers=["h.0.attn.c_attn.k"])
    assert [(layer.name, layer.delta_rank) for layer in only.layers] == [("h.0.attn.c_attn.k", 2)]
