"""The search space of a model's layers: which hyperparameters, how layers share them.

Three hyperparameters for each of 20 layers are 60 dimensions, and how the space is parametrised
matters more (2 to 21 times) than the sampler (1.5 to 3 times). Hence `tie`:

    "global"  one value for all layers
    "block"   one value for each block: layers whose names agree up to their first number
    "depth"   a profile over depth with three knots (first, middle, last), linear between them,
              for learning rates and weight decays linear in their logarithm: the default
    "layer"   one value for each layer
    "coarse-to-fine"  "depth" for the first `coarse_trials` trials, then layer by layer around the
              best of them (see `wwopt.tuning.samplers.refinement`)

Whatever the tie, what is recorded is each layer's own value. `wwopt.study.space.model_layers` says
what a layer is.

On request a space also holds the batch size and, as choices, factors on width and depth. Scores of
networks of different sizes do not compare, so such a study is searched and judged size by size (see
`wwopt.tuning.samplers.strata`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from torch import nn

from wwopt.study.space.layer_hyperparameters import LayerHyperparameters
from wwopt.study.space.layer_ties import Shares, Tie, interpolate, share_knots
from wwopt.study.space.model_layers import (
    find_output_dropouts,
    find_weight_layers,
    name_groups,
)
from wwopt.study.tries import place_of
from wwopt.tracking.hyperparameters import BY_FACTOR

Range = tuple[float, float]  # (low, high), both included

COARSE_TRIALS_PER_KNOT = 5  # see docs/studies.md: with fewer, refining starts from a poor profile


@dataclass(frozen=True)
class LayerSpace:
    """Ranges of hyperparameters over the layers of one architecture; make it with `from_model`."""

    layers: tuple[str, ...]  # in the model's order
    ranges: Mapping[str, Range]  # "lr", "dropout", "momentum", "weight_decay" → (low, high)
    dropout_layers: tuple[str, ...]  # those of `layers` with a dropout at their output
    eigenvalues: Mapping[str, int]  # of all layers of the model; slices pooled
    tie: Tie = "depth"
    functional: tuple[str, ...] = ()
    batch_size: tuple[int, int] | None = None  # (low, high), sampled in its logarithm
    widths: tuple[float, ...] = ()  # choices of a factor on the layers' widths
    depths: tuple[float, ...] = ()  # choices of a factor on the number of layers
    coarse_trials: int = 0  # of a coarse-to-fine search; 0 for 5 per knot
    kinds: Mapping[str, str] = field(default_factory=dict)  # layer → class of its module
    governed: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # layer → the trainable parameters that follow its values

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        lr: Range,
        dropout: Range | None,
        momentum: Range | None,
        weight_decay: Range | None = None,
        tie: Tie = "depth",
        include: Sequence[str] | None = None,
        functional_dropout: Iterable[str] = (),
        batch_size: tuple[int, int] | None = None,
        widths: Sequence[float] = (),
        depths: Sequence[float] = (),
        coarse_trials: int | None = None,
    ) -> "LayerSpace":
        """Find the layers of a model and span a space over them.

        Args:
            model: an instance of the architecture; only names and shapes are kept.
            lr: (low, high) of the learning rate; both positive, sampled in its logarithm.
            dropout: (low, high) of the rate at each layer's output; None leaves the model's own.
            momentum: (low, high); None leaves the optimizer's own.
            weight_decay: (low, high), as lr; None leaves the optimizer's own.
            tie: how layers share their values; see the module's docstring.
            include: names of the layers that get values; the others follow the nearest included
                layer before them (else the first). None for all.
            functional_dropout: layers whose dropout the model applies itself; read hp.dropout.
            batch_size: (low, high) in examples, sampled in its logarithm; read hp.batch_size.
            widths: choices of a factor on the layers' widths; read conditions.width in a study's
                `train`, hp.width in plain Optuna.
            depths: the same of the number of layers. The study's `space` must then be a function of
                the conditions, since the layers depend on them.
            coarse_trials: how many trials of a coarse-to-fine search sample the depth profile; None
                for 5 per knot, 45 for three kinds of hyperparameters.

        Raises:
            ValueError: on an unknown layer or tie, an impossible range, or a model without layers.
        """
        weights = find_weight_layers(model)
        names = tuple(weights) if include is None else tuple(include)
        functional = tuple(functional_dropout)
        unknown = [name for name in (*names, *functional) if name not in weights]
        if unknown:
            raise ValueError(
                f"unknown layer {unknown[0]!r}; the model's layers are {', '.join(weights)}"
            )
        if not names:
            raise ValueError(f"{type(model).__name__} has no layer with a weight matrix")
        if tie not in get_args(Tie):
            raise ValueError(f"unknown tie {tie!r}; known: {', '.join(get_args(Tie))}")
        _check_sizes(tie, batch_size, widths, depths, coarse_trials)
        ranges = {"lr": lr, "dropout": dropout, "momentum": momentum, "weight_decay": weight_decay}
        given = {kind: _checked(kind, r) for kind, r in ranges.items() if r is not None}
        dropouts = find_output_dropouts(model)
        ordered = tuple(name for name in weights if name in names)
        return cls(
            layers=ordered,
            ranges=given,
            dropout_layers=tuple(n for n in ordered if dropouts.get(n) or n in functional),
            eigenvalues=weights,
            tie=tie,
            functional=functional,
            batch_size=batch_size,
            widths=tuple(float(factor) for factor in widths),
            depths=tuple(float(factor) for factor in depths),
            coarse_trials=coarse_trials or 0,
            kinds={name: type(model.get_submodule(name)).__name__ for name in ordered},
            governed=name_groups(model, ordered),
        )

    @property
    def num_coarse_trials(self) -> int:
        """Trials of a coarse-to-fine search that sample the depth profile; 0 without one."""
        if self.tie != "coarse-to-fine":
            return 0
        return self.coarse_trials or COARSE_TRIALS_PER_KNOT * len(self.distributions(0))

    def refines(self, number: int) -> bool:
        """Whether the trial of that number samples each layer's own values, as refinement does.

        The number alone decides, so that a resumed study, and every worker, knows.
        """
        return self.tie == "coarse-to-fine" and number >= self.num_coarse_trials

    def distributions(self, number: int) -> dict[str, BaseDistribution]:
        """What the trial of that number samples: name → distribution; sizes are left out."""
        tie: Tie = "layer" if number > 0 and self.refines(number) else self.tie
        found: dict[str, BaseDistribution] = {}
        for kind, (low, high) in self.ranges.items():
            for shares in self._shares(kind, tie).values():
                for knot, _ in shares:
                    log = kind in BY_FACTOR
                    found[f"{kind}/{knot}"] = FloatDistribution(low, high, log=log)
        if self.batch_size is not None:
            found["batch_size"] = IntDistribution(*self.batch_size, log=True)
        return found

    def suggest_size(self, trial: optuna.trial.BaseTrial) -> dict[str, float]:
        """Ask a trial for its factors on width and depth, as far as the space has choices."""
        choices = {"width": self.widths, "depth": self.depths}
        return {
            name: float(trial.suggest_categorical(name, factors))
            for name, factors in choices.items()
            if factors
        }

    def suggest(self, trial: optuna.trial.BaseTrial) -> LayerHyperparameters:
        """Ask a trial for its values and store every layer's own in its user attributes."""
        tie: Tie = "layer" if self.refines(place_of(trial)) else self.tie
        values: dict[str, dict[str, float]] = {}
        for kind, (low, high) in self.ranges.items():
            log = kind in BY_FACTOR
            values[kind] = {}
            for layer, shares in self._shares(kind, tie).items():
                knots = [
                    (trial.suggest_float(f"{kind}/{knot}", low, high, log=log), share)
                    for knot, share in shares
                ]
                values[kind][layer] = interpolate(knots, log=log)
        batch_size = self.batch_size and trial.suggest_int("batch_size", *self.batch_size, log=True)
        sizes = self.suggest_size(trial)
        hp = LayerHyperparameters(
            **values,
            functional=self.functional,
            batch_size=batch_size,
            width=sizes.get("width"),
            depth=sizes.get("depth"),
        )
        trial.set_user_attr("hyperparameters", hp.to_dict())
        return hp

    def to_frame(self) -> pd.DataFrame:
        """What each layer's values govern: one row a layer, in the model's order.

        Norms, biases and layers that were not included follow a layer before them, a tied head its
        embedding. A layer that is frozen governs nothing.
        """
        rows = [
            {
                "layer": layer,
                "kind": self.kinds.get(layer, ""),
                "eigenvalues": self.eigenvalues[layer],
                "dropout": layer in self.dropout_layers and "dropout" in self.ranges,
                "governs": ", ".join(self.governed.get(layer, ())),
            }
            for layer in self.layers
        ]
        return pd.DataFrame(rows)

    def describe(self) -> dict[str, Any]:
        """The space as plain data: what must not change when a study is resumed."""
        described: dict[str, Any] = {
            "layers": list(self.layers),
            "ranges": {kind: list(r) for kind, r in self.ranges.items()},
            "dropout_layers": list(self.dropout_layers),
            "tie": self.tie,
        }
        if self.tie == "coarse-to-fine":
            described["coarse_trials"] = self.num_coarse_trials
        sizes = {"batch_size": self.batch_size, "widths": self.widths, "depths": self.depths}
        return described | {name: list(values) for name, values in sizes.items() if values}

    def _shares(self, kind: str, tie: Tie) -> dict[str, Shares]:
        return share_knots(tie, self.dropout_layers if kind == "dropout" else self.layers)


def _checked(kind: str, given: Range) -> Range:
    low, high = (float(bound) for bound in given)
    top = {"dropout": 1.0, "momentum": 1.0}.get(kind, math.inf)
    bottom = math.nextafter(0.0, 1.0) if kind in BY_FACTOR else 0.0
    if not (bottom <= low <= high < top):
        limits = f"{'0 <' if kind in BY_FACTOR else '0 <='} low <= high < {top:g}"
        raise ValueError(f"{kind} must be (low, high) with {limits}, got ({low:g}, {high:g})")
    return low, high


def _check_sizes(
    tie: Tie,
    batch_size: tuple[int, int] | None,
    widths: Sequence[float],
    depths: Sequence[float],
    coarse_trials: int | None,
) -> None:
    if batch_size is not None and not 1 <= batch_size[0] <= batch_size[1]:
        raise ValueError(f"batch_size must be (low, high) with 1 <= low <= high, got {batch_size}")
    for name, factors in (("widths", widths), ("depths", depths)):
        if len(set(factors)) != len(factors) or any(not 0 < f < math.inf for f in factors):
            raise ValueError(f"{name} must be different positive factors, got {tuple(factors)}")
    if tie == "coarse-to-fine" and (widths or depths):
        raise ValueError(
            "a coarse-to-fine search refines around one best trial, but sizes have one each; "
            "tune the sizes with another tie first"
        )
    if coarse_trials is not None and (tie != "coarse-to-fine" or coarse_trials < 1):
        raise ValueError(
            f"coarse_trials belongs to tie='coarse-to-fine' and must be at least 1, got "
            f"{coarse_trials} with tie={tie!r}"
        )
