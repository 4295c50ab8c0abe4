"""Published, good checkpoints score better than noise and are not called broken."""

from pathlib import Path

import pytest
import torch

import wwopt
from published_checkpoints import PACKAGES, fetch, judge, shuffle
from wwopt.weights import read_weights


def test_shuffled_weights_keep_their_entries_and_lose_their_order() -> None:
    weights = read_weights({"fc.weight": torch.arange(6400.0).reshape(80, 80)})
    (own,), (moved,) = weights.matrices, shuffle(weights, seed=1).matrices
    assert not torch.equal(own.read(), moved.read())
    assert torch.equal(own.read().flatten(), moved.read().flatten().sort().values)
    assert torch.equal(moved.read(), shuffle(weights, seed=1).matrices[0].read())


def test_a_checkpoint_is_judged_beside_its_shuffled_copies(tmp_path: Path) -> None:
    torch.manual_seed(0)
    structure = torch.randn(80, 8) @ torch.randn(8, 60) + torch.randn(80, 60)
    torch.save({"fc.weight": structure}, tmp_path / "model.pt")
    found = judge("one", tmp_path / "model.pt")
    assert found["better"] == "yes" and found["status"] == "ok"
    own = wwopt.SpectralObjective()(wwopt.analyze(tmp_path / "model.pt")).value
    assert found["score"] == pytest.approx(own, abs=1e-3)


@pytest.mark.integration
@pytest.mark.parametrize("package", ["chgnet", "resemblyzer"])  # the smallest two
def test_networks_that_people_use_beat_noise_and_are_not_broken(
    package: str, tmp_path: Path
) -> None:
    try:
        paths = fetch(PACKAGES[package], tmp_path)
    except RuntimeError as error:
        pytest.skip(str(error))
    for name, path in paths.items():
        found = judge(name, path)
        assert (found["better"], found["refused by guards"]) == ("yes", "–"), found
