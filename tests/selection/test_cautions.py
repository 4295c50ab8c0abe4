"""What to beware of in a candidate is named by layer."""

from __future__ import annotations

import numpy as np
import torch

from wwopt.selection.selection import rank


def test_warnings_name_what_to_beware_of() -> None:
    rng = np.random.default_rng(0)
    trapped = rng.normal(size=(200, 100)).astype(np.float32)
    trapped[:3, :3] = 60.0
    rest = np.zeros((400, 400), np.float32)
    state = {
        "trapped.weight": torch.as_tensor(trapped),
        "random.weight": torch.as_tensor(rng.normal(size=(200, 100)).astype(np.float32)),
        "norm.weight": torch.ones(30_000),
        "zero.weight": torch.as_tensor(rest),
    }
    (candidate,) = rank({"a": state})
    text = "; ".join(candidate.warnings)
    assert "1 of 3 layers with correlation traps: trapped" in text
    assert "2 of 3 layers like a random matrix: trapped, random" in text
    assert "broken or without a fit: zero" in text
    assert candidate.status.startswith("broken: zero")
    few = {k: v for k, v in state.items() if k in ("random.weight", "norm.weight")}
    (candidate,) = rank({"a": few})
    assert "hold 40% of the parameters" in "; ".join(candidate.warnings)
