"""Copies of a network that were changed in known ways, and what was done to each layer.

Every case knows, layer by layer, what was done to it. Where two things were done, as a fine-tune
that was rounded afterwards, the larger of the two changes, by its norm in that layer, names it.
All follows from the network's name and its seed.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import nn

from harness.changes.edits import EDITS, Weights, edit_matrices
from harness.changes.tuning import MiniLMTuner, SmallTuner
from harness.damage import Parts, quantize
from wwopt.metrics.base.movement_measures import measure_movement
from wwopt.metrics.base.movements import ChangeKind
from wwopt.selection.kinship import compare_directions, read_directions
from wwopt.weights.matrices import WeightMatrix, read_weights

SMALL = ("digits-mlp-256", "digits-transformer", "mnist-mlp-256", "mnist-cnn")
MINILM = "minilm"
RANKS = {0: (1, 8, 64), 1: (2, 4, 16, 32)}  # of LoRA: design half, judged half


@dataclass(frozen=True)
class Change:
    """One changed copy of a network, and what was done to it."""

    name: str
    weights: Weights
    done: ChangeKind  # to each layer that is not the same
    before_last: Weights | None = None  # where a fine-tune was rounded: the fine-tune
    rank: int = 0  # of a LoRA


def make_changes(name: str, seed: int, parts: Parts) -> tuple[Weights, Iterator[Change]]:
    """Train a network, and change copies of it; even seeds are for design, odd ones for judging."""
    trainer = MiniLMTuner(parts) if name == MINILM else SmallTuner(name, seed, parts)
    torch.manual_seed(1000 + seed)
    start = trainer.make()
    base = trainer.train(copy.deepcopy(start), 1.0, epochs=trainer.epochs)
    return _state(base), _change(trainer, start, base, seed)


def _change(
    trainer: SmallTuner | MiniLMTuner, start: nn.Module, base: nn.Module, seed: int
) -> Iterator[Change]:
    half = seed % 2
    weights = _state(base)
    yield Change("identical", weights, ChangeKind.IDENTICAL)
    for name, (edit, kind) in EDITS[half].items():
        yield Change(name, edit_matrices(weights, edit), kind)
    bad = trainer.bad_rate
    rates = ((1.0, 1), (bad, 1)) if half == 0 else ((0.1, 2), (1.0, 2), (bad / 2, 1), (bad, 1))
    tuned: dict[str, Weights] = {}
    for factor, epochs in rates:
        label = f"fine-tuned, rate × {factor:g}"
        tuned[label] = _state(trainer.train(copy.deepcopy(base), factor, epochs=epochs, new=True))
        yield Change(label, tuned[label], ChangeKind.DENSE)
    more = trainer.train(copy.deepcopy(base), 1.0, epochs=1)
    yield Change("trained on", _state(more), ChangeKind.DENSE)
    only = trainer.layers[-1 if half == 0 else 0]
    frozen = trainer.train(copy.deepcopy(base), 1.0, epochs=1, new=True, only=(only,))
    yield Change(f"only {'the head' if half == 0 else 'the first layer'} trained", _state(frozen),
                 ChangeKind.DENSE)  # fmt: skip
    for rank in RANKS[half]:
        label = f"LoRA r={rank}"
        targets = trainer.layers if rank > 2 else trainer.layers[1:3]
        tuned[label] = _state(trainer.adapt(copy.deepcopy(base), rank, targets))
        yield Change(label, tuned[label], ChangeKind.LOW_RANK, rank=rank)
    after = {"bf16": EDITS[half]["bf16"], "int8 per row": (lambda w: quantize(w, 8), None)}
    after |= {} if half == 0 else {"int4 per 32": EDITS[1]["int4 per 32"]}
    for label in (f"fine-tuned, rate × {rates[half][0]:g}", f"LoRA r={RANKS[half][1]}"):
        done = ChangeKind.LOW_RANK if "LoRA" in label else ChangeKind.DENSE
        for name, (edit, _) in after.items():
            rounded = edit_matrices(tuned[label], edit)
            yield Change(f"{label}, then {name}", rounded, done, tuned[label], RANKS[half][1])
    torch.manual_seed(5000 + seed)
    other = trainer.train(trainer.make_anew(), 1.0, epochs=max(trainer.epochs, 1))
    yield Change("another seed", _state(other), ChangeKind.ANOTHER)
    if trainer.epochs:
        sibling = trainer.train(copy.deepcopy(start), 1.0, epochs=trainer.epochs)
        yield Change("another run from one start", _state(sibling), ChangeKind.DENSE)


def measure(name: str, seed: int, parts: Parts) -> list[dict[str, Any]]:
    """Measure every layer of every change; plain data for JSON, with what was done."""
    base, changes = make_changes(name, seed, parts)
    before = {matrix.name: matrix for matrix in read_weights(base).matrices}
    return [
        {
            "network": name,
            "seed": seed,
            "change": change.name,
            "layers": [
                {
                    **measure_movement(matrix, before[matrix.name]).to_dict(),
                    "truth": find_truth(change, matrix, base).value,
                }
                for matrix in read_weights(change.weights).matrices
            ],
        }
        for change in changes
        if all(bool(w.isfinite().all()) for w in change.weights.values())
    ]


def measure_siblings(name: str, seed: int, parts: Parts) -> list[dict[str, Any]]:
    """How alike runs from one initialisation are, at a third, one and two times the rate."""
    trainer = SmallTuner(name, seed, parts)
    torch.manual_seed(1000 + seed)
    start = trainer.make()
    runs = {"the start": start}
    for factor in (1.0, 1.0 / 3.0, 2.0):
        again = trainer.train(copy.deepcopy(start), factor, epochs=trainer.epochs)
        runs[f"rate × {factor:.2g}"] = again
    found = {label: read_directions(read_weights(model)) for label, model in runs.items()}
    pairs = []
    for one, other in combinations(runs, 2):
        overlap, _, limit = compare_directions(found[one], found[other])
        pairs.append({"pair": f"{one}, {other}", "overlap": overlap, "limit": limit})
    return pairs


def find_truth(
    change: Change, matrix: WeightMatrix, base: Mapping[str, torch.Tensor]
) -> ChangeKind:
    """What was done to a layer: of two things the larger."""

    def read(weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return next(m for m in read_weights(dict(weights)).matrices if m.name == matrix.name).read()

    now, before = matrix.read(), read(base)
    if torch.equal(now, before):
        return ChangeKind.IDENTICAL
    done = change.done
    if done is ChangeKind.LOW_RANK and 3 * change.rank > find_full_rank(matrix):
        done = ChangeKind.DENSE  # more than a third of all directions
    if change.before_last is None:
        return done
    tuned = read(change.before_last)
    if torch.linalg.vector_norm(now - tuned) > torch.linalg.vector_norm(tuned - before):
        return ChangeKind.OTHER_DTYPE if change.name.endswith("bf16") else ChangeKind.ROUNDING
    return done


def find_full_rank(matrix: WeightMatrix) -> int:
    """Of a convolution with its kernel positions side by side."""
    if not matrix.kind.startswith("conv"):
        return min(matrix.shape)
    columns = matrix.shape[0] * matrix.shape[1] // matrix.outputs
    return min(matrix.outputs, columns * matrix.num_slices)


def _state(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
