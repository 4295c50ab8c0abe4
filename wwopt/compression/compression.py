"""Compress a network, and say what that did to each layer.

compress(model, bits=4, sparsity=.5) -> Compression
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from wwopt.compression.budget import Choice, plan_budget
from wwopt.compression.compressed_networks import CompressedNetwork, apply_plans
from wwopt.compression.errors import CompressionError
from wwopt.compression.judgement import Judge
from wwopt.compression.layers import Layer, Network, list_layers, match_layers
from wwopt.compression.low_rank import RankRule
from wwopt.compression.plans import LayerPlan
from wwopt.compression.recipes import By, Recipe, plan_layers
from wwopt.compression.retraining import Retraining, retrain, retrain_rounded
from wwopt.gate.checks import LayerCheck
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.analysis import analyze
from wwopt.plain_data import make_plain
from wwopt.weights.file_sizes import count_file_bytes
from wwopt.weights.matrices import Source, read_weights


@dataclass(frozen=True)
class CompressedLayer:
    """One layer, before and after."""

    layer: Layer
    plan: LayerPlan
    bytes_before: int  # of its weights as they were
    bytes: int  # of its tensors in the file
    zeros: float  # share of the weights that are zero after
    checks: tuple[LayerCheck, ...] = ()  # of each matrix; none where nothing changed
    limit: LayerPlan | None = None  # of a broken layer: how far it could go; None: not at all
    choice: Choice | None = None  # of a budget, which then says whether the layer broke

    @property
    def name(self) -> str:
        """Of the layer."""
        return self.layer.name

    @property
    def broken(self) -> bool:
        """Whether the gate calls one of its matrices broken; of a budget, its error."""
        if self.choice is not None:
            return self.choice.breaks
        return any(check.findings for check in self.checks)

    @property
    def how(self) -> str:
        """How it broke, in words; empty where it did not."""
        if self.choice is not None:
            return f"error {self.choice.error:.2f}" if self.choice.breaks else ""
        alone = len(self.checks) == 1
        told = [(check.name, check.how) for check in self.checks if check.findings]
        return "; ".join(how if alone else f"{name}: {how}" for name, how in told)


@dataclass(frozen=True)
class Compression:
    """A compressed network and what is known of it."""

    network: CompressedNetwork
    recipe: Recipe | None  # None: the plans were given
    layers: tuple[CompressedLayer, ...]
    bytes_before: int  # of the same tensors as a safetensors file, header included
    thresholds: Thresholds
    seconds: float  # that compressing and judging took
    quality: Mapping[str, float]  # what a study's train logs of the compressed network
    rounds: int = 0  # of pruning and training on
    looked_for_limits: bool = True  # whether it is known how far broken layers could go

    @property
    def bytes(self) -> int:
        """Of the file as `write` writes it, header included."""
        return self.network.bytes

    @property
    def ratio(self) -> float:
        """How many times smaller the file is."""
        return self.bytes_before / self.bytes

    @property
    def broken(self) -> dict[str, str]:
        """Layers that broke by the gate → how, in words."""
        return {layer.name: layer.how for layer in self.layers if layer.broken}

    @property
    def passed(self) -> bool:
        """Whether no layer broke."""
        return not self.broken

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The state dict of the compressed network, dequantized."""
        return self.network.weights

    @property
    def zeros(self) -> float:
        """Share of zeros among the weights of all layers."""
        zeros = sum(layer.zeros * layer.layer.size for layer in self.layers)
        return zeros / sum(layer.layer.size for layer in self.layers)

    @cached_property
    def spectral_change(self) -> dict[str, float]:
        """Means over the changed matrices, by their weights: noise, relative change, KS distance.

        Empty where nothing was measured.
        """
        checks = [check for layer in self.layers for check in layer.checks if check.before]
        sizes = [c.before.N * c.before.M * c.before.num_slices for c in checks if c.before]
        found = {}
        for name in ("noise", "relative_change", "ks"):
            values = np.array([getattr(check.change, name) for check in checks], dtype=float)
            known = np.isfinite(values)
            if known.any():
                weights = np.array(sizes, dtype=float)[known]
                found[name] = float(np.average(values[known], weights=weights))
        return found

    def write(self, path: str | Path, *, dense: bool = False) -> int:
        """Write the network as safetensors, whole or not at all.

        Args:
            path: of the file.
            dense: dequantized, for frameworks, and as large as before.

        Returns:
            Bytes of the file.

        Raises:
            CompressionError: if it cannot be written.
        """
        return self.network.write(Path(path), dense=dense)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer: what was done, its bytes, what the gate measured, and its verdict.

        Of a fused layer the measurements are those of the matrix that changed most.
        """
        rows = []
        for layer in self.layers:
            worst = max(
                layer.checks,
                key=lambda check: float(np.nan_to_num(check.change.noise)),
                default=None,
            )
            change = None if worst is None else worst.change
            sides = (None, None) if worst is None else (worst.before, worst.after)
            rows.append(
                {
                    "layer": layer.name,
                    "shape": "×".join(map(str, layer.layer.tensor.shape)),
                    "bytes_before": layer.bytes_before,
                    "bytes": layer.bytes,
                    "bits": layer.plan.bits,
                    "sparsity": layer.zeros,
                    "rank": layer.plan.rank,
                    **{
                        name: getattr(change, name, np.nan)
                        for name in ("noise", "relative_change", "ks")
                    },
                    "hill_before": getattr(sides[0], "hill", np.nan),
                    "hill": getattr(sides[1], "hill", np.nan),
                    "broken": layer.how,
                }
            )
        return pd.DataFrame(rows).astype({"bits": "Int64", "rank": "Int64"})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is unknown is None."""
        limits = {
            layer.name: None if layer.limit is None else vars(layer.limit)
            for layer in self.layers
            if layer.broken
        }
        frame = self.to_frame().astype(object)
        rows = frame.where(frame.notna(), None).to_dict(orient="records")
        return {
            "passed": self.passed,
            "bytes_before": self.bytes_before,
            "bytes": self.bytes,
            "ratio": self.ratio,
            "seconds": self.seconds,
            "broken": self.broken,
            "limits": make_plain(limits),
            "spectral_change": make_plain(self.spectral_change),
            "quality": make_plain(dict(self.quality)),
            "layers": make_plain(rows),
        }


def compress(
    source: Source,
    *,
    bits: float | None = None,
    sparsity: float = 0.0,
    rank: int | float | RankRule | None = None,
    by: By | None = None,
    keep: Sequence[str] = (),
    budget: float | None = None,
    plans: Mapping[str, LayerPlan] | None = None,
    retraining: Retraining | None = None,
    key: str | None = None,
    seed: int = 0,
    shuffles: int = 3,
    device: torch.device | str | None = None,
    quick: bool = False,
    limits: bool = True,
    progress: bool = False,
    thresholds: Thresholds | None = None,
    **recipe: Any,
) -> Compression:
    """Compress a network without data: round it, prune it, cut its layers to a rank, or all three.

    Args:
        source: a module, a state dict or a path, as of `wwopt.analyze`.
        bits: of a weight, 2 to 8; None to leave them.
        sparsity: share of weights that are set to zero, from 0 to below 1.
        rank: a number, a share of energy as a float, "erg" or "tail"; None to leave the layers.
        by: "uniform" or "alpha", how bits and sparsity are shared out over the layers; None for
            uniform, unless `bits_by` or `sparsity_by` say otherwise.
        keep: names or patterns of layers that stay as they are.
        budget: bytes of the file, or below 1 a share of the tensors' bytes now: bits, zeros and
            rank of each layer are chosen for the least predicted damage, as of `plan_budget`.
        plans: by layer name, instead of all this.
        retraining: prune in steps and train on after each, by a study's train; with a budget the
            network is rounded all the while, as of `retrain_rounded`.
        key: dotted path of the model in a checkpoint that holds several.
        seed: of the shuffles behind the traps.
        shuffles: of every layer; 0 leaves the traps unknown.
        device: where to analyse; None for where the weights lie.
        quick: estimate large layers quickly, as `wwopt.analyze` does.
        limits: search for a broken layer how far it could go.
        progress: show bars.
        thresholds: of the gate, that judges the layers; None for its own.
        recipe: further fields of `Recipe`: group, clip, compensate, gamma, epsilon, bits_by,
            sparsity_by.

    Raises:
        CompressionError: if something is out of range, the model is compressed already, there is
            no such layer, a weight is not finite, or the file would be no smaller.
        WeightsError: if the source cannot be read.
    """
    start = time.perf_counter()
    if isinstance(keep, str):
        raise CompressionError(f"keep must be a list of names, got the string {keep!r}")
    asked = None
    chosen: Mapping[str, Choice] = {}
    if budget is not None and (plans is not None or bits is not None or sparsity or rank or recipe):
        raise CompressionError(
            "a budget chooses bits, zeros and rank of each layer: give it alone, or with keep"
        )
    if plans is None and budget is None:
        named = {} if by is None else {"bits_by": by, "sparsity_by": by}
        options = named | recipe
        asked = Recipe(bits=bits, sparsity=sparsity, rank=rank, keep=tuple(keep), **options)
    network = list_layers(source, key=key)
    _check(network, asked, plans, retraining, budget=budget)
    train_on = retraining is not None and retraining.rounds > 0
    first = apply_plans(network, {})
    before = read_weights(source, key=key)
    analysis: dict[str, Any] = {"seed": seed, "shuffles": shuffles, "device": device}
    metrics = analyze(before, progress=progress, quick=quick, **analysis)
    if asked is not None:
        plans = plan_layers(network, asked, metrics)
    elif budget is not None:
        chosen = plan_budget(network, budget, keep=keep, trained_on=train_on).choices
        plans, limits = {name: choice.plan for name, choice in chosen.items()}, False
    assert plans is not None
    if retraining is None or not retraining.rounds:
        compressed = apply_plans(network, plans)
    elif chosen:
        compressed = retrain_rounded(retraining, first.weights, network, plans)
    else:
        trained = list_layers(retrain(retraining, first.weights, network, plans))
        compressed = apply_plans(trained, plans)
    plain = count_file_bytes(first.stored, first.metadata)
    if compressed.bytes >= plain:
        raise CompressionError(
            f"compressed the file would have {compressed.bytes:,} bytes, and it has {plain:,} as "
            "it is: ask for fewer bits, more zeros or less rank"
        )
    judge = Judge(before, metrics, thresholds or Thresholds(), analysis | {"quick": quick})
    layers = _judge_layers(judge, network, first, compressed, limits=limits, progress=progress)
    if chosen:
        layers = tuple(replace(layer, choice=chosen[layer.name]) for layer in layers)
    return Compression(
        network=compressed,
        recipe=asked,
        layers=layers,
        bytes_before=plain,
        thresholds=judge.thresholds,
        seconds=time.perf_counter() - start,
        quality={} if retraining is None else retraining.measure(compressed.weights),
        rounds=0 if retraining is None else retraining.rounds,
        looked_for_limits=limits,
    )


def _check(
    network: Network,
    asked: Recipe | None,
    plans: Mapping[str, LayerPlan] | None,
    retraining: Retraining | None,
    *,
    budget: float | None,
) -> None:
    """What can be refused before anything is computed."""
    if asked is not None:
        match_layers(network, asked.keep)
        pruned = asked.sparsity > 0.0
    else:
        pruned = any(plan.sparsity > 0.0 for plan in (plans or {}).values())
    if retraining is not None and retraining.rounds and not pruned and budget is None:
        raise CompressionError(
            "training on goes with pruning or a budget: give a sparsity, or no rounds to measure "
            "only"
        )


def _judge_layers(
    judge: Judge,
    network: Network,
    first: CompressedNetwork,
    compressed: CompressedNetwork,
    *,
    limits: bool,
    progress: bool,
) -> tuple[CompressedLayer, ...]:
    """Every layer of a network, with a check of those that changed."""
    changed = [
        layer
        for layer in network.layers
        if not torch.equal(
            first.encoded[layer.name].weights, compressed.encoded[layer.name].weights
        )
    ]
    weights = {layer.name: compressed.encoded[layer.name].weights for layer in changed}
    checks = judge.judge(changed, weights, compressed.plans, progress=progress)
    broken = [n for n, own in checks.items() if any(check.findings for check in own)]
    bar = tqdm(broken if limits else [], desc="limits", delay=2, disable=not progress)
    furthest = {name: judge.find_limit(network[name], compressed.plans[name]) for name in bar}
    return tuple(
        CompressedLayer(
            layer=layer,
            plan=compressed.plans[layer.name],
            bytes_before=first.encoded[layer.name].bytes,
            bytes=compressed.encoded[layer.name].bytes,
            zeros=float((compressed.encoded[layer.name].weights == 0).double().mean()),
            checks=checks.get(layer.name, ()),
            limit=furthest.get(layer.name),
        )
        for layer in network.layers
    )
