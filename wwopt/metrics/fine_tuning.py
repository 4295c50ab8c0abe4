"""What fine-tuning did to each layer of its base: how far it moved, into how many directions.

With W₀ the base's weights, W₁ the tuned ones and Δ = W₁ - W₀:

    movement     ‖Δ‖/‖W₀‖, Frobenius norms
    stable rank  ‖Δ‖²/σ₁(Δ)²: how many directions share the change
    intruders    of the first 10 left singular vectors of W₁, how many have a cosine below .5 with
                 each one of W₀: directions that the base did not have, strong enough to lead
                 (Shuttleworth et al. 2024, arXiv:2410.21228; both numbers are the defaults of
                 peft's `reduce_intruder_dimension`)
    balance      ‖B‖/‖A‖ of an adapter's factors: 0 before training, since B starts at zero. Far
                 below 1, B learned slower than A, which one rate for both tends to (LoRA+, Hayou
                 et al. 2024, arXiv:2402.12354, section 3)

A full fine-tune is scored twice, its weights and its difference. The difference of a LoRA is low in
rank by construction, and has no power law to score.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch

from wwopt.metrics.analysis import analyze
from wwopt.metrics.objective import ObjectiveValue, SpectralObjective
from wwopt.weights.lora import AdapterFactors
from wwopt.weights.matrices import WeightMatrix, is_path, read_factors, read_weights
from wwopt.weights.stored_tensors import WeightsError
from wwopt.weights.tensor_names import bare_name, match_names

TOP = 10  # singular vectors of the tuned weights that are looked at
COSINE = 0.5  # with a vector of the base, below which one is an intruder


@dataclass(frozen=True, kw_only=True)
class LayerMovement:
    """What fine-tuning did to one layer; NaN where it is not known."""

    name: str
    N: int
    M: int  # of each slice, N >= M
    movement: float  # ‖Δ‖/‖W₀‖
    delta_norm: float  # ‖Δ‖, Frobenius
    delta_spectral_norm: float  # σ₁(Δ), of the largest slice
    delta_stable_rank: float  # (‖Δ‖/σ₁(Δ))²; NaN where nothing moved
    intruders: float  # of the first 10 singular vectors; NaN where there are slices
    rank: int | None = None  # of its LoRA; None where the weight itself was trained, or frozen
    balance: float = math.nan  # ‖B‖/‖A‖ of its LoRA


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What fine-tuning did to a model."""

    layers: tuple[LayerMovement, ...]
    skipped: Mapping[str, str]  # tensor or layer → why it is not compared
    weights: ObjectiveValue  # the weights-only score of the tuned weights
    difference: ObjectiveValue | None  # … of the difference; None where adapters made it

    @property
    def moved(self) -> tuple[LayerMovement, ...]:
        """The layers that training changed."""
        return tuple(layer for layer in self.layers if layer.movement > 0.0)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, one column a quantity."""
        return pd.DataFrame([asdict(layer) for layer in self.layers])

    def summary(self) -> dict[str, float]:
        """Over the layers that moved: means, and the sum of the intruders; for `recorder.step`."""
        moved = self.moved
        return {
            "movement": _mean([layer.movement for layer in moved]),
            "delta_stable_rank": _mean([layer.delta_stable_rank for layer in moved]),
            "intruders": math.fsum(x.intruders for x in moved if not math.isnan(x.intruders)),
            "balance": _mean([layer.balance for layer in moved]),
        }


def compare_with_base(
    source: Any,
    base: Any = None,
    *,
    top: int = TOP,
    cosine: float = COSINE,
    seed: int = 0,
) -> FineTuning:
    """Compare a fine-tuned model with its base, layer by layer.

    Args:
        source: a module (PEFT's too), a state dict, a checkpoint, or an adapter's folder.
        base: what it was made of; may be None for a PEFT module, which holds it, but for layers
            in `modules_to_save`: those stand as they are on both sides.
        top: leading singular vectors among which intruders are counted.
        cosine: below which one is an intruder.
        seed: of the shuffles behind the scores.

    Raises:
        WeightsError: if a source cannot be read, there is no base, or they have no layer in common.
    """
    factors = read_factors(source)
    if base is None and not hasattr(source, "disable_adapter"):
        raise WeightsError(
            "a fine-tuned model is compared with its base: pass base=, the model that it was made "
            "of; only a PEFT module holds it"
        )
    alone = is_path(source) and factors  # an adapter's folder, which its base completes
    tuned = read_weights(source, base=base if alone else None)
    # PEFT's layers tell while the base is listed whether their adapters act.
    idle: AbstractContextManager[Any] = source.disable_adapter() if base is None else nullcontext()
    with idle:
        under = read_weights(source if base is None else base)
    by_name = {matrix.name: matrix for matrix in under.matrices}
    pairs = match_names([matrix.name for matrix in tuned.matrices], list(by_name))
    skipped = dict(tuned.skipped)
    layers = []
    for matrix in tuned.matrices:
        partner = by_name.get(pairs.get(matrix.name, ""))
        if partner is None or partner.shape != matrix.shape:
            skipped[matrix.name] = "not in the base" if partner is None else "another shape there"
            continue
        adapter = _find_factors(matrix.name, factors)
        layers.append(_compare(matrix, partner, adapter, top=top, cosine=cosine))
    if not layers:
        raise WeightsError("the fine-tuned model and the base have no layer in common")
    score = SpectralObjective("weights-only")
    difference = None if factors else score(analyze(source, base=base, seed=seed))
    return FineTuning(
        layers=tuple(layers),
        skipped=skipped,
        weights=score(analyze(tuned, seed=seed)),
        difference=difference,
    )


def _compare(
    tuned: WeightMatrix,
    base: WeightMatrix,
    adapter: AdapterFactors | None,
    *,
    top: int,
    cosine: float,
) -> LayerMovement:
    now, before = (matrix.read().to(torch.float32) for matrix in (tuned, base))
    before = before.to(now.device)
    delta = now - before
    norm = float(torch.linalg.vector_norm(delta, dtype=torch.float64))
    spectral = float(torch.linalg.matrix_norm(delta, 2).max()) if norm > 0.0 else 0.0
    intruders = 0.0
    if norm > 0.0:
        intruders = _count_intruders(now[0], before[0], top, cosine) if len(now) == 1 else math.nan
    balance = math.nan
    if adapter is not None:
        a, b = (
            float(torch.linalg.vector_norm(read())) for read in (adapter.read_a, adapter.read_b)
        )
        balance = b / a if a > 0.0 else math.nan
    return LayerMovement(
        name=tuned.name,
        N=tuned.shape[0],
        M=tuned.shape[1],
        movement=norm / float(torch.linalg.vector_norm(before, dtype=torch.float64)),
        delta_norm=norm,
        delta_spectral_norm=spectral,
        delta_stable_rank=(norm / spectral) ** 2 if spectral > 0.0 else math.nan,
        intruders=intruders,
        rank=None if adapter is None else adapter.rank,
        balance=balance,
    )


def _count_intruders(now: torch.Tensor, before: torch.Tensor, top: int, cosine: float) -> float:
    ours = torch.linalg.svd(now, full_matrices=False).U[:, :top]
    theirs = torch.linalg.svd(before, full_matrices=False).U
    nearest = (theirs.T @ ours).abs().amax(0)  # (top,)
    return float((nearest < cosine).sum())


def _find_factors(name: str, factors: Sequence[AdapterFactors]) -> AdapterFactors | None:
    """The adapter of a layer, or of the module whose part it is, as q of a fused projection."""

    def candidates() -> Iterator[AdapterFactors]:
        bare = bare_name(name)
        for factor in factors:
            layer = bare_name(factor.layer)
            if f"{bare}.".startswith(f"{layer}.") or f".{layer}".endswith(f".{bare}"):
                yield factor

    return next(candidates(), None)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
