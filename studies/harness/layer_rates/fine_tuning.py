"""One fine-tuning of MiniLM under given rates, layer by layer, and what came of it.

AdamW with weight decay .01, warmed up over a tenth of the steps and then linearly down to zero, as
BERT is fine-tuned; batches of 32 passages; matrix products in bfloat16, whose loss of digits is far
below dropout's noise. A rule that reads spectra sets its factors before the first step and anew
before each epoch (an epoch has 22 steps; LLR's own interval is 100 of tens of thousands).
"""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import wwopt
from harness.data import Data, Tensors
from harness.layer_rates.minilm import load_minilm
from harness.layer_rates.speakers import SPEAKERS
from wwopt.study.temp_balance import FACTOR_KEY, Rule, compute_lr_factors, scale_learning_rates

EPOCHS, BATCH = 2, 32
POOL = 6  # batches whose passages are sorted by length
WARM_UP = 0.1  # of the steps
WEIGHT_DECAY = 0.01


def fine_tune(
    rates: Mapping[str, float], data: Data, *, rule: Rule | None = None, seed: int
) -> dict[str, Any]:
    """Train and judge one network.

    Args:
        rates: layer → peak of its learning rate; see `wwopt.LayerSpace.layers`.
        data: tokens and speakers.
        rule: whose factors multiply the rates; None for none.
        seed: of the head, the order of the passages and dropout.

    Returns:
        CPU seconds of training, factors included; mean training loss of the last epoch, with
        dropout, in nats; loss and error on validation and test passages; the validation-free score,
        None where it refuses the network.
    """
    x, y = data.train
    torch.manual_seed(seed)
    model = load_minilm(SPEAKERS)
    optimizer = wwopt.LayerHyperparameters(lr=rates).optimizer(
        model, torch.optim.AdamW, weight_decay=WEIGHT_DECAY, fused=True
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    steps = EPOCHS * math.ceil(len(x) / BATCH)
    step, start = 0, time.process_time()
    for _ in range(EPOCHS):
        if rule is not None:
            metrics = wwopt.analyze(model, shuffles=0, workers=1)
            scale_learning_rates(optimizer, compute_lr_factors(metrics, rule=rule))
        model.train()
        losses = []
        for batch in draw_batches(x):
            share = share_of_peak(step, steps)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share * group.get(FACTOR_KEY, 1.0)
            loss = cross_entropy(compute_logits(model, x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            step += 1
    seconds = time.process_time() - start
    train_loss = torch.stack(losses).mean().item()
    score = wwopt.SpectralObjective("validation-free")(
        wwopt.analyze(model, seed=seed, workers=1), train_loss=train_loss
    )
    return {
        "seconds": seconds,
        "train_loss": train_loss,
        "score": score.value if score.status == "ok" else None,
        "validation": measure(model, data.validation),
        "test": measure(model, data.test),
    }


def draw_batches(tokens: torch.Tensor) -> list[torch.Tensor]:
    """Rows of each batch of an epoch, in random order, of alike lengths: a fifth less is padded."""
    lengths = (tokens != 0).sum(1)
    pools = torch.randperm(len(tokens)).split(POOL * BATCH)
    batches = [b for pool in pools for b in pool[lengths[pool].argsort(stable=True)].split(BATCH)]
    return [batches[i] for i in torch.randperm(len(batches)).tolist()]


def share_of_peak(step: int, steps: int) -> float:
    """The learning rate at a step, counted from 0, in units of its peak."""
    warm = max(1, round(WARM_UP * steps))
    return min((step + 1) / warm, (steps - step) / (steps - warm + 1))


def compute_logits(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (batch, classes); columns without any token are left out first."""
    longest = int((tokens != 0).sum(1).max())
    with torch.autocast("cpu", torch.bfloat16):
        logits: torch.Tensor = model(tokens[:, :longest])
    return logits.float()


@torch.no_grad()
def measure(model: nn.Module, part: Tensors) -> dict[str, float]:
    """Loss in nats, and error in %, without dropout."""
    model.eval()
    x, y = part
    order = (x != 0).sum(1).argsort()  # by length, so that little is padded
    x, y = x[order], y[order]
    logits = torch.cat([compute_logits(model, rows) for rows in x.split(100)])
    wrong = (logits.argmax(1) != y).double().mean()
    return {"loss": float(cross_entropy(logits, y)), "error": 100.0 * float(wrong)}
