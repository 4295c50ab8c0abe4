"""How the networks are trained, fine-tuned and adapted; all follows from a name and a seed."""

from collections.abc import Callable

import torch
from torch import nn

from harness.damage import NETWORKS, Parts, train
from harness.data import Tensors
from harness.layer_rates.fine_tuning import compute_logits, draw_batches
from harness.layer_rates.minilm import MiniLM, load_minilm


class SmallTuner:
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


class MiniLMTuner:
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
