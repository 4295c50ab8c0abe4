"""A ranking as data: families of candidates, each in order, with what the order rests on."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.plain_data import make_plain
from wwopt.selection.kinship import Kin


@dataclass(frozen=True, kw_only=True)
class RankedCandidate:
    """One candidate in its family."""

    name: str
    family: str
    place: int | None  # 1 is best in its family; None where no order is claimed
    score: float  # lower is better; NaN where the metrics do not hold what the score takes
    low: float  # interval of the score, 95 %; see `score_intervals`
    high: float
    objective: str  # name of the score
    ties: tuple[str, ...]  # members of its family whose intervals overlap its own
    headroom: float  # score less the best of its family; NaN without an order, or a sound network
    held_back: Mapping[str, float]  # layer, or role of layers → score above the family's best there
    terms: Mapping[str, float]  # that the score is the sum of; empty where it has none
    parameters: float  # of the model
    size_place: int | None  # place by parameters, most first: the baseline between sizes
    coverage: float  # share of the parameters that the counted layers hold; NaN: not known
    status: str  # "ok", or what is wrong with the network
    warnings: tuple[str, ...]
    metrics: ModelMetrics = field(repr=False)


@dataclass(frozen=True)
class RankedFamily:
    """Candidates that were ranked against each other, best first."""

    label: str
    question: str  # see `model_families`
    objective: str  # name of the score
    reason: str  # what the question was told by, and what decides
    members: tuple[RankedCandidate, ...]
    kin: tuple[Kin, ...] = ()  # members that come from one another, or from one base


@dataclass(frozen=True)
class Ranking:
    """All candidates in order, family by family; iterating gives them in that order."""

    families: tuple[RankedFamily, ...]
    splits: tuple[str, ...]  # why the candidates are not one family
    failed: Mapping[str, str]  # candidate → why it is not ranked

    def __iter__(self) -> Iterator[RankedCandidate]:
        return (member for family in self.families for member in family.members)

    def __len__(self) -> int:
        return sum(len(family.members) for family in self.families)

    def __getitem__(self, name: str) -> RankedCandidate:
        """The candidate of that name."""
        for candidate in self:
            if candidate.name == name:
                return candidate
        if name in self.failed:
            raise KeyError(f"{name!r} was not ranked: {self.failed[name]}")
        raise KeyError(f"no candidate {name!r}; they are {', '.join(c.name for c in self)}")

    def to_frame(self) -> pd.DataFrame:
        """One row a candidate, in order."""
        frame = pd.DataFrame([_flat(_row(candidate)) for candidate in self])
        return frame.astype({"place": "Int64", "size_place": "Int64"})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is unknown is None."""
        return {
            "candidates": [make_plain(_row(c) | {"terms": dict(c.terms)}) for c in self],
            "families": [
                {
                    "family": family.label,
                    "question": family.question,
                    "objective": family.objective,
                    "reason": family.reason,
                    "candidates": [member.name for member in family.members],
                    "kin": [make_plain(asdict(kin)) for kin in family.kin],
                }
                for family in self.families
            ],
            "splits": list(self.splits),
            "failed": dict(self.failed),
        }


def summarize_candidate(candidate: RankedCandidate) -> dict[str, float]:
    """Its score and the means over its layers, as the aggregates of a trial are named."""
    means = candidate.metrics.summary()
    counted = candidate.metrics.counted
    traps = [layer.num_traps for layer in counted if not math.isnan(layer.num_traps)]
    found = {"rank/score": candidate.score, "rank/low": candidate.low, "rank/high": candidate.high}
    found |= {f"objective/{term}": value for term, value in candidate.terms.items()}
    found |= {f"alpha/{'mean' if name == 'alpha' else name}": v for name, v in means.items()}
    found |= {"traps/count": sum(traps)} if traps else {}
    found |= {"model/parameters": candidate.parameters, "model/coverage": candidate.coverage}
    return found


def shorten_names(names: Sequence[str]) -> dict[str, str]:
    """Names without the folders, and without the ending, that all of them share."""
    if len(names) < 2:
        return {name: name for name in names}
    split = [name.split("/") for name in names]
    first, last = 0, 0
    while all(len(p) > first + 1 and p[first] == split[0][first] for p in split):
        first += 1
    while all(len(p) > first + last + 1 and p[-1 - last] == split[0][-1 - last] for p in split):
        last += 1
    first = 0 if split[0][:first] == [""] else first  # "/a" and "/b" share a slash
    kept = ["/".join(parts[first : len(parts) - last]) for parts in split]
    ending = Path(kept[0]).suffix
    if ending[1:].isalpha() and all(name.endswith(ending) and name != ending for name in kept):
        kept = [name.removesuffix(ending) for name in kept]
    return dict(zip(names, kept, strict=True))


def _row(candidate: RankedCandidate) -> dict[str, Any]:
    size = candidate.parameters
    return {
        "candidate": candidate.name,
        "family": candidate.family,
        "place": candidate.place,
        "score": candidate.score,
        "low": candidate.low,
        "high": candidate.high,
        "objective": candidate.objective,
        "ties": list(candidate.ties),
        "headroom": candidate.headroom,
        "held_back": dict(candidate.held_back),
        "parameters": size,
        "log10_parameters": math.log10(size) if size > 0 else math.nan,
        "size_place": candidate.size_place,
        "layers": len(candidate.metrics.counted),
        "coverage": candidate.coverage,
        "status": candidate.status,
        "warnings": list(candidate.warnings),
    }


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its lists and mappings in words, for a table."""
    parts = (f"{part} {gap:+.3g}" for part, gap in row["held_back"].items())
    joined = {
        "ties": ", ".join(row["ties"]),
        "held_back": ", ".join(parts),
        "warnings": "; ".join(row["warnings"]),
    }
    return {**row, **joined}
