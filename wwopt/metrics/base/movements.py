"""What became of a layer since its base: how far it moved, where to, and what kind of change.

With W₀ the base's weights, W₁ those now, Δ = W₁ - W₀, and U, V the 10 leading left and right
singular vectors of W₀, U₁, V₁ those of W₁:

    movement     ‖Δ‖/‖W₀‖, Frobenius norms
    slope        ⟨W₁, W₀⟩/‖W₀‖²: how much of W₀ is still in W₁; 1 where Δ has nothing to do with it,
                 0 for two networks that were trained apart, whatever their sizes
    kept         the slope beneath the change: without the eighth of the directions of Δ, left and
                 right, that holds most of it. A rate far too high leaves a slope of 0 and kept at 1
    stable rank  ‖Δ‖²/σ₁(Δ)²: how many directions share the change
    overlap      mean |uᵀu'| over pairs of vectors of U and U₁ that match best; right: of V and V₁
    angle        principal angles between the spaces of U and U₁, in degrees
    inside       ‖UᵀΔV‖²/‖Δ‖²: share of the change between the base's leading directions
    outside      ‖(1 - UUᵀ) Δ (1 - VVᵀ)‖²/‖Δ‖²: share that has nothing to do with them
    intruders    of the first 10 vectors of U₁, how many have a cosine below .5 with each left
                 singular vector of W₀: directions that the base did not have, strong enough to lead
                 (Shuttleworth et al. 2024, arXiv:2410.21228; both numbers are the defaults of
                 peft's `reduce_intruder_dimension`)
    directions   singular values of Δ beyond the Marchenko-Pastur edge of its own noise; signal is
                 the share of ‖Δ‖² that they hold
    rank         of Δ, up to what rounding to the grid of W₁ leaves (`rounding_grids`)
    balance      ‖B‖/‖A‖ of an adapter's factors: 0 before training, since B starts at zero. Far
                 below 1, B learned slower than A, which one rate for both tends to (LoRA+, Hayou
                 et al. 2024, arXiv:2402.12354, section 3)

The kind is a rule on these numbers; docs/fine-tunes.md says how often it is right.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

MOSTLY = 0.9  # of the change, that one cause must explain to give it its name
PROPORTIONAL = 0.99  # the same of scaling: what else is in it would be a training's
WITHIN = 0.99  # of the weights, that moved by no more than rounding to the grid moves any
NO_SIGNAL = 0.05  # of the change in directions beyond noise: rounding has none
FEW_SIGNALS = 0.2  # the same where the base was rounded
RANDOM = 0.5, 2.0  # ‖Δ‖² over that of rounding at random, where the base was rounded
LOW = 1.0 / 3.0  # of the full rank
AS_LARGE = 0.5  # movement
GONE = 0.2  # kept: two networks that were trained apart have .0 to .12, a descendant .9
# Overlap of the vectors on one side; on the other they may be the data's, and the same for all:
# pixels of a first layer, classes of a last one.
UNLIKE = 0.25
BY_CHANCE = 1.5  # the same in small layers, in units of what independent vectors have
# A LoRA's last direction stands out of rounding by more; the last that rounding leaves of a
# fine-tune's by 1.0 to 1.2.
GAP = 1.4
SAME_VALUES = 2e-3  # relative; estimates of large layers' bulk scatter by 1e-3


class ChangeKind(StrEnum):
    """What kind of change a layer, or a model, went through."""

    IDENTICAL = "identical"
    OTHER_DTYPE = "other dtype"  # a cast to a coarser floating-point format, or back from one
    ROUNDING = "rounding"  # quantised to equal steps or to a few levels
    ZEROED = "zeroed"  # weights set to zero, the others kept: pruned
    SCALED = "scaled"  # by one factor
    LOW_RANK = "low rank"  # as a merged LoRA
    DENSE = "dense"  # as further training of all weights
    REARRANGED = "rearranged"  # other vectors, the same singular values: permuted, rotated
    ANOTHER = "another network"  # no descendant of the base
    UNKNOWN = "unknown"  # a side is zero or not finite


@dataclass(frozen=True, kw_only=True)
class LayerMovement:
    """What became of one layer; NaN where it is not known."""

    name: str
    N: int
    M: int  # of each slice, N >= M
    parameters: int  # of all slices
    movement: float = math.nan  # ‖Δ‖/‖W₀‖
    slope: float = math.nan  # ⟨W₁, W₀⟩/‖W₀‖²
    kept: float = math.nan  # the slope without the leading directions of Δ
    delta_norm: float = math.nan  # ‖Δ‖, Frobenius
    delta_spectral_norm: float = math.nan  # σ₁(Δ), of the largest slice
    delta_stable_rank: float = math.nan  # (‖Δ‖/σ₁(Δ))²; NaN where nothing moved
    directions: float = math.nan  # of Δ beyond its noise
    signal: float = math.nan  # share of ‖Δ‖² that they hold
    delta_rank: float = math.nan  # of Δ, beyond rounding
    full_rank: int = 0  # that Δ could have: rows and columns that did not move count for nothing
    gap: float = math.nan  # σ of the last direction of its rank over the next, or over rounding
    chance: float = math.nan  # overlap that independent vectors would have
    overlap: float = math.nan  # of leading left vectors, in [0, 1]
    overlap_right: float = math.nan  # of leading right vectors
    values_moved: float = math.nan  # largest relative change of a leading singular value
    angle: float = math.nan  # mean of the principal angles, degrees
    largest_angle: float = math.nan  # degrees
    inside: float = math.nan  # share of ‖Δ‖² between the base's leading directions
    outside: float = math.nan  # share of ‖Δ‖² outside of them on both sides
    intruders: float = math.nan  # of the first 10 left vectors
    zeroed: float = math.nan  # share of ‖Δ‖² in weights that became zero
    scaled: float = math.nan  # share of ‖Δ‖² that a factor on all weights explains
    grid: str = ""  # that W₁ lies on; "" for none
    base_grid: str = ""  # that W₀ lies on
    grid_floating: bool = False  # whether the grid that explains most is a floating-point format's
    rounded: float = math.nan  # share of ‖Δ‖² that rounding one side to the other's grid explains
    at_random: float = math.nan  # ‖Δ‖² over what rounding to that grid costs at random
    backwards: bool = False  # whether that grid is the base's: W₀ is then a rounded W₁
    within: float = math.nan  # share of the weights that moved by at most a step of that grid
    nearest: float = math.nan  # share that moved by at most .75 of a step, as to the nearest
    rank: int | None = None  # of its LoRA; None where the weight itself was trained, or frozen
    balance: float = math.nan  # ‖B‖/‖A‖ of its LoRA

    @property
    def kind(self) -> ChangeKind:
        """What kind of change it was: what most of ‖Δ‖² comes from."""
        if self.movement == 0.0:
            return ChangeKind.IDENTICAL
        if not math.isfinite(self.movement):
            return ChangeKind.UNKNOWN
        if self.zeroed >= MOSTLY:
            return ChangeKind.ZEROED
        if self.scaled >= PROPORTIONAL:
            return ChangeKind.SCALED
        if self._is_rounding:
            return ChangeKind.OTHER_DTYPE if self.grid_floating else ChangeKind.ROUNDING
        unlike = min(self.overlap, self.overlap_right) < max(UNLIKE, BY_CHANCE * self.chance)
        by_chance = 3.0 * (1.0 + self.movement) / math.sqrt(self.parameters)
        if self.movement >= AS_LARGE and abs(self.kept) < GONE + by_chance and unlike:
            same = self.values_moved < SAME_VALUES
            return ChangeKind.REARRANGED if same else ChangeKind.ANOTHER
        if 1.0 <= self.delta_rank <= LOW * self.full_rank and self.gap >= GAP:
            return ChangeKind.LOW_RANK
        return ChangeKind.DENSE

    @property
    def _is_rounding(self) -> bool:
        """Whether rounding explains the change.

        Weights trained on from a rounded base stay near its grid too, so that backwards the change
        must be as large as rounding's and without directions.
        """
        if self.backwards:
            low, high = RANDOM
            if not (low <= self.at_random <= high and self.signal <= FEW_SIGNALS):
                return False
        blind = self.within >= WITHIN and self.signal <= NO_SIGNAL
        return self.rounded >= MOSTLY or self.nearest >= WITHIN or blind

    def to_dict(self) -> dict[str, Any]:
        """Its fields and the kind."""
        return {**asdict(self), "kind": self.kind.value}


@dataclass(frozen=True)
class ModelChange:
    """What kind of change a model went through, and where."""

    kind: ChangeKind  # of most of the parameters that changed
    layers: Mapping[ChangeKind, tuple[str, ...]]  # layers of each kind, most parameters first

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        named = {kind.value: list(names) for kind, names in self.layers.items()}
        return {"kind": self.kind.value, "layers": named}


def name_change(layers: Iterable[tuple[str, ChangeKind, int]]) -> ModelChange:
    """Gather the kinds of a model's layers into one.

    A layer or two that have nothing to do with the base, such as a new head, do not make another
    network: it takes half of all parameters that were compared.

    Args:
        layers: name, kind and parameters of each.
    """
    names: dict[ChangeKind, list[str]] = {}
    sizes: dict[ChangeKind, int] = {}
    for name, kind, parameters in layers:
        names.setdefault(kind, []).append(name)
        sizes[kind] = sizes.get(kind, 0) + parameters
    order = sorted(sizes, key=lambda kind: -sizes[kind])
    changed = [k for k in order if k not in (ChangeKind.IDENTICAL, ChangeKind.UNKNOWN)]
    found = changed[0] if changed else order[0] if order else ChangeKind.UNKNOWN
    if found is ChangeKind.ANOTHER and 2 * sizes[found] < sum(sizes.values()):
        found = changed[1] if len(changed) > 1 else ChangeKind.DENSE
    return ModelChange(found, {kind: tuple(names[kind]) for kind in order})


def summarize_movements(movements: Iterable[LayerMovement]) -> ModelChange:
    """What kind of change the layers of a model make together."""
    return name_change((layer.name, layer.kind, layer.parameters) for layer in movements)
