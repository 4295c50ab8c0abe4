"""Which learning rates, dropouts and momenta, layer by layer, suit a small transformer on text?

    wwopt tune studies/char_gpt.py --data FOLDER         # about 4 minutes on 2 cores

A causal transformer over characters (2 blocks of width 96, 4 heads, 64 characters of context) on
200,000 characters of Shakespeare, trained by AdamW: momentum is its beta1. Another part of the text
shows what the choice is worth, and the objective never sees it. FOLDER holds `tinyshakespeare.txt`
(the variable WWOPT_DATA does the same). A training that is killed goes on from its last epoch.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

import wwopt
from networks import CharGPT

BATCH, BATCHES, CONTEXT = 16, 50, 64  # windows, batches an epoch, characters in a window
TRAINING, VALIDATION, TEST = 200_000, 64_000, 64_000  # characters

# Layers this small gain little from a second thread, and lose much when its core is taken.
torch.set_num_threads(1)


def make_model(conditions: wwopt.Conditions) -> CharGPT:
    """Return the untrained transformer; its width stays a multiple of the 4 heads."""
    width, depth = 4 * round(24 * conditions.width), max(1, round(2 * conditions.depth))
    return CharGPT(width=width, depth=depth, context=CONTEXT)


def find_text() -> Path:
    """Return the text's path.

    Raises:
        StudyError: if the folder is not given or lacks it; the message says what to do.
    """
    folder = os.environ.get("WWOPT_DATA")
    path = Path(folder or "") / "tinyshakespeare.txt"
    if folder is None or not path.is_file():
        where = "no folder is given for" if folder is None else f"{folder} lacks"
        raise wwopt.StudyError(
            f"{where} tinyshakespeare.txt; download it (data/tinyshakespeare/input.txt of "
            f"karpathy/char-rnn) and pass its folder with --data FOLDER"
        )
    return path


def load_data() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield windows of training, validation and test text, (n, 64), and the characters after."""
    text = find_text().read_text(encoding="utf-8")
    code = {character: i for i, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([code[character] for character in text])
    parts = codes[: TRAINING + VALIDATION + TEST].split([TRAINING, VALIDATION, TEST])
    for part, stride in zip(parts, (7, CONTEXT, CONTEXT), strict=True):
        starts = torch.arange(0, len(part) - CONTEXT, stride)[:, None] + torch.arange(CONTEXT)
        yield part[starts], part[starts + 1]


def train(
    hp: wwopt.LayerHyperparameters, conditions: wwopt.Conditions, recorder: wwopt.StepRecorder
) -> None:
    """Train one network and hand it to the recorder after every 50 batches."""
    (x, y), (x_validation, y_validation), _ = load_data()
    used = round(conditions.fraction * len(x))
    model = hp.apply_dropout(make_model(conditions))
    optimizer = hp.optimizer(model, torch.optim.AdamW, betas=(0.9, 0.99))
    done = load_state(conditions, model, optimizer)
    for epoch in range(done + 1, conditions.epochs + 1):
        model.train()
        losses = []
        for batch in torch.randperm(used).split(hp.batch_size or BATCH)[:BATCHES]:
            loss = cross_entropy(model(x[batch]).flatten(0, 1), y[batch].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        model.eval()
        with torch.no_grad():
            few = slice(0, 100)
            validation = cross_entropy(
                model(x_validation[few]).flatten(0, 1), y_validation[few].flatten()
            )
        train_loss = torch.stack(losses).mean().item()
        recorder.step(model, train_loss=train_loss, validation_loss=validation.item(), step=epoch)
        save_state(conditions, model, optimizer, epoch)


def save_state(
    conditions: wwopt.Conditions, model: CharGPT, optimizer: torch.optim.Optimizer, epoch: int
) -> None:
    """Keep what a training that is interrupted after this epoch goes on from."""
    if conditions.checkpoint_dir is None or epoch == conditions.epochs:
        return
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": torch.get_rng_state(),  # of batches and dropout
        "epoch": epoch,
    }
    path = Path(conditions.checkpoint_dir) / "state.pt"
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)  # whole, or the one before


def load_state(
    conditions: wwopt.Conditions, model: CharGPT, optimizer: torch.optim.Optimizer
) -> int:
    """Go on from what was kept; the epochs that are done."""
    path = Path(conditions.checkpoint_dir or "") / "state.pt"
    if conditions.checkpoint_dir is None or not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["generator"])
    return int(state["epoch"])


def make_space(conditions: wwopt.Conditions, **options: object) -> wwopt.LayerSpace:
    """Return the search space."""
    ranges = {"lr": (1e-4, 3e-2), "dropout": (0.0, 0.4), "momentum": (0.5, 0.98)}
    return wwopt.LayerSpace.from_model(make_model(conditions), **(ranges | options))


find_text()  # a missing folder is said before the first trial
study = wwopt.StudySpec(
    name="char-gpt",
    train=train,
    space=make_space,
    conditions=wwopt.Conditions(seed=0, epochs=8),
    metric="validation_loss",
    textbook={"lr": 1e-3, "dropout": 0.1, "momentum": 0.9},
    guards=wwopt.Guards(memorising=math.inf),  # less than one pass over the text
)
