"""What training added is subtracted by name, whatever wraps it, and never by position."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wwopt.weights.matrices import read_weights


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "module._orig_mod.model."])
def test_base_is_subtracted_by_name_whatever_wraps_it(prefix: str) -> None:
    before = {"fc1.weight": torch.randn(4, 3), "fc2.weight": torch.randn(5, 4)}
    step = {name: torch.randn_like(weight) for name, weight in before.items()}
    after = {prefix + name: before[name] + step[name] for name in reversed(before)}
    weights = read_weights(after, base=before)
    assert weights.skipped == {}
    for matrix in weights.matrices:
        expected = step[f"{matrix.name.removeprefix(prefix)}.weight"]
        torch.testing.assert_close(matrix.read()[0], expected)
    assert len(read_weights(before, base=after).matrices) == 2


def test_an_extra_layer_shifts_no_pairs_and_is_named() -> None:
    before = {
        "a.weight": torch.ones(3, 3),
        "c.weight": torch.ones(4, 4),
        "d.weight": torch.ones(2, 2),
    }
    after = {
        "a.weight": torch.ones(3, 3) * 3,
        "b.weight": torch.ones(3, 3),
        "c.weight": torch.ones(5, 4),
    }
    weights = read_weights(after, base=before)
    assert read_weights(before, base={"a.weight": torch.eye(3).int()}).matrices == ()
    assert {matrix.name: float(matrix.read()[0, 0, 0]) for matrix in weights.matrices} == {"a": 2.0}
    assert weights.skipped == {
        "b.weight": "not in the base",
        "c.weight": "shape (5, 4) here, (4, 4) in the base",
        "d.weight": "only in the base",
    }


def test_an_exact_partner_is_not_taken_by_a_prefixed_name() -> None:
    both = {"fc.weight": torch.ones(2, 2), "model.fc.weight": torch.ones(2, 2) * 2}
    weights = read_weights(both, base={"fc.weight": torch.ones(2, 2)})
    assert [matrix.name for matrix in weights.matrices] == ["fc"]
    assert weights.skipped == {"model.fc.weight": "not in the base"}


def test_a_head_around_the_base_is_seen_through() -> None:
    base = {f"h.{i}.weight": torch.ones(3, 3) * i for i in range(4)}
    tuned = {f"transformer.{name}": weight + 1 for name, weight in base.items()}
    tuned |= {"lm_head.weight": torch.ones(3, 3)}
    for source, other, sign in ((tuned, base, 1.0), (base, tuned, -1.0)):
        weights = read_weights(source, base=other)
        assert len(weights.matrices) == 4
        assert all(torch.equal(m.read()[0], torch.full((3, 3), sign)) for m in weights.matrices)
        assert list(weights.skipped) == ["lm_head.weight"]


def test_one_common_name_is_no_wrapper() -> None:
    base = {"fc.weight": torch.ones(3, 3), "out.weight": torch.ones(3, 3)}
    weights = read_weights({"encoder.fc.weight": torch.ones(3, 3)}, base=base)
    assert weights.matrices == ()


def test_a_file_and_a_module_can_be_compared(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ConvTranspose2d(4, 4, 3, groups=2))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    weights = read_weights(tmp_path / "w.safetensors", base=model)
    assert [matrix.num_slices for matrix in weights.matrices] == [1, 18]  # the module knows groups
    assert weights.matrices[1].kind == "conv_transpose2d"
    assert all(not matrix.read().any() for matrix in weights.matrices)
