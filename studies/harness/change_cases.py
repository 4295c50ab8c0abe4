"""Networks and copies of them that were changed in known ways: what `kinds_of_change.py` judges.

Every case knows, layer by layer, what was done to it. Where two things were done, as a fine-tune
that was rounded afterwards, the larger of the two changes, by its norm in that layer, names it.
All follows from the network's name and its seed.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from harness.damage import NETWORKS, Parts, prune, quantize, train
from harness.data import Tensors
from harness.layer_rates.fine_tuning import compute_logits, draw_batches
from harness.layer_rates.minilm import MiniLM, load_minilm
from wwopt.metrics.movement_measures import measure_movement
from wwopt.metrics.movements import ChangeKind
from wwopt.weights.matrices import WeightMatrix, read_weights

SMALL = ("digits-mlp-256", "digits-transformer", "mnist-mlp-256", "mnist-cnn")
MINILM = "minilm"
RANKS = {0: (1, 8, 64), 1: (2, 4, 16, 32)}  # of LoRA: design half, judged half
# QLoRA, Dettmers et al. 2023, arXiv:2305.14314, appendix E.
_BELOW = (-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911)
NF4 = torch.tensor((*_BELOW, 0.0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0))
Weights = dict[str, torch.Tensor]
Edit = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Change:
    """One changed copy of a network, and what was done to it."""

    name: str
    weights: Weights
    done: ChangeKind  # to each layer that is not the same
    before_last: Weights | None = None  # where a fine-tune was rounded: the fine-tune
    rank: int = 0  # of a LoRA


def cast(dtype: torch.dtype, *, scaled: bool = False) -> Edit:
    """To a floating-point format and back; scaled so that the largest weight is its largest."""

    def edit(w: torch.Tensor) -> torch.Tensor:
        scale = w.abs().max() / torch.finfo(dtype).max if scaled else torch.tensor(1.0)
        return (w / scale).to(dtype).float() * scale

    return edit


def per_group(bits: int, size: int, *, asymmetric: bool = False) -> Edit:
    """Equal steps in groups of a row; layers whose rows are no multiple of the size stay."""

    def edit(w: torch.Tensor) -> torch.Tensor:
        if w[0].numel() % size:
            return w
        groups = w.reshape(-1, size)
        if asymmetric:
            low = groups.amin(1, keepdim=True).clamp_max(0.0)
            high = groups.amax(1, keepdim=True).clamp_min(0.0)
            step = (high - low) / (2**bits - 1)
            zero = (-low / step).round()
            lined = ((groups / step).round() + zero).clamp(0, 2**bits - 1) - zero
            return (lined * step).reshape(w.shape)
        step = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        return ((groups / step).round() * step).reshape(w.shape)

    return edit


def to_nf4(w: torch.Tensor) -> torch.Tensor:
    """Sixteen levels of the normal distribution in groups of 64."""
    if w[0].numel() % 64:
        return w
    groups = w.reshape(-1, 64)
    top = groups.abs().amax(1, keepdim=True)
    middles = (NF4[1:] + NF4[:-1]) / 2.0
    return (NF4[torch.bucketize(groups / top, middles)] * top).reshape(w.shape)


def gguf(name: str) -> Edit:
    """As llama.cpp stores it, by the gguf package."""
    from gguf import GGMLQuantizationType, quants

    kind = GGMLQuantizationType[name]

    def edit(w: torch.Tensor) -> torch.Tensor:
        if w[0].numel() % 32:
            return w
        rows = np.ascontiguousarray(w.flatten(1).numpy())
        there = quants.dequantize(quants.quantize(rows, kind), kind)
        return torch.from_numpy(there.astype(np.float32)).reshape(w.shape)

    return edit


EDITS: dict[int, dict[str, tuple[Edit, ChangeKind]]] = {
    0: {  # design
        "bf16": (cast(torch.bfloat16), ChangeKind.OTHER_DTYPE),
        "fp8 e4m3, scaled": (cast(torch.float8_e4m3fn, scaled=True), ChangeKind.OTHER_DTYPE),
        "int8 per row": (lambda w: quantize(w, 8), ChangeKind.ROUNDING),
        "int4 per row": (lambda w: quantize(w, 4), ChangeKind.ROUNDING),
        "Q8_0": (gguf("Q8_0"), ChangeKind.ROUNDING),
        "NF4": (to_nf4, ChangeKind.ROUNDING),
        "pruned 50 %": (lambda w: prune(w, 0.5), ChangeKind.ZEROED),
        "scaled × .9": (lambda w: 0.9 * w, ChangeKind.SCALED),
    },
    1: {  # judged
        "fp16": (cast(torch.float16), ChangeKind.OTHER_DTYPE),
        "bf16": (cast(torch.bfloat16), ChangeKind.OTHER_DTYPE),
        "fp8 e4m3": (cast(torch.float8_e4m3fn), ChangeKind.OTHER_DTYPE),
        "fp8 e5m2, scaled": (cast(torch.float8_e5m2, scaled=True), ChangeKind.OTHER_DTYPE),
        "int8 per tensor": (lambda w: quantize(w, 8, per_row=False), ChangeKind.ROUNDING),
        "int4 per 32": (per_group(4, 32), ChangeKind.ROUNDING),
        "int4 per 64, asymmetric": (per_group(4, 64, asymmetric=True), ChangeKind.ROUNDING),
        "int8 per row, as bf16": (
            lambda w: quantize(w, 8).bfloat16().float(),
            ChangeKind.ROUNDING,
        ),
        "Q4_0": (gguf("Q4_0"), ChangeKind.ROUNDING),
        "6 bits per row": (lambda w: quantize(w, 6), ChangeKind.ROUNDING),
        "pruned 80 %": (lambda w: prune(w, 0.8), ChangeKind.ZEROED),
        "scaled × 1.1": (lambda w: 1.1 * w, ChangeKind.SCALED),
    },
}


def make_changes(name: str, seed: int, parts: Parts) -> tuple[Weights, Iterator[Change]]:
    """Train a network, and change copies of it; even seeds are for design, odd ones for judging."""
    trainer = _MiniLM(parts) if name == MINILM else _Small(name, seed, parts)
    torch.manual_seed(1000 + seed)
    start = trainer.make()
    base = trainer.train(copy.deepcopy(start), 1.0, epochs=trainer.epochs)
    return _state(base), _change(trainer, start, base, seed)


def _change(trainer: Any, start: nn.Module, base: nn.Module, seed: int) -> Iterator[Change]:
    half = seed % 2
    weights = _state(base)
    yield Change("identical", weights, ChangeKind.IDENTICAL)
    for name, (edit, kind) in EDITS[half].items():
        yield Change(name, _edit(weights, edit), kind)
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
            rounded = _edit(tuned[label], edit)
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


class _Small:
    """Trains the networks of `calibrate_gate.py`; new data are other labels of the same images."""

    def __init__(self, name: str, seed: int, parts: Parts) -> None:
        _, self.make, self.epochs = NETWORKS[name]
        self.bad_rate = 3.0 if "transformer" in name else 10.0  # at ten it diverges
        self.seed, self.parts, self.make_anew = seed, parts, self.make
        model = self.make()
        self.layers = [
            n for n, m in model.named_modules()
            if isinstance(m, nn.Linear | nn.Conv2d) and "out_proj" not in n
        ]  # fmt: skip

    def train(
        self,
        model: nn.Module,
        factor: float,
        *,
        epochs: int,
        new: bool = False,
        only: tuple[str, ...] = (),
    ) -> nn.Module:
        """Train on, at a multiple of the rate that the network was trained with."""
        data, _, _ = self.parts
        data = _relabel(data) if new else data
        name = only[0] if only else ""
        return train(model, data, epochs, self.seed, factor=factor, only=name)

    def adapt(self, model: nn.Module, rank: int, targets: list[str]) -> nn.Module:
        """Train a LoRA for two epochs and merge it."""
        data = _relabel(self.parts[0])
        return _adapt(model, rank, targets, lambda net: _descend(net, data, 2))


class _MiniLM:
    """Fine-tunes the published encoder for 12 steps of 32 passages an epoch."""

    bad_rate = 10.0
    epochs = 0  # the published weights are the base

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        parts_of = ("query", "value", "down", "up")
        self.layers = [f"blocks.{i}.{part}" for part in parts_of for i in range(6)] + ["head"]

    def make(self) -> nn.Module:
        """The published encoder under a new head."""
        return load_minilm(6)

    def make_anew(self) -> nn.Module:
        """Its architecture, before any training."""
        return MiniLM(6)

    def train(
        self,
        model: nn.Module,
        factor: float,
        *,
        epochs: int,
        new: bool = False,
        only: tuple[str, ...] = (),
    ) -> nn.Module:
        """AdamW, at a multiple of 3e-4."""
        chosen = [p for n, p in model.named_parameters() if not only or n.startswith(only)]
        _speak(model, chosen, self.parts[0], 3e-4 * factor, epochs)
        return model

    def adapt(self, model: nn.Module, rank: int, targets: list[str]) -> nn.Module:
        """Train a LoRA for an epoch and merge it; ranks up to 2 in query and value alone."""
        wanted = self.layers[:12] if rank <= 2 else self.layers[:-1]

        def learn(net: nn.Module) -> None:
            chosen = [p for p in net.parameters() if p.requires_grad]
            _speak(net, chosen, self.parts[0], 1e-3, 1)

        return _adapt(model, rank, wanted, learn)


def _speak(
    model: nn.Module, chosen: list[nn.Parameter], data: Tensors, rate: float, epochs: int
) -> None:
    x, y = data
    optimizer = torch.optim.AdamW(chosen, lr=rate, weight_decay=0.01)
    model.train()
    for _ in range(epochs):
        for batch in draw_batches(x)[:12]:
            loss = nn.functional.cross_entropy(compute_logits(model, x[batch]), y[batch])
            optimizer.zero_grad()
            model.zero_grad()
            loss.backward()
            optimizer.step()


def _adapt(
    model: nn.Module, rank: int, targets: list[str], learn: Callable[[nn.Module], None]
) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
    adapted = get_peft_model(model, config)
    learn(adapted)
    return adapted.merge_and_unload()


def _descend(model: nn.Module, data: Tensors, epochs: int) -> None:
    x, y = data
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _relabel(data: Tensors) -> Tensors:
    x, y = data
    return x, (y + 3) % 10


def _state(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _edit(weights: Mapping[str, torch.Tensor], edit: Edit) -> Weights:
    return {n: edit(w) if w.ndim >= 2 and w.is_floating_point() else w for n, w in weights.items()}
