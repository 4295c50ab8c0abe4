"""Under which conditions a network is trained: what a study holds fixed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Conditions:
    """Under which a network is trained; probes vary what a study holds fixed."""

    seed: int  # of initialisation, data order and shuffles
    epochs: int
    fraction: float = 1.0  # of the training data
    width: float = 1.0  # factor on the layers' widths
    depth: float = 1.0  # factor on the number of layers
    device: str | None = None
    checkpoint_dir: str | None = None  # where a training may keep its state: see docs/own-code.md
