"""What became of a base: each layer of a tuned model beside the layer that it was made of.

The numbers and the kinds of change are those of `wwopt.metrics.base.movements`. The difference is
no network, and no spectral score reads it: see docs/fine-tunes.md.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from wwopt.metrics.base.movement_measures import COSINE, TOP, measure_movement
from wwopt.metrics.base.movements import LayerMovement, ModelChange, summarize_movements
from wwopt.plain_data import make_plain
from wwopt.weights.lora import AdapterFactors
from wwopt.weights.matrices import (
    WeightMatrix,
    Weights,
    is_path,
    open_with_key,
    read_factors,
    read_weights,
)
from wwopt.weights.stored_tensors import WeightsError
from wwopt.weights.tensor_names import bare_name, match_names


@dataclass(frozen=True, kw_only=True)
class BaseComparison:
    """What became of each layer of a base."""

    layers: tuple[LayerMovement, ...]
    skipped: Mapping[str, str]  # tensor or layer → why it is not compared
    of_adapter: bool = False  # whether an adapter's folder was compared, on its base

    @property
    def change(self) -> ModelChange:
        """What kind of change the model went through, and where."""
        return summarize_movements(self.layers)

    @property
    def moved(self) -> tuple[LayerMovement, ...]:
        """The layers that training changed."""
        return tuple(layer for layer in self.layers if layer.movement > 0.0)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer, one column a quantity, and its kind of change."""
        return pd.DataFrame([layer.to_dict() for layer in self.layers])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is unknown is None."""
        rows = [make_plain(layer.to_dict()) for layer in self.layers]
        return {"change": self.change.to_dict(), "layers": rows, "skipped": dict(self.skipped)}

    def summary(self) -> dict[str, float]:
        """Over the layers that moved: means, and the sum of the intruders; for `recorder.step`."""
        moved = self.moved
        return {
            "movement": _mean([layer.movement for layer in moved]),
            "delta_stable_rank": _mean([layer.delta_stable_rank for layer in moved]),
            "overlap": _mean([layer.overlap for layer in moved]),
            "intruders": math.fsum(x.intruders for x in moved if not math.isnan(x.intruders)),
            "balance": _mean([layer.balance for layer in moved]),
        }


def compare_with_base(
    source: Any,
    base: Any = None,
    *,
    layers: Sequence[str] | None = None,
    key: str | None = None,
    top: int = TOP,
    cosine: float = COSINE,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> BaseComparison:
    """Compare a tuned model with its base, layer by layer.

    Args:
        source: a module (PEFT's too), a state dict, a checkpoint, or an adapter's folder.
        base: what it was made of; may be None for a PEFT module, which holds it, but for layers
            in `modules_to_save`: those stand as they are on both sides.
        layers: names or patterns to compare; None for all.
        key: dotted path of the model in checkpoints that hold several; of both sides, but that one
            of them may be a model alone, which has no keys.
        top: leading singular vectors that are compared, and among which intruders are counted.
        cosine: below which one is an intruder.
        device: where to compute; None for where the weights lie.
        progress: show a bar, from two seconds on.

    Raises:
        WeightsError: if a source cannot be read, there is no base, or they have no layer in common.
    """
    held = [source] if base is None else [source, base]
    factors, *_ = open_with_key([partial(_list_factors, one) for one in held], key)
    if base is None and not hasattr(source, "disable_adapter"):
        raise WeightsError(
            "a tuned model is compared with its base: pass base=, the model that it was made "
            "of; only a PEFT module holds it"
        )
    alone = is_path(source) and factors  # an adapter's folder, which its base completes
    # PEFT's layers tell while the base is listed whether their adapters act.
    idle: AbstractContextManager[Any] = source.disable_adapter() if base is None else nullcontext()
    read = [partial(_read, source, base if alone else None, layers)]
    if base is not None:
        read.append(partial(_read, base, None, layers))
    tuned, *bases = open_with_key(read, key)
    with idle:
        under = bases[0] if bases else read_weights(source, layers=layers)
    by_name = {matrix.name: matrix for matrix in under.matrices}
    pairs = match_names([matrix.name for matrix in tuned.matrices], list(by_name))
    skipped = dict(tuned.skipped)
    found = []
    for matrix in tqdm(tuned.matrices, desc="layers", delay=2, disable=not progress):
        partner = by_name.get(pairs.get(matrix.name, ""))
        if partner is None or not have_one_shape(matrix, partner):
            skipped[matrix.name] = "not in the base" if partner is None else "another shape there"
            continue
        moved = measure_movement(matrix, partner, top=top, cosine=cosine, device=device)
        adapter = _find_factors(matrix.name, factors)
        found.append(moved if adapter is None else _add_adapter(moved, adapter))
    if not found:
        raise WeightsError(_why_apart(tuned, under))
    return BaseComparison(layers=tuple(found), skipped=skipped, of_adapter=bool(alone))


def have_one_shape(one: WeightMatrix, other: WeightMatrix) -> bool:
    """Whether two layers can be subtracted: shape, orientation and number of slices."""
    shapes = [(m.shape, m.num_slices, m.outputs) for m in (one, other)]
    return shapes[0] == shapes[1]


def _read(source: Any, base: Any, layers: Sequence[str] | None, key: str | None) -> Weights:
    return read_weights(source, base=base, layers=layers, key=key)


def _list_factors(source: Any, key: str | None) -> tuple[AdapterFactors, ...]:
    return read_factors(source, key=key)


def _why_apart(tuned: Weights, base: Weights) -> str:
    """Of another architecture, or of other shapes: names of both sides tell which."""
    sides = [next((m.name for m in side.matrices), "no layer") for side in (tuned, base)]
    return (
        f"the tuned model and the base have no layer in common: {sides[0]!r} and others here, "
        f"{sides[1]!r} and others there, by name and shape; is it the base of this model?"
    )


def _add_adapter(layer: LayerMovement, adapter: AdapterFactors) -> LayerMovement:
    a, b = (float(torch.linalg.vector_norm(read())) for read in (adapter.read_a, adapter.read_b))
    return replace(layer, rank=adapter.rank, balance=b / a if a > 0.0 else math.nan)


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
