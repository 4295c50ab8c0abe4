"""One training by an optimizer that needs no tuning: Prodigy, at the values its authors advise.

Mishchenko & Defazio 2023, "Prodigy: an expeditiously adaptive parameter-free learner": rate 1, the
step's scale is learned; with their cosine decay left out, as all trials of a loop train at constant
rates. Dropout is the textbook's. By the package `prodigyopt`, which only this needs.
"""

from typing import Any

import torch
from torch import nn

import wwopt


class TuningFree(wwopt.LayerHyperparameters):
    """Hyperparameters whose rates and momenta Prodigy replaces."""

    def optimizer(self, model: nn.Module, *_: Any, **__: Any) -> torch.optim.Optimizer:
        """Prodigy over all parameters.

        Raises:
            ModuleNotFoundError: without the package.
        """
        from prodigyopt import Prodigy

        made: torch.optim.Optimizer = Prodigy(model.parameters(), lr=1.0)
        return made


def make_tuning_free(textbook: wwopt.LayerHyperparameters) -> TuningFree:
    """The textbook's dropout, with Prodigy."""
    return TuningFree(lr=textbook.lr, dropout=textbook.dropout, momentum=textbook.momentum)
