"""How far a layer may move between two checkpoints before it counts as broken."""

import dataclasses
import math
from dataclasses import dataclass, fields
from typing import Any


def _limit(default: float, words: str, *, factor: bool = False) -> Any:
    return dataclasses.field(default=default, metadata={"words": words, "factor": factor})


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """How far a quantity may move, either way, before its layer counts as broken.

    Unless said otherwise a default is 1.25 times the furthest that a harmless change (bf16
    rounding, int8 weights, further training at a normal learning rate) moved any layer of the
    networks on the calibration side of studies/calibrate_gate.py. The hits and false alarms on
    the other networks are in docs/gate.md. inf switches a threshold off.
    """

    scale: float = _limit(1.18, "Factor on all weights of a layer.", factor=True)
    # Less 1.5/n: an eigenvalue that passes another moves it by 1/n, much where n is 10.
    ks: float = _limit(0.065, "Distance (KS) of the spectra less 1.5/n, scale divided out.")
    alpha: float = _limit(2.6, "Change of alpha, in standard errors.")
    hill: float = _limit(1.18, "Factor on h - 1, h the averaged Hill estimate.", factor=True)
    spectral_norm: float = _limit(1.4, "Factor on λmax, scale divided out.", factor=True)
    norm: float = _limit(1.21, "Factor on the sum of λ, scale divided out.", factor=True)
    stable_rank: float = _limit(1.3, "Factor on the stable rank.", factor=True)
    mean: float = _limit(0.066, "Shift of the entries' mean, in standard deviations.")
    kurtosis: float = _limit(1.23, "Factor on the kurtosis of the entries.", factor=True)
    max_abs: float = _limit(1.18, "Factor on the largest |w|/standard deviation.", factor=True)
    # The mean score of three shuffles scatters by .76 to .83 (benchmarks/error_shuffles.py), the
    # difference of two such means by 1.1 to 1.2.
    traps: float = _limit(3.0, "Rise of the trap score to 4 or more, Tracy-Widom units.")
    # No harmless change loses rank; the rest is for rounding.
    rank: float = _limit(0.02, "Share of the matrix rank that is lost.")
    # By effect: the sparsity from which pruning a layer cost accuracy on the calibration side.
    zeros: float = _limit(0.9, "Rise of the share of weights that are zero.")
    # Over 1 + 5/M: learning moves a few directions, and a layer of 10 has only a few.
    noise: float = _limit(0.13, "Change without direction, relative to the weights, over 1 + 5/M.")
    # Off: a model trained again from another seed moves by 1.4 and is none the worse.
    relative_change: float = _limit(math.inf, "Norm of the change, relative to the weights.")

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            least = 1.0 if limit.metadata["factor"] else 0.0
            if not value > least:
                raise ValueError(f"threshold {limit.name} must be above {least:g}, got {value:g}")

    def allowed(self, quantity: str) -> float:
        """The threshold on the scale of `moved`, where factors are logarithms."""
        value: float = getattr(self, quantity)
        return math.log(value) if quantity in FACTORS else value


FACTORS = frozenset(f.name for f in fields(Thresholds) if f.metadata["factor"])
