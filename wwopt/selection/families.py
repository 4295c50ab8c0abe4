"""Which question do these candidates ask: one architecture, one family at several sizes, or more?

The answer decides the score. Evidence (Martin, Peng & Mahoney 2021, Nature Communications 12:4122;
27 families, 211 models, their tables recomputed): inside a family of several sizes alpha-hat orders
accuracy (mean Kendall tau .64), mean alpha does not (.28); across families neither does (.13), and
batch norm alone shifts alpha. Among networks of one architecture the shape of the spectra orders,
scale does not (arXiv 2106.00734).

A family is recognised by the layers' names with their numbers taken out, the kinds of layers, the
kernel sizes, batch norm, and the model type that a configuration names. That is the architecture:
data and recipe leave no trace in names, so two training recipes count as one family.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from wwopt.metrics.layer_tables import UNNAMED
from wwopt.metrics.model_metrics import MIN_EIGENVALUES, LayerMetrics, ModelMetrics
from wwopt.selection.candidates import Candidate
from wwopt.weights.tensor_names import bare_name

SAME = "one architecture"
SIZES = "one family at several sizes"
ALONE = "alone"

# Share of common layer roles, in all of both: ResNet-18 and -152, GPT-2 and GPT-2 XL have 1, BERT
# with and without its language head .8, an MLP and a CNN of numbered layers .5.
SIMILAR = 0.6
SIMILAR_KERNELS = 0.5  # at most: VGG's 3×3 beside AlexNet's 3×3, 5×5 and 11×11 have a third
OTHER_LAYERS = 0.15  # share of layers of other names or shapes that a new head or vocabulary brings
Roles = frozenset[tuple[str, str]]  # names with # for numbers, and kinds

KERNELS = frozenset({1, 9, 25, 49, 81, 121})  # positions of plain convolutions; else grouped


@dataclass(frozen=True)
class Family:
    """Candidates that can be ranked against each other."""

    label: str
    members: tuple[str, ...]  # names of candidates
    question: str  # SAME, SIZES or ALONE
    reason: str  # how that was told
    prefixes: Mapping[str, str]  # candidate → what only its names have in front, as "bert."
    shared: frozenset[str] = frozenset()  # of SAME: the layers that all have, by `own_name`

    def own_name(self, candidate: str, layer: str) -> str:
        """A layer's name without what wrappers and a head put in front of it."""
        return bare_name(layer).removeprefix(self.prefixes[candidate])


@dataclass(frozen=True)
class _Traits:
    """What tells a candidate's family."""

    roles: Roles
    kernels: frozenset[int]  # positions; 0 stands for any grouped convolution
    batch_norm: bool | None  # None: not known
    step: int  # smallest step between numbered convolutions; 0: not known
    named: bool
    shapes: Mapping[str, tuple[int, int, int]]  # of layers large enough to count; empty: not known
    model_type: str


def find_families(
    candidates: Sequence[Candidate], labels: Mapping[str, str]
) -> tuple[tuple[Family, ...], tuple[str, ...]]:
    """Group candidates into families.

    Args:
        candidates: in any order.
        labels: candidate → family, for those whose family is not to be recognised.

    Returns:
        The families, in the order of their first candidates, and why they are not one.
    """
    traits = {candidate.name: _read_traits(candidate) for candidate in candidates}
    groups: list[list[str]] = []
    for name in traits:
        for group in groups:
            given = labels.get(name), labels.get(group[0])
            same = given[0] == given[1] if any(given) else _fits(name, group, traits)
            if same:
                group.append(name)
                break
        else:
            groups.append([name])
    families: list[Family] = []
    for number, group in enumerate(groups):
        letter = chr(ord("A") + number % 26) * (number // 26 + 1)
        own = traits[group[0]].model_type or letter
        taken = {*labels.values(), *(family.label for family in families)}
        label = labels.get(group[0]) or (own if own not in taken else f"{own} {letter}")
        families.append(_describe(group, traits, label))
    splits = [
        _differ(first[0], second[0], traits)
        for first, second in pairwise(groups)
        if not (labels.get(first[0]) or labels.get(second[0]))
    ]
    return tuple(families), tuple(reason for reason in splits if reason)


def role(name: str) -> str:
    """What a layer is for: its name without its numbers, "layer#.#.conv#"."""
    return re.sub(r"\d+", "#", name)


def _fits(name: str, group: Sequence[str], traits: Mapping[str, _Traits]) -> bool:
    return not any(_differ(other, name, traits) for other in group)


def _differ(a: str, b: str, traits: Mapping[str, _Traits]) -> str:
    """Why two candidates are of different families; "" where nothing speaks for it."""
    one, other = traits[a], traits[b]
    if one.model_type and other.model_type and one.model_type != other.model_type:
        return f"{a} is a {one.model_type}, {b} a {other.model_type}"
    if not (one.named and other.named):
        if one.shapes and one.shapes == other.shapes:
            return ""
        without = a if not one.named else b
        return f"the table of {without} does not name its layers, so no family can be told"
    if _share_roles(one.roles, other.roles) < SIMILAR:
        return f"the layers of {a} and {b} have different names or kinds"
    if one.batch_norm is not None and other.batch_norm is not None:
        if one.batch_norm != other.batch_norm:
            having, lacking = (a, b) if one.batch_norm else (b, a)
            return f"{having} has batch norm, {lacking} has not, which alone shifts alpha"
    elif one.step and other.step and one.step != other.step:
        return (
            f"the convolutions of {a} and {b} are numbered in steps of {one.step} and "
            f"{other.step}, as with and without batch norm"
        )
    if one.kernels and other.kernels:
        common = len(one.kernels & other.kernels) / len(one.kernels | other.kernels)
        if common <= SIMILAR_KERNELS:
            return f"{a} and {b} have convolutions of different kernel sizes or groups"
    return ""


def _describe(group: Sequence[str], traits: Mapping[str, _Traits], label: str) -> Family:
    members = tuple(group)
    prefixes = _find_prefixes([traits[name].roles for name in group])
    front = dict(zip(group, prefixes, strict=True))
    if len(group) == 1:
        return Family(label, members, ALONE, "no other candidate is like it", front)
    shapes = [
        {layer.removeprefix(front[name]): shape for layer, shape in traits[name].shapes.items()}
        for name in group
    ]
    common = set(shapes[0].items()).intersection(*(s.items() for s in shapes[1:]))
    every = set(shapes[0]).union(*shapes[1:])
    shared = frozenset(name for name, _ in common)
    other = sorted(every - shared)
    if shared and len(other) <= OTHER_LAYERS * len(every):
        reason = f"the same names and shapes in all {len(shared)} layers that count"
        if other:
            reason = (
                f"the same names and shapes in {len(shared)} layers, which count; {len(other)} "
                f"differ ({', '.join(other[:3])}): were they trained for the same task?"
            )
        return Family(label, members, SAME, reason, front, shared)
    named = "forced by its label" if not _alike(group, traits) else "layers of the same roles"
    reason = f"{named}, in other shapes or numbers"
    if any(shape and shape in shapes[:place] for place, shape in enumerate(shapes)):
        reason += " (those of equal shapes are better ranked by themselves)"
    return Family(label, members, SIZES, reason, front)


def _alike(group: Sequence[str], traits: Mapping[str, _Traits]) -> bool:
    return all(_fits(name, group[:place], traits) for place, name in enumerate(group))


def _read_traits(candidate: Candidate) -> _Traits:
    metrics = candidate.metrics
    convolutions = [layer for layer in metrics.layers if _coarse(layer) == "conv"]
    # Between dense layers a step says as much about dropout.
    stepping = [layer.name for layer in convolutions or metrics.layers if layer.kind != "linear"]
    # By size and not by status: of a diverged network even a layer of ten eigenvalues is judged.
    large = [x for x in metrics.layers if x.num_evals >= MIN_EIGENVALUES or not x.M]
    shapes = {bare_name(layer.name): (layer.N, layer.M, layer.num_slices) for layer in large}
    return _Traits(
        roles=frozenset((role(bare_name(layer.name)), _coarse(layer)) for layer in metrics.layers),
        kernels=frozenset(
            layer.num_slices if layer.num_slices in KERNELS else 0 for layer in convolutions
        ),
        batch_norm=_has_batch_norm(metrics),
        step=_find_step(stepping),
        named=not all(layer.name.startswith(UNNAMED) for layer in metrics.layers),
        shapes=shapes if all(layer.M for layer in large) else {},
        model_type=candidate.model_type,
    )


def _coarse(layer: LayerMetrics) -> str:
    """Kind of a layer as far as files, modules and other tools' tables agree on it."""
    if layer.kind.startswith("conv"):
        # WeightWatcher calls Hugging Face's dense layers conv1d.
        return "dense" if layer.kind == "conv1d" and layer.num_slices == 1 else "conv"
    return layer.kind if layer.kind in ("", "embedding", "rnn") else "dense"


def _has_batch_norm(metrics: ModelMetrics) -> bool | None:
    if any(name.endswith("running_mean") for name in metrics.skipped):
        return True
    # Only an analysis, which keeps spectra, has seen the vectors; a table lists matrices.
    return False if any(layer.spectrum is not None for layer in metrics.layers) else None


def _find_step(names: Sequence[str]) -> int:
    """Smallest step between the numbers of layers of one parent: VGG's is 2, with batch norm 3."""
    places: dict[str, list[int]] = {}
    for name in names:
        parent, _, last = name.rpartition(".")
        if last.isdecimal():
            places.setdefault(parent, []).append(int(last))
    steps = [b - a for numbers in places.values() for a, b in pairwise(sorted(numbers)) if b > a]
    return min(steps, default=0)


def _share_roles(one: Roles, other: Roles) -> float:
    """Roles in common over all roles; a prefix such as "bert." of one of them does not count."""
    if not (all(kind for _, kind in one) and all(kind for _, kind in other)):
        one, other = (frozenset((name, "") for name, _ in roles) for roles in (one, other))
    first, second = _find_prefixes([one, other])
    one, other = _strip(one, first), _strip(other, second)
    return len(one & other) / len(one | other)


def _find_prefixes(members: Sequence[Roles]) -> list[str]:
    """What to take off the front of each member's names, "bert." or nothing, so that they agree."""
    choices = [("", _find_front(roles)) for roles in members]
    # Mostly the same few: trials of a study have the same roles.
    references = {
        _strip(roles, front)
        for roles, fronts in dict(zip(members, choices, strict=True)).items()
        for front in fronts
    }

    def agree(reference: Roles) -> list[tuple[int, str]]:
        return [
            max(((len(_strip(roles, front) & reference), front) for front in fronts), key=_first)
            for roles, fronts in zip(members, choices, strict=True)
        ]

    best = max(map(agree, sorted(references, key=sorted)), key=lambda f: sum(map(_first, f)))
    return [front for _, front in best]


def _first(pair: tuple[int, str]) -> int:
    return pair[0]


def _find_front(roles: Roles) -> str:
    """The first part of their names that most roles have."""
    firsts = [name.partition(".")[0] for name, _ in roles if "." in name]
    front = max(sorted(set(firsts)), key=firsts.count, default="#")
    return "" if "#" in front else f"{front}."


def _strip(roles: Roles, front: str) -> Roles:
    return frozenset((name.removeprefix(front), kind) for name, kind in roles)
