"""What a callback costs beside training: `python benchmarks/time_callbacks.py`, about 3 minutes.

A small BERT under Hugging Face's Trainer and an MLP under Lightning's, on the CPU, with one thread.
Four trainings take turns, so that what else the machine does meets all of them: without a callback,
with one that records the first and the last step alone, with one that records every step and keeps
nothing, and with a trial's recorder (analyses at the start, ½, ¾ and the end; no MLflow). CPU time
of each less that of the one without; medians of the rounds. Needs
`pip install 'wwopt[transformers,lightning]'`. Results: docs/transformers.md and docs/lightning.md.
"""

import argparse
import contextlib
import io
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries below are loaded

import lightning  # noqa: E402
import optuna  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import wwopt  # noqa: E402
from wwopt.integrations import LightningCallback, TransformersCallback  # noqa: E402
from wwopt.study import LastNetwork, StepRecorder  # noqa: E402

ARMS = ("none", "ends", "every step", "trial")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for name, train in (("Trainer, BERT", train_bert), ("Lightning, MLP", train_mlp)):
        seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for _ in range(given.rounds):
            for arm in ARMS:
                seconds[arm].append(measure(train, arm, given.steps))
        print(f"\n{name}: {statistics.median(seconds['none']) / given.steps * 1e3:.2f} ms a step")
        for arm in ARMS[1:]:
            less = [a - b for a, b in zip(seconds[arm], seconds["none"], strict=True)]
            low, middle, high = sorted(less)[0], statistics.median(less), sorted(less)[-1]
            print(
                f"  {arm:<10} {middle / given.steps * 1e3:+.3f} ms a step "
                f"[{low / given.steps * 1e3:+.3f}, {high / given.steps * 1e3:+.3f}], "
                f"{middle:+.2f} s in all"
            )


def measure(train: Callable[..., None], arm: str, steps: int) -> float:
    """CPU seconds of one training."""
    trial = optuna.create_study(pruner=optuna.pruners.NopPruner()).ask()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        start = time.process_time()
        if arm == "trial":
            with wwopt.record(trial) as recorder:
                train(recorder, steps, steps // 10, folder)
        else:
            recorder = None if arm == "none" else LastNetwork()
            train(recorder, steps, 1 if arm == "every step" else 10 * steps, folder)
        return time.process_time() - start


def train_bert(recorder: StepRecorder | None, steps: int, every: int, folder: str) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=32, num_labels=10,
    )  # fmt: skip
    ids, labels = torch.randint(0, 64, (512, 32)), torch.randint(0, 10, (512,))
    rows = [{"input_ids": i, "labels": y} for i, y in zip(ids, labels, strict=True)]
    arguments = transformers.TrainingArguments(
        folder, max_steps=steps, per_device_train_batch_size=16, logging_strategy="no",
        save_strategy="no", use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    callbacks = [] if recorder is None else [TransformersCallback(recorder, every=every)]
    model = transformers.BertForSequenceClassification(config)
    transformers.Trainer(model, arguments, train_dataset=rows, callbacks=callbacks).train()


class Mlp(lightning.LightningModule):
    """Three layers on random data."""

    def __init__(self) -> None:
        super().__init__()
        sizes = nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        self.net = nn.Sequential(*sizes)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train_mlp(recorder: StepRecorder | None, steps: int, every: int, folder: str) -> None:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(1024, 64), torch.randint(0, 10, (1024,)))
    callbacks = [] if recorder is None else [LightningCallback(recorder, every=every)]
    trainer = lightning.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, callbacks=callbacks,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(Mlp(), DataLoader(data, batch_size=32))


if __name__ == "__main__":
    main()
