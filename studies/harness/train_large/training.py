"""Train a network for a given CPU time, whatever the machine does besides, and keep it.

What counts is this process's CPU time in the loop: batches, passes, optimizer. The learning rate
follows the share of the time that is spent: up over the first twentieth, then down to 0 at the end,
so that every network ends its own schedule. The last step is left out if it would not end in time.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from harness.train_large.tasks import Parts, Size, Task, judge

WARM_UP = 0.05  # of the time


@dataclass(frozen=True)
class Recipe:
    """What a network is trained with; one recipe is one file."""

    size: Size
    batch: int  # examples
    rate: float  # the largest learning rate
    seed: int  # of weights and batches
    budget: float  # CPU seconds

    @property
    def name(self) -> str:
        """Of its file."""
        width, depth = self.size
        return f"{width}x{depth}-b{self.batch}-r{self.rate:.2e}-s{self.seed}-t{self.budget:g}"


@dataclass(frozen=True)
class Trained:
    """A network that was trained."""

    recipe: Recipe
    path: Path  # of its weights
    steps: int
    seconds: float  # CPU time of the loop
    validation: float  # quality, lower is better

    def load(self, task: Task) -> nn.Module:
        """The network itself."""
        model = task.make_model(self.recipe.size)
        model.load_state_dict(load_file(self.path))
        return model.eval()


def train_or_read(task: Task, parts: Parts, recipe: Recipe, folder: Path) -> Trained:
    """Train a network, unless the folder has it already."""
    path = folder / task.name / f"{recipe.name}.safetensors"
    if path.exists():
        with safe_open(path, "pt") as file:
            known = json.loads(file.metadata()["trained"])
        return Trained(recipe, path, **known)
    torch.manual_seed(recipe.seed)
    model = task.make_model(recipe.size)
    steps, seconds = train_in_time(model, parts, recipe)
    known = {
        "steps": steps,
        "seconds": seconds,
        "validation": judge(task, model, parts.validation),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"trained": json.dumps(known), "recipe": json.dumps(asdict(recipe))}
    save_file(model.state_dict(), path.with_suffix(".new"), metadata=facts)
    path.with_suffix(".new").replace(path)
    return Trained(recipe, path, **known)


def train_in_time(
    model: nn.Module,
    parts: Parts,
    recipe: Recipe,
    *,
    clock: Callable[[], float] = time.process_time,
) -> tuple[int, float]:
    """Train until the time is spent; the steps, and the seconds that they took."""
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
    model.train()
    steps, start = 0, clock()
    while True:
        spent = clock() - start
        if steps and spent + spent / steps > recipe.budget:
            return steps, spent
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * schedule(spent / recipe.budget)
        x, y = parts.draw(recipe.batch, generator)
        loss = cross_entropy(model(x).flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1


def schedule(share: float) -> float:
    """The learning rate at a share of the time, in units of the largest."""
    return max(0.0, min((share + 0.01) / WARM_UP, (1.0 - share) / (1.0 - WARM_UP)))
