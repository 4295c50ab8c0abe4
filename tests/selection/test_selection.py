"""Ranking models: real networks and tables, the promises on families, ties and failures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.networks.digit_networks import make_mlp
from fixtures.paths import ROOT
from fixtures.weights.layer_tables import make_table
from torch import nn

import wwopt
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.selection.families import ALONE, SAME, SIZES
from wwopt.selection.rankings import Ranking
from wwopt.selection.scores import score_model
from wwopt.selection.selection import RankingError, rank
from wwopt.selection.text import format_ranking

if TYPE_CHECKING:
    from fixtures.recorded.zoo import ZooMetricsOf


def names_of(ranking: Ranking) -> list[str]:
    return [candidate.name for candidate in ranking]


def test_further_training_ranks_before_less_and_none(ranking: Ranking) -> None:
    (family,) = ranking.families
    assert family.question == SAME
    assert family.objective == "weights-only"
    assert names_of(ranking)[0] == "8 epochs"
    assert [candidate.place for candidate in ranking] == [1, 2, 3]
    best = ranking["8 epochs"]
    assert best.headroom == 0.0
    assert "0 epochs" not in best.ties
    assert ranking["0 epochs"].score - best.score == ranking["0 epochs"].headroom > 0.0


def test_the_order_in_which_candidates_come_changes_nothing(
    ranking: Ranking, sources: Mapping[str, Path]
) -> None:
    turned = rank(dict(reversed(sources.items())))
    pd.testing.assert_frame_equal(turned.to_frame(), ranking.to_frame())


def test_ties_are_the_candidates_whose_intervals_overlap(zoo_metrics: ZooMetricsOf) -> None:
    models = {str(i): metrics for i, metrics in enumerate(zoo_metrics("1.0")[:30])}
    ranking = rank(models)
    assert len(ranking.families) == 1
    fine = [c for c in ranking if c.status == "ok"]
    assert len(fine) > 20
    pairs = [(a, b) for a in fine for b in fine if a is not b]
    overlapping = [max(a.low, b.low) <= min(a.high, b.high) for a, b in pairs]
    assert [b.name in a.ties for a, b in pairs] == overlapping
    assert set(overlapping) == {True, False}
    assert all(c.low <= c.score <= c.high for c in fine)


def test_collapsed_networks_come_last_and_tie_with_nobody(zoo_metrics: ZooMetricsOf) -> None:
    sound = zoo_metrics("1.0")[:4]
    broken = replace(sound[0].layers[0], status="collapsed")
    models = {str(i): metrics for i, metrics in enumerate(sound)}
    models = {"broken": ModelMetrics((broken, *sound[0].layers[1:])), **models}
    for objective in (None, "alpha"):
        ranking = rank(models, objective=objective)
        last = list(ranking)[-1]
        assert last.name == "broken"
        assert last.status.startswith("broken: l0 collapsed")
        assert last.ties == ()


def test_a_diverged_network_is_still_one_of_its_architecture(sources: dict[str, Path]) -> None:
    torch.manual_seed(0)
    model = make_mlp(128)
    for parameter in model.parameters():
        parameter.data.fill_(math.nan)
    ranking = rank({**sources, "diverged": model})
    (family,) = ranking.families
    assert family.question == SAME
    last = family.members[-1]
    assert last.name == "diverged" and last.status.startswith("broken: 0 not finite")
    assert math.isnan(last.low)
    assert not any("diverged" in candidate.ties for candidate in ranking)


def test_headroom_names_the_layers_that_are_furthest_behind(zoo_metrics: ZooMetricsOf) -> None:
    """A sound network and a copy of which one layer is as it was before training."""
    trained, start = zoo_metrics("1.0")[0], zoo_metrics("0")[0]
    behind = ModelMetrics((trained.layers[0], start.layers[1], trained.layers[2]))
    ranking = rank({"trained": trained, "behind": behind})
    held = ranking["behind"].held_back if ranking["behind"].headroom else None
    assert held is not None and list(held) == ["l1"]
    scores = {
        name: score_model(m, wwopt.SpectralObjective()).layers["l1"]
        for name, m in (("trained", trained), ("behind", behind))
    }
    assert held["l1"] == pytest.approx(scores["behind"] - scores["trained"])
    assert ranking["trained"].held_back == {}


def test_modules_state_dicts_files_and_metrics_are_ranked_together(
    folder: Path, ranking: Ranking
) -> None:
    torch.manual_seed(0)
    module = make_mlp(128)
    mixed = rank(
        {
            "module": module,
            "state": module.state_dict(),
            "file": folder / "epochs-0.safetensors",
            "metrics": wwopt.analyze(module),
        }
    )
    assert len(mixed.families) == 1
    assert {candidate.score for candidate in mixed} == {ranking["0 epochs"].score}
    assert all(len(candidate.ties) == 3 for candidate in mixed)


def test_sizes_are_ranked_by_alpha_hat_with_parameters_beside_it(folder: Path) -> None:
    widths = {str(w): folder / f"width-{w}.safetensors" for w in (64, 128, 192)}
    ranking = rank(widths)
    (family,) = ranking.families
    assert (family.question, family.objective) == (SIZES, "alpha_hat")
    for name, path in widths.items():
        layers = wwopt.analyze(path).counted
        mean = np.mean([layer.alpha * math.log10(layer.spectral_norm) for layer in layers])
        assert ranking[name].score == pytest.approx(mean)
        width = int(name)
        assert ranking[name].parameters == 65 * width + (width + 1) * width + 10 * (width + 1)
    assert [ranking[name].size_place for name in ("192", "128", "64")] == [1, 2, 3]
    assert [c.score for c in ranking] == sorted(c.score for c in ranking)
    assert "By parameters, most first" in format_ranking(ranking)


def test_between_sizes_an_untrained_network_does_not_win_by_its_small_weights(
    folder: Path,
) -> None:
    """Its alpha-hat is the lowest of all; asked for by name, alpha-hat alone decides."""
    torch.manual_seed(0)
    sources = {"trained": folder / "epochs-8.safetensors", "start": make_mlp(192)}
    ranking = rank(sources)
    assert names_of(ranking) == ["trained", "start"]
    start = ranking["start"]
    assert start.status == "looks untrained" and start.ties == ()
    assert start.score < ranking["trained"].score and math.isnan(start.headroom)
    assert names_of(rank(sources, objective="alpha_hat")) == ["start", "trained"]


def test_different_families_are_ranked_apart_and_forced_together(folder: Path) -> None:
    torch.manual_seed(0)
    sources = {
        "one": folder / "epochs-0.safetensors",
        "other": folder / "epochs-8.safetensors",
        "cnn": nn.Sequential(nn.Conv2d(16, 64, 3), nn.Conv2d(64, 64, 3)),
    }
    ranking = rank(sources)
    assert [family.question for family in ranking.families] == [SAME, ALONE]
    alone = ranking["cnn"]
    assert alone.place is None and math.isfinite(alone.score)
    assert math.isnan(alone.headroom) and alone.ties == ()
    assert "different names or kinds" in ranking.splits[0]
    text = format_ranking(ranking)
    assert "No order across families" in text and "--family" in text
    forced = rank(sources, families=dict.fromkeys(sources, "all"))
    (family,) = forced.families
    assert family.label == "all" and family.question == SIZES
    assert sorted(c.place or 0 for c in forced) == [1, 2, 3]


def test_published_tables_are_ranked_without_weights() -> None:
    tables = {"shallow": make_table(3.0), "deep": make_table(3.0, depth=8, scale=0.5)}
    ranking = rank(tables)
    (family,) = ranking.families
    assert family.objective == "alpha_hat"
    assert names_of(ranking) == ["deep", "shallow"]
    for name, table in tables.items():
        assert ranking[name].score == pytest.approx(table["alpha_weighted"].mean(), rel=1e-12)
        assert ranking[name].parameters == 128 * 64 * 9 * len(table)


def test_tables_of_one_architecture_lack_the_weights_only_score() -> None:
    ranking = rank({"near": make_table(2.4), "far": make_table(5.0)})
    (family,) = ranking.families
    assert (family.question, family.objective) == (SAME, "alpha_distance")
    assert "lack what the weights-only score takes" in family.reason
    assert names_of(ranking) == ["near", "far"]
    assert ranking["far"].score == pytest.approx(3.0)


def test_tables_that_all_lack_the_score_are_listed_with_the_reason() -> None:
    bare = make_table(3.0).drop(columns=["alpha", "alpha_weighted"])
    ranking = rank({"a": bare, "b": bare[:3]})
    assert [c.place for c in ranking] == [None, None]
    assert "which no table holds" in ranking.families[0].reason
    assert "No candidate has a score" in format_ranking(ranking)


def test_a_table_without_the_column_of_the_score_is_listed_without_a_place() -> None:
    bare = make_table(3.0).drop(columns=["alpha", "alpha_weighted"])
    ranking = rank({"bare": bare, "whole": make_table(4.0)}, objective="alpha_hat")
    assert names_of(ranking) == ["whole", "bare"]
    assert math.isnan(ranking["bare"].score) and ranking["bare"].place is None
    assert ranking["whole"].place == 1
    format_ranking(ranking)


def test_what_cannot_be_read_is_named_and_the_others_are_ranked(
    folder: Path, sources: dict[str, Path], ranking: Ranking
) -> None:
    bad = ("noise.safetensors", "pickle.pt", "tiny.safetensors", "vectors.safetensors", "gone.pt")
    mixed = rank({**sources, **{name: folder / name for name in bad}})
    assert set(mixed.failed) == set(bad)
    assert names_of(mixed) == names_of(ranking)
    assert "fc, 20" in mixed.failed["tiny.safetensors"]
    assert "bias (vector)" in mixed.failed["vectors.safetensors"]
    assert "does not exist" in mixed.failed["gone.pt"]
    with pytest.raises(KeyError, match="was not ranked: no layer has the 50 eigenvalues"):
        mixed["tiny.safetensors"]


def test_none_that_can_be_ranked_is_an_error_with_all_reasons(folder: Path) -> None:
    with pytest.raises(RankingError, match=r"none of 2 candidates .*noise.*tiny"):
        rank([folder / "noise.safetensors", folder / "tiny.safetensors"])


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ("model.safetensors", {}, "several candidates, a mapping"),
        (make_mlp(8), {}, "several candidates, a mapping"),
        ([make_mlp(8)], {}, "name a Sequential by passing a mapping"),
        ([], {}, "no candidates"),
        (["a.pt", "a.pt"], {}, "named twice"),
        ({"a": make_mlp(64)}, {"families": {"b": "x"}}, "families names 'b'"),
        ({"a": make_mlp(64)}, {"objective": "beauty"}, "unknown objective 'beauty'; known: wei"),
        ({"a": make_mlp(64)}, {"objective": "validation-free"}, "reads the training loss"),
    ],
)
def test_says_what_is_wrong(candidates: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank(candidates, **options)


def test_one_layer_that_counts_has_no_interval_and_no_ties() -> None:
    models = {str(seed): {"fc.weight": draw(seed)} for seed in (0, 1)}
    ranking = rank(models)
    assert all(math.isnan(c.low) and c.ties == () for c in ranking)
    assert "Ties cannot be told" in format_ranking(ranking)


def draw(seed: int) -> torch.Tensor:
    return torch.randn(100, 80, generator=torch.Generator().manual_seed(seed))


def test_the_example_of_the_documentation_runs() -> None:
    page = (ROOT / "docs" / "selection.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(block, "docs/selection.md", "exec"), {"__name__": "page"})
