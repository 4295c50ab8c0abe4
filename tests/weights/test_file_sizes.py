"""The bytes of a file are counted as its writer makes them, also where its types are mixed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wwopt.weights.file_sizes import count_file_bytes

MIXED = {
    "ß.weight": torch.zeros(3, 5),
    "b": torch.zeros(7, dtype=torch.int8),
    "a": torch.zeros(2, 2, 2, dtype=torch.float16),
    "empty": torch.zeros(0, 4),
    "one": torch.tensor(1),
}


@pytest.mark.parametrize("tensors", [{}, MIXED, {"w": torch.zeros(100, 100).bfloat16()}])
@pytest.mark.parametrize("metadata", [{}, {"tied": "größer"}])
def test_the_count_is_the_file(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "file.safetensors"
    save_file(tensors, path, metadata=metadata or None)
    assert count_file_bytes(tensors, metadata) == path.stat().st_size
