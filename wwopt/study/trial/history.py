"""What a recorder knows of a trial, kept in the trial's checkpoint folder from step to step.

A training that was interrupted and goes on from its own checkpoint calls `recorder.step` from there
on. Its recorder, which is another one in another process, must know the steps before: the initial
spectra and the first loss for the guards, the analyses so far for the pruner, all of it for the
trial's run in MLflow. A step is a line of a file, so that a process that dies while it writes loses
that step alone.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wwopt.metrics.analysis import metrics_from_records
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.tracking.spectra_files import unpack_spectra, write_spectra

STEPS = "wwopt-steps.jsonl"  # in the checkpoint folder
Which = Literal["initial", "last"]  # analyses that are kept whole


@dataclass(frozen=True)
class Step:
    """One step of a trial."""

    number: int
    logged: dict[str, float]  # as it went to MLflow
    numbers: dict[str, float]  # as training gave them, its loss among them
    reported: float | None = None  # the value that Optuna was told; None where it was not


@dataclass
class History:
    """The steps of a trial, in its checkpoint folder."""

    folder: Path
    _told: bool = field(default=False, init=False)

    def take(self, before: int) -> list[Step]:
        """The steps before this one, once; later ones are forgotten, since training repeats them.

        Args:
            before: number of the first step of the training that goes on.
        """
        if self._told:
            return []
        self._told = True
        known = {step.number: step for step in self._read() if step.number < before}
        kept = [known[number] for number in sorted(known)]
        draft = self.folder / f"{STEPS}.new"
        draft.write_text("".join(_line(step) for step in kept))
        os.replace(draft, self.folder / STEPS)
        return kept

    def add(self, step: Step) -> None:
        """Keep a step."""
        with (self.folder / STEPS).open("a") as file:
            file.write(_line(step))

    def keep_spectra(self, which: Which, metrics: ModelMetrics, *, step: int) -> None:
        """Keep an analysis whole, in place of the one before."""
        draft = self.folder / f"wwopt-{which}-new.npz"
        layers = [vars(x.spectrum) for x in metrics.layers if x.spectrum is not None]
        about = {"first": metrics.first, "skipped": dict(metrics.skipped), "step": step}
        write_spectra(draft, [*layers, {"about": about}])
        os.replace(draft, self.folder / f"wwopt-{which}.npz")

    def read_spectra(self, which: Which) -> tuple[int, ModelMetrics] | None:
        """The step of an analysis that was kept, and its metrics; None without one."""
        path = self.folder / f"wwopt-{which}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as stored:
            *layers, rest = unpack_spectra(dict(stored))
        about = rest["about"]
        metrics = metrics_from_records(layers)
        known = dataclasses.replace(metrics, first=about["first"], skipped=about["skipped"])
        return int(about["step"]), known

    def _read(self) -> list[Step]:
        path = self.folder / STEPS
        if not path.exists():
            return []
        steps = []
        for line in path.read_text().splitlines():
            try:
                fields: dict[str, Any] = json.loads(line)
            except ValueError:  # the last one, of a process that died
                continue
            steps.append(Step(**fields))
        return steps


def _line(step: Step) -> str:
    return json.dumps(dataclasses.asdict(step)) + "\n"
