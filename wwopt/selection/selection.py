"""Which of these models is better trained? Candidates in, an order out, as far as there is one.

    rank({"a": "a.safetensors", "b": model}) -> Ranking, families of candidates in order

Candidates are grouped into families (`model_families`), each is ranked by the score that suits its
question (`candidate_scores`), and ties are told (`score_intervals`). Across families no order is
claimed; the score stands there all the same.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from wwopt.metrics.model_metrics import DEGENERATE, OK, ModelMetrics
from wwopt.metrics.objective import SpectralObjective
from wwopt.metrics.parallel import LostWorkerError
from wwopt.metrics.verdicts import judge_layer
from wwopt.selection.candidates import Candidate, read_candidate
from wwopt.selection.cautions import describe_kin, find_warnings
from wwopt.selection.families import ALONE, SAME, SIZES, Family, find_families, role
from wwopt.selection.intervals import bootstrap_intervals, overlap
from wwopt.selection.kinship import find_kin
from wwopt.selection.rankings import RankedCandidate, RankedFamily, Ranking
from wwopt.selection.scores import Score, name_objective, resolve_objective, score_model

HELD_BACK = 3  # layers that are named as holding a candidate back
UNTRAINED = "looks untrained"  # status, where most layers are like random matrices


class RankingError(ValueError):
    """No candidate could be ranked; the message says why, candidate by candidate."""


def rank(
    candidates: Mapping[str, Any] | Sequence[Any],
    *,
    objective: str | SpectralObjective | None = None,
    families: Mapping[str, str] | None = None,
    layers: Iterable[str] | None = None,
    key: str | None = None,
    seed: int = 0,
    shuffles: int = 3,
    executor: Executor | None = None,
    device: torch.device | str | None = None,
    quick: bool = False,
    progress: bool = False,
) -> Ranking:
    """Order models by their weights, without data, where that can be done.

    Args:
        candidates: name → whatever `analyze` takes, its result, or a layer table (a DataFrame or
            the path of a `.csv`); or a list of paths, which are their own names.
        objective: None to let the question choose; the name of a preset of `SpectralObjective` or
            of a statistic such as "alpha_hat"; or a `SpectralObjective`. Lower is better in all.
        families: candidate → label of its family, where it is not to be recognised; one label for
            all forces one ranking.
        layers: names to analyse and judge by; None for all.
        key: dotted path of the model in checkpoints that hold several. Candidates that are
            checkpoints without keys are not ranked then; results of `analyze` and tables are.
        seed: of the shuffles behind the traps, and of the intervals.
        shuffles: of every layer.
        executor: computes the layers, in other processes or on other machines.
        device: where to compute.
        quick: estimate large layers quickly, as `analyze` does; of all candidates, or of none.
        progress: show a bar.

    Returns:
        The ranking; candidates that cannot be read or judged are in its `failed`.

    Raises:
        RankingError: if no candidate can be judged.
        ValueError: if a name is given twice, the objective is unknown or reads more than weights,
            or a label is for nobody.
    """
    sources = _name_sources(candidates)
    labels = dict(families or {})
    if strangers := sorted(set(labels) - set(sources)):
        raise ValueError(
            f"families names {', '.join(map(repr, strangers))}, which are no candidates; they are "
            f"{', '.join(map(repr, sources))}"
        )
    chosen = None if objective is None else resolve_objective(objective)
    wanted = None if layers is None else list(layers)
    found: dict[str, Candidate] = {}
    failed: dict[str, str] = {}
    bar = tqdm(sources.items(), desc="candidates", delay=2, disable=not progress)
    for name, source in bar:
        try:
            found[name] = read_candidate(
                name,
                source,
                layers=wanted,
                key=key,
                seed=seed,
                shuffles=shuffles,
                executor=executor,
                device=device,
                quick=quick,
            )
        except (ValueError, OSError, LostWorkerError) as error:
            failed[name] = str(error)
    if not found:
        listed = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise RankingError(f"none of {len(sources)} candidates can be ranked: {listed}")
    groups, splits = find_families(list(found.values()), labels)
    ranked = [_rank_family(group, found, chosen, seed) for group in groups]
    return Ranking(tuple(ranked), splits, failed)


def _name_sources(candidates: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if isinstance(candidates, Mapping):
        sources = {str(name): source for name, source in candidates.items()}
    elif isinstance(candidates, str | os.PathLike) or not isinstance(candidates, Sequence):
        raise ValueError(
            f"rank takes several candidates, a mapping name → source or a list of paths; got "
            f"{candidates!r:.80}"
        )
    else:
        unnamed = [c for c in candidates if not isinstance(c, str | os.PathLike)]
        if unnamed:
            raise ValueError(
                f"a list of candidates holds paths; name a {type(unnamed[0]).__name__} by passing "
                "a mapping name → source"
            )
        sources = {str(path): path for path in candidates}
    if not sources:
        raise ValueError("there are no candidates to rank")
    if len(sources) < len(candidates):
        raise ValueError("a candidate is named twice; give each a name of its own")
    return sources


def _rank_family(
    family: Family,
    candidates: Mapping[str, Candidate],
    chosen: str | SpectralObjective | None,
    seed: int,
) -> RankedFamily:
    models = {name: _judge(candidates[name], family) for name in family.members}
    objective, scores, why = _choose(family, models, chosen)
    names = sorted(family.members, key=lambda name: _order(scores[name]))
    together = len(names) > 1
    intervals = dict(
        zip(
            names,
            bootstrap_intervals(
                [models[name] for name in names],
                [scores[name] for name in names],
                objective,
                paired=family.question == SAME,
                seed=seed,
            ),
            strict=True,
        )
    )
    sound = {name: score for name, score in scores.items() if score.status == OK}
    best = min((s.value for s in sound.values() if math.isfinite(s.value)), default=math.nan)
    gaps = _find_gaps(sound, by_role=family.question != SAME) if together else {}
    sizes = _size_places([candidates[name] for name in names]) if together else {}
    kin = find_kin({name: candidates[name].directions for name in family.members})
    members = tuple(
        RankedCandidate(
            name=name,
            family=family.label,
            place=place if together and math.isfinite(scores[name].value) else None,
            score=scores[name].value,
            low=intervals[name][0],
            high=intervals[name][1],
            objective=name_objective(objective),
            ties=tuple(
                other
                for other in names
                if other != name and overlap(intervals[name], intervals[other])
            ),
            headroom=scores[name].value - best if together and name in sound else math.nan,
            held_back=gaps.get(name, {}),
            terms=scores[name].terms,
            parameters=candidates[name].parameters,
            size_place=sizes.get(name),
            coverage=candidates[name].coverage,
            status=scores[name].status,
            warnings=find_warnings(candidates[name].metrics, candidates[name].coverage)
            + describe_kin(name, kin),
            metrics=candidates[name].metrics,
        )
        for place, name in enumerate(names, start=1)
    )
    return RankedFamily(
        family.label,
        family.question,
        name_objective(objective),
        f"{family.reason}; {why}",
        members,
        kin,
    )


def _judge(candidate: Candidate, family: Family) -> ModelMetrics:
    """The layers that the score is made of, under names that all of a family share."""
    metrics = candidate.metrics
    layers = [
        replace(layer, name=family.own_name(candidate.name, layer.name)) for layer in metrics.layers
    ]
    kept = [
        layer
        for layer in layers
        if family.question != SAME
        or layer.name in family.shared
        or not layer.counted
        or layer.status in DEGENERATE
    ]
    first = metrics.first_layer
    name = None if first is None else family.own_name(candidate.name, first.name)
    # Never the first of what was kept, which may be any layer.
    return ModelMetrics(tuple(kept), metrics.skipped, first=name or "")


def _choose(
    family: Family, models: Mapping[str, ModelMetrics], chosen: str | SpectralObjective | None
) -> tuple[str | SpectralObjective, dict[str, Score], str]:
    """The score that suits the question, every member's value, and why it was chosen."""
    if chosen is not None:
        objective, why = chosen, f"ranked by {name_objective(chosen)}, as asked"
    elif family.question == SIZES:
        objective = "alpha_hat"
        why = (
            "ranked by alpha-hat, whose scale orders sizes; in published families the number of "
            "parameters alone orders better (mean tau .79 against .64)"
        )
    else:
        objective = SpectralObjective()
        why = "by the weights-only score"
        why = why if family.question == ALONE else f"ranked {why}"
    scores = {name: score_model(model, objective) for name, model in models.items()}
    if chosen is None and family.question == SIZES:
        scores = {name: _check_trained(score, models[name]) for name, score in scores.items()}
    lacking = any(math.isnan(score.value) for score in scores.values())
    if chosen is None and lacking and isinstance(objective, SpectralObjective):
        fallback = "alpha_distance" if family.question == SAME else "alpha_hat"
        scores = {name: score_model(model, fallback) for name, model in models.items()}
        objective = fallback
        why = f"by {fallback}: the tables lack what the weights-only score takes"
    if all(math.isnan(score.value) for score in scores.values()):
        why += ", which no table holds"
    return objective, scores, why


def _check_trained(score: Score, metrics: ModelMetrics) -> Score:
    """Alpha-hat orders trained networks; at their initialisation small weights would win."""
    untrained = sum(judge_layer(x).verdict == "looks untrained" for x in metrics.counted)
    return replace(score, status=UNTRAINED) if 2 * untrained > len(metrics.counted) else score


def _order(score: Score) -> tuple[bool, bool, float]:
    """Broken networks after sound ones, whatever their score; those without one at the end."""
    lost = math.isnan(score.value)
    return lost, score.status != OK, 0.0 if lost else score.value


def _find_gaps(scores: Mapping[str, Score], *, by_role: bool) -> dict[str, dict[str, float]]:
    """What holds each candidate back: layers furthest above the best that the family has there.

    Between sizes layers have no partners, so the means over layers of one role are compared.
    """
    tables: dict[str, dict[str, float]] = {}
    for name, score in scores.items():
        parts: dict[str, list[float]] = {}
        for layer, value in score.layers.items():
            if math.isfinite(value):
                parts.setdefault(role(layer) if by_role else layer, []).append(value)
        tables[name] = {part: sum(values) / len(values) for part, values in parts.items()}
    if by_role and len(set().union(*tables.values())) == 1:
        return {}  # one role is the whole score again
    best: dict[str, float] = {}
    for table in tables.values():
        for part, value in table.items():
            best[part] = min(value, best.get(part, math.inf))
    gaps = {}
    for name, table in tables.items():
        above = sorted(((v - best[part], part) for part, v in table.items()), reverse=True)
        gaps[name] = {part: gap for gap, part in above[:HELD_BACK] if gap > 0.0}
    return gaps


def _size_places(candidates: Sequence[Candidate]) -> dict[str, int]:
    known = [c for c in candidates if c.parameters > 0]
    return {c.name: 1 + sum(other.parameters > c.parameters for other in known) for c in known}
