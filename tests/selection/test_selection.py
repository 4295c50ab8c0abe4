"""Ranking models: real networks, the promises on families, ties and failures, and the command."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from fixtures.paths import REFERENCE, ROOT
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import wwopt
from wwopt.metrics.model_metrics import LayerMetrics, ModelMetrics
from wwopt.metrics.objective import Preset
from wwopt.selection.candidates import Candidate, read_candidate
from wwopt.selection.families import ALONE, SAME, SIZES
from wwopt.selection.rankings import Ranking, shorten_names
from wwopt.selection.scores import STATISTICS, resolve_objective, score_model
from wwopt.selection.selection import RankingError, rank
from wwopt.selection.text import format_ranking
from wwopt.weights.matrices import read_weights

if TYPE_CHECKING:
    from fixtures.zoo import ZooMetricsOf

EPOCHS = (0, 1, 8)


def make_mlp(width: int) -> nn.Sequential:
    layers = [nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def train(model: nn.Sequential, epochs: int) -> nn.Sequential:
    images, labels = load_digits(return_X_y=True)
    x, y = torch.as_tensor(images / 16.0, dtype=torch.float32), torch.as_tensor(labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            loss = cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MLP after several epochs, MLPs of three widths, and files that are no candidates."""
    folder = tmp_path_factory.mktemp("candidates")
    for epochs in EPOCHS:
        torch.manual_seed(0)
        model = train(make_mlp(128), epochs)
        save_file(model.state_dict(), folder / f"epochs-{epochs}.safetensors")
    for width in (64, 128, 192):
        torch.manual_seed(0)
        model = train(make_mlp(width), 4)
        save_file(model.state_dict(), folder / f"width-{width}.safetensors")
    (folder / "noise.safetensors").write_bytes(b"not a checkpoint")
    torch.save(nn.Linear(64, 64), folder / "pickle.pt")
    save_file({"fc.weight": torch.randn(30, 20)}, folder / "tiny.safetensors")
    save_file({"bias": torch.randn(30)}, folder / "vectors.safetensors")
    return folder


@pytest.fixture(scope="session")
def sources(folder: Path) -> dict[str, Path]:
    return {f"{epochs} epochs": folder / f"epochs-{epochs}.safetensors" for epochs in EPOCHS}


@pytest.fixture(scope="session")
def ranking(sources: dict[str, Path]) -> Ranking:
    return rank(sources)


def names_of(ranking: Ranking) -> list[str]:
    return [candidate.name for candidate in ranking]


# One architecture


def test_further_training_ranks_before_less_and_none(ranking: Ranking) -> None:
    (family,) = ranking.families
    assert family.question == SAME
    assert family.objective == "default"
    assert names_of(ranking)[0] == "8 epochs"
    assert [candidate.place for candidate in ranking] == [1, 2, 3]
    best = ranking["8 epochs"]
    assert best.headroom == 0.0
    assert "0 epochs" not in best.ties
    assert ranking["0 epochs"].score - best.score == ranking["0 epochs"].headroom > 0.0


def test_the_score_is_the_objectives_own(ranking: Ranking, sources: Mapping[str, Path]) -> None:
    for name, path in sources.items():
        value = wwopt.SpectralObjective()(wwopt.analyze(path))
        assert ranking[name].score == value.value
        assert ranking[name].terms == value.terms


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


# Several sizes


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


# Published tables


def make_table(alpha: float, *, depth: int = 4, scale: float = 1.0) -> pd.DataFrame:
    """A WeightWatcher table whose layers scatter about alpha."""
    alphas = alpha + np.linspace(-0.5, 0.5, depth)
    lambdas = scale * np.linspace(5.0, 20.0, depth)
    return pd.DataFrame(
        {
            "longname": [f"features.{2 * i}" for i in range(depth)],
            "layer_type": "conv2d",
            "N": 128,
            "M": 64,
            "rf": 9,
            "alpha": alphas,
            "alpha_weighted": alphas * np.log10(lambdas),
            "log_spectral_norm": np.log10(lambdas),
            "log_norm": np.log10(lambdas) + 1.0,
            "stable_rank": 10.0 * scale,
        }
    )


def test_published_tables_are_ranked_without_weights() -> None:
    tables = {"shallow": make_table(3.0), "deep": make_table(3.0, depth=8, scale=0.5)}
    ranking = rank(tables)
    (family,) = ranking.families
    assert family.objective == "alpha_hat"
    assert names_of(ranking) == ["deep", "shallow"]
    for name, table in tables.items():
        assert ranking[name].score == pytest.approx(table["alpha_weighted"].mean(), rel=1e-12)
        assert ranking[name].parameters == 128 * 64 * 9 * len(table)


@pytest.mark.parametrize("objective", ["alpha", "log_norm", "log_spectral_norm", "stable_rank"])
def test_statistics_are_means_over_layers_lower_first(objective: str) -> None:
    tables = {"a": make_table(3.0), "b": make_table(2.5, scale=2.0), "c": make_table(4.0)}
    ranking = rank(tables, objective=objective)
    for name, table in tables.items():
        assert ranking[name].score == pytest.approx(table[objective].mean())
    assert [c.score for c in ranking] == sorted(c.score for c in ranking)
    assert {c.objective for c in ranking} == {objective}


def test_a_real_table_has_weightwatchers_own_mean() -> None:
    path = REFERENCE / "weightwatcher-minilm.csv"
    for objective in ("alpha_hat", "alpha_weighted"):
        (candidate,) = rank([path], objective=objective)
        frame = pd.read_csv(path)
        assert candidate.score == pytest.approx(frame["alpha_weighted"].mean(), rel=1e-12)
        assert candidate.place is None


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


# What cannot be ranked


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
        ({"a": make_mlp(64)}, {"objective": "beauty"}, "unknown objective 'beauty'; known: def"),
        ({"a": make_mlp(64)}, {"objective": "validation-free"}, "reads the training loss"),
    ],
)
def test_says_what_is_wrong(candidates: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank(candidates, **options)


def test_every_name_of_a_score_is_known() -> None:
    metrics = wwopt.analyze(nn.Sequential(nn.Linear(100, 80), nn.Linear(80, 64)))
    presets = [p for p in get_args(Preset) if not wwopt.SpectralObjective(p).reads_train_loss]
    for name in (*presets, *STATISTICS):
        assert math.isfinite(score_model(metrics, resolve_objective(name)).value)
    own = wwopt.SpectralObjective(trap_weight=2.0)
    (candidate,) = rank({"a": metrics}, objective=own)
    assert candidate.score == own(metrics).value
    assert candidate.objective == "default, other options"


# What is told of a candidate


def test_coverage_is_the_share_of_parameters_that_count() -> None:
    model = nn.Sequential(nn.Linear(100, 80), nn.Linear(80, 10))
    candidate = read_candidate("a", model)
    assert candidate.parameters == 100 * 80 + 80 + 80 * 10 + 10
    assert candidate.coverage == pytest.approx(8000 / candidate.parameters)
    state = read_candidate("b", model.state_dict())
    assert (state.parameters, state.coverage) == (candidate.parameters, candidate.coverage)
    metrics = read_candidate("c", wwopt.analyze(model))
    assert metrics.parameters == 8000 + 800 and math.isnan(metrics.coverage)


def test_tied_weights_and_buffers_count_once_and_never() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64))
    model[2].weight = model[0].weight
    candidate = read_candidate("a", model)
    assert candidate.parameters == 64 * 64 + 2 * 64 + 2 * 64


def test_warnings_name_what_to_beware_of() -> None:
    rng = np.random.default_rng(0)
    trapped = rng.normal(size=(200, 100)).astype(np.float32)
    trapped[:3, :3] = 60.0
    rest = np.zeros((400, 400), np.float32)
    state = {
        "trapped.weight": torch.as_tensor(trapped),
        "random.weight": torch.as_tensor(rng.normal(size=(200, 100)).astype(np.float32)),
        "norm.weight": torch.ones(30_000),
        "zero.weight": torch.as_tensor(rest),
    }
    (candidate,) = rank({"a": state})
    text = "; ".join(candidate.warnings)
    assert "1 of 3 layers with correlation traps: trapped" in text
    assert "2 of 3 layers like a random matrix: trapped, random" in text
    assert "broken or without a fit: zero" in text
    assert candidate.status.startswith("broken: zero")
    few = {k: v for k, v in state.items() if k in ("random.weight", "norm.weight")}
    (candidate,) = rank({"a": few})
    assert "hold 40% of the parameters" in "; ".join(candidate.warnings)


def test_one_layer_that_counts_has_no_interval_and_no_ties() -> None:
    models = {str(seed): {"fc.weight": draw(seed)} for seed in (0, 1)}
    ranking = rank(models)
    assert all(math.isnan(c.low) and c.ties == () for c in ranking)
    assert "Ties cannot be told" in format_ranking(ranking)


def draw(seed: int) -> torch.Tensor:
    return torch.randn(100, 80, generator=torch.Generator().manual_seed(seed))


def test_a_candidate_that_was_read_already_keeps_what_is_known_of_it() -> None:
    layer = LayerMetrics(name="fc", N=9, M=9, num_evals=9, alpha_weighted=1.0)
    given = Candidate(
        name="old", metrics=ModelMetrics((layer,)), parameters=7.0, coverage=0.5, model_type="bert"
    )
    (candidate,) = rank({"new": given}, objective="alpha_hat")
    assert (candidate.name, candidate.parameters, candidate.family) == ("new", 7.0, "bert")


# As data and in words


def test_tables_and_json_hold_the_same(ranking: Ranking) -> None:
    frame = ranking.to_frame()
    document = json.loads(json.dumps(ranking.to_dict(), allow_nan=False))
    assert [row["candidate"] for row in document["candidates"]] == list(frame["candidate"])
    assert [row["score"] for row in document["candidates"]] == list(frame["score"])
    assert document["candidates"][0]["ties"] == list(next(iter(ranking)).ties)
    assert document["families"][0]["question"] == SAME
    assert len(ranking) == 3
    assert str(frame["place"].dtype) == "Int64"


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["runs/a/model.safetensors", "runs/b/model.safetensors"], ["a", "b"]),
        (["x/e-1.pt", "x/e-10.pt"], ["e-1", "e-10"]),
        (["x/a.pt", "y/b.pt"], ["x/a", "y/b"]),
        (["a", "a/b"], ["a", "a/b"]),
        (["/x/a", "/y/a"], ["/x", "/y"]),
        (["deep/alone.pt"], ["deep/alone.pt"]),
        (["runs:/1", "runs:/2"], ["1", "2"]),
        (["v1.0", "v2.0"], ["v1.0", "v2.0"]),
    ],
)
def test_names_lose_what_all_of_them_share(names: list[str], short: list[str]) -> None:
    assert list(shorten_names(names).values()) == short


def test_the_example_of_the_documentation_runs() -> None:
    page = (ROOT / "docs" / "selection.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(block, "docs/selection.md", "exec"), {"__name__": "page"})


class Wrapper(nn.Module):
    """Holds a model, as DistributedDataParallel does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_a_wrapped_model_is_of_the_type_that_its_configuration_names() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(80, 60))
    model.config = SimpleNamespace(model_type="gpt2")  # type: ignore[assignment]
    for source in (model, Wrapper(model)):
        assert read_candidate("a", source).model_type == "gpt2"
        assert read_weights(source).model_type == "gpt2"
    other = nn.Sequential(nn.Linear(80, 60))
    other.config = SimpleNamespace(model_type="bert")  # type: ignore[assignment]
    ranking = wwopt.rank({"a": Wrapper(model), "b": Wrapper(other)})
    assert len(ranking.families) == 2
    assert ranking.splits == ("a is a gpt2, b a bert",)
