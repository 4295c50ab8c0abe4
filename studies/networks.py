"""The networks that the studies train: an MLP, a small CNN, a small transformer over characters.

All have a dropout after every hidden layer, at rate 0, for a search to set.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

CHARACTERS = 65  # different ones in tinyshakespeare


class Block(nn.Module):
    """A transformer block, causal, norm first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.drop1 = nn.Dropout(0.0)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.drop2 = nn.Dropout(0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, width) → the same."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, dim=2)
        )
        heads = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop1(self.proj(heads.transpose(1, 2).flatten(2)))
        return x + self.drop2(self.down(torch.relu(self.up(self.norm2(x)))))


class CharGPT(nn.Module):
    """A small transformer over characters."""

    def __init__(self, *, width: int = 96, depth: int = 2, context: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, width)
        self.place = nn.Parameter(0.02 * torch.randn(1, context, width))
        self.blocks = nn.Sequential(*(Block(width, heads=4) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CHARACTERS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Characters (batch, time) → logits (batch, time, CHARACTERS)."""
        return self.head(self.norm(self.blocks(self.embed(x) + self.place[:, : x.shape[1]])))


def mlp(*widths: int) -> nn.Sequential:
    """ReLU MLP with a dropout after every hidden layer."""
    layers: dict[str, nn.Module] = {}
    for i, (fan_in, fan_out) in enumerate(pairwise(widths[:-1])):
        layers[f"l{i}"] = nn.Linear(fan_in, fan_out)
        layers[f"relu{i}"] = nn.ReLU()
        layers[f"drop{i}"] = nn.Dropout(0.0)
    last = f"l{len(widths) - 2}"
    return nn.Sequential(OrderedDict(layers, **{last: nn.Linear(widths[-2], widths[-1])}))


def cnn(*, norm: bool = False) -> nn.Sequential:
    """Three convolutions and two dense layers, 28×28 → 10."""

    def convolve(fan_in: int, fan_out: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(fan_in, fan_out, 3, stride, 1)
        norms = [nn.BatchNorm2d(fan_out)] if norm else []
        return [convolution, *norms, nn.ReLU(), nn.Dropout(0.0)]

    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        *convolve(1, 32, 2),
        *convolve(32, 64, 2),
        *convolve(64, 64, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(64 * 16, 128),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(128, 10),
    )
