"""Networks trained for a while or not at all, and their ranking."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fixtures.networks.digit_networks import make_mlp, train
from safetensors.torch import save_file
from torch import nn

from wwopt.selection.rankings import Ranking
from wwopt.selection.selection import rank

EPOCHS = (0, 1, 8)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MLP after several epochs, MLPs of three widths, and files that are no candidates."""
    folder = tmp_path_factory.mktemp("candidates")
    for epochs in EPOCHS:
        torch.manual_seed(0)
        model = train(make_mlp(128), epochs)
        save_file(model.state_dict(), folder / f"epochs-{epochs}.safetensors")
    for width in (64, 128, 192):
        torch.manual_seed(0)
        model = train(make_mlp(width), 4)
        save_file(model.state_dict(), folder / f"width-{width}.safetensors")
    (folder / "noise.safetensors").write_bytes(b"not a checkpoint")
    torch.save(nn.Linear(64, 64), folder / "pickle.pt")
    save_file({"fc.weight": torch.randn(30, 20)}, folder / "tiny.safetensors")
    save_file({"bias": torch.randn(30)}, folder / "vectors.safetensors")
    return folder


@pytest.fixture(scope="session")
def sources(folder: Path) -> dict[str, Path]:
    return {f"{epochs} epochs": folder / f"epochs-{epochs}.safetensors" for epochs in EPOCHS}


@pytest.fixture(scope="session")
def ranking(sources: dict[str, Path]) -> Ranking:
    return rank(sources)
