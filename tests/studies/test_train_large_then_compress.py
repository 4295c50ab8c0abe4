"""Equal time is equal, the choices are the best ones, and the study runs from end to end."""

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.paths import STUDIES
from fixtures.studies.made_data import write_data

from harness.train_large.choices import (
    FARTHEST,
    best_of,
    find_better_depths,
    find_finalists,
    walk_to_minimum,
)
from harness.train_large.comparisons import choose, fight, find_front, list_choices
from harness.train_large.compressing import (
    FLOAT,
    INT8,
    WAYS,
    Compressed,
    Way,
    compress_or_read,
    cut_modules,
    plan,
)
from harness.train_large.tasks import TASKS, Parts, judge
from harness.train_large.training import Recipe, Trained, schedule, train_in_time, train_or_read
from wwopt.compression import list_layers

TINY = replace(TASKS["images"], sizes=((16, 1), (24, 2)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("data"))
    path = folder / "tinyshakespeare.txt"
    path.write_text(path.read_text() * 3)  # as long as the true one
    return folder


@pytest.fixture(scope="module")
def parts(data: Path) -> Parts:
    return TINY.load(data)


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever it is read."""
    ticks: Iterator[int] = itertools.count()
    return lambda: seconds * next(ticks)


@pytest.mark.parametrize(("tick", "steps"), [(0.5, 6), (0.3, 12), (10.0, 1)])
def test_training_ends_with_its_time_and_never_after_it(
    tick: float, steps: int, parts: Parts
) -> None:
    """Of 4 seconds reading the clock for the first time takes one tick, and every step one."""
    recipe = Recipe((16, 1), batch=4, rate=1e-3, seed=0, budget=4.0)
    model = TINY.make_model(recipe.size)
    taken, spent = train_in_time(model, parts, recipe, clock=ticking(tick))
    assert taken == steps and spent == pytest.approx(tick * (steps + 1))
    assert spent <= 4.0 or steps == 1  # which is always taken


def test_the_rate_rises_and_falls_to_nothing_with_the_time() -> None:
    shares = np.linspace(0.0, 1.0, 101)
    rates = np.array([schedule(share) for share in shares])
    assert 0.0 < rates[0] < 0.5 and rates[-1] == 0.0 and 0.9 < rates.max() <= 1.0
    peak = int(rates.argmax())
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[peak + 1 :]) < 0).all()


@pytest.mark.parametrize("best", [-2, 0, 1, 3])
def test_the_walk_ends_where_both_neighbours_are_worse(best: int) -> None:
    asked: list[int] = []

    def value(step: int) -> float:
        asked.append(step)
        return float("nan") if step > best + 1 else float(abs(step - best))

    assert walk_to_minimum(value) == best
    assert len(asked) == len(set(asked)) == abs(best) + 3  # each once, one beyond on both sides
    with pytest.raises(ValueError, match=f"no lowest value within {FARTHEST} steps"):
        walk_to_minimum(lambda step: -step)


def trained(size: tuple[int, int], batch: int, validation: float) -> Trained:
    return Trained(Recipe(size, batch, 0.1, 0, 1.0), Path("none"), 9, 1.0, validation)


def test_of_each_width_the_better_depth_and_of_these_up_to_one_above_the_best() -> None:
    found = {
        (32, 1): {4: trained((32, 1), 4, 3.0)},
        (32, 3): {4: trained((32, 3), 4, 2.0), 16: trained((32, 3), 16, 2.5)},
        (64, 1): {4: trained((64, 1), 4, 2.9), 16: trained((64, 1), 16, 1.0)},
        (64, 3): {4: trained((64, 3), 4, 2.95)},
        (99, 1): {4: trained((99, 1), 4, 2.0), 16: trained((99, 1), 16, 2.1)},
        (256, 1): {4: trained((256, 1), 4, 2.0)},
    }
    assert find_better_depths(found) == ((32, 3), (64, 1), (99, 1), (256, 1))
    assert find_finalists(found) == ((32, 3), (64, 1), (99, 1))
    assert [best_of(found[size]).recipe.batch for size in find_finalists(found)] == [4, 16, 4]


def test_what_was_trained_is_read_and_not_trained_again(parts: Parts, tmp_path: Path) -> None:
    recipe = Recipe((16, 1), batch=32, rate=1e-2, seed=3, budget=0.3)
    first = train_or_read(TINY, parts, recipe, tmp_path)
    before = first.path.stat().st_mtime_ns
    again = train_or_read(TINY, parts, recipe, tmp_path)
    assert again == first and first.path.stat().st_mtime_ns == before
    assert judge(TINY, again.load(TINY), parts.validation) == first.validation < 80.0
    assert 0.0 < first.seconds < 1.0  # a step that begins within the budget is finished


@pytest.mark.parametrize(
    ("name", "spared"), [("text", ("place", "embed", "head")), ("images", ("l3",))]
)
def test_the_ends_keep_their_rank_and_four_bits(name: str, spared: tuple[str, ...]) -> None:
    task = TASKS[name]
    network = list_layers(task.make_model(task.sizes[1]))
    plans = plan(network, Way(3, sparsity=0.5, rank=0.25), task.ends(task.sizes[1]))
    assert {n for n, p in plans.items() if p.rank is None} == set(spared)
    for layer in network.layers:
        own = plans[layer.name]
        if layer.name in spared:
            assert (own.bits, own.sparsity) == (4, 0.0)
        else:
            assert (own.bits, own.sparsity) == (3, 0.5)
            assert own.rank == min(layer.shape[1:]) // 4
    assert all(p.changes_nothing for p in plan(network, FLOAT, task.ends(task.sizes[1])).values())


@pytest.mark.parametrize(("name", "shape"), [("text", (2, 64, 65)), ("images", (2, 10))])
def test_thin_layers_stand_in_for_dense_ones(name: str, shape: tuple[int, ...], data: Path) -> None:
    task = TASKS[name]
    x, _ = task.load(data).draw(2, torch.Generator().manual_seed(0))
    whole, thin = (task.make_model(task.sizes[1]) for _ in range(2))
    cut_modules(thin, 0.25, task.ends(task.sizes[1]))
    assert thin(x).shape == whole(x).shape == shape
    parameters = [sum(p.numel() for p in model.parameters()) for model in (thin, whole)]
    assert parameters[0] < 0.7 * parameters[1]


def test_a_network_compressed_in_all_ways(parts: Parts, tmp_path: Path) -> None:
    recipe = Recipe((24, 2), batch=32, rate=1e-2, seed=0, budget=0.3)
    trained = train_or_read(TINY, parts, recipe, tmp_path)
    found = {each.way: each for each in compress_or_read(TINY, parts, trained)}
    assert list(found) == list(WAYS)
    assert found[FLOAT].validation == trained.validation
    assert abs(found[INT8].test - found[FLOAT].test) < 1.0
    assert found[Way(2)].bytes < found[Way(4)].bytes < found[INT8].bytes < found[FLOAT].bytes
    assert found[FLOAT].bytes > 4 * (784 * 24 + 24 * 24 + 24 * 10)
    assert list(compress_or_read(TINY, parts, trained)) == list(found.values())


def made(*, float32: float, two_bits: float, bytes: int) -> list[Compressed]:
    """As it is, at 8 bits without any loss, and at 2 bits."""
    rows = [(FLOAT, bytes, float32), (INT8, bytes // 4, float32), (Way(2), bytes // 16, two_bits)]
    return [Compressed(way, size, quality, quality + 0.1) for way, size, quality in rows]


def test_the_claim_by_hand() -> None:
    small = [made(float32=2.0, two_bits=4.0, bytes=1600)] * 2
    large = [made(float32=q, two_bits=2.5, bytes=6400) for q in (1.0, 1.2)]
    float32, int8 = fight({(1, 1): small, (2, 1): large})
    assert (float32.bytes, float32.small.way, float32.large.way) == (1600, FLOAT, INT8)
    assert list(float32.large.test - float32.small.test) == pytest.approx([-1.0, -0.8])
    assert (int8.bytes, int8.small.way, int8.large.way) == (400, INT8, Way(2))
    assert list(int8.large.test - int8.small.test) == pytest.approx([0.5, 0.5])

    choices = list_choices({(1, 1): small, (2, 1): large})
    front = [(each.size, each.way, each.bytes) for each in find_front(choices)]
    assert front == [((1, 1), Way(2), 100), ((1, 1), INT8, 400), ((2, 1), INT8, 1600)]
    assert choose(choices, 99) is None


def test_the_small_side_may_take_a_smaller_network() -> None:
    """Trained for too short a time, the middle size is worse than the smallest."""
    sizes = {(1, 1): 2.0, (2, 1): 3.0, (3, 1): 2.5}
    found = {
        size: [made(float32=quality, two_bits=9.0, bytes=1600 * 4**place)]
        for place, (size, quality) in enumerate(sizes.items())
    }
    duels = {duel.bytes: duel for duel in fight(found) if duel.small.way == FLOAT}
    assert duels[6400].small.size == (1, 1) and duels[6400].large.size == (3, 1)


def test_the_study_prints_its_tables_and_draws_them(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))
    main = __import__("train_large_then_compress").main
    arguments = ["--data", str(data), "--out", str(tmp_path), "--small", "--tasks", "images"]
    main([*arguments, "--plot", str(tmp_path / "picture.png")])
    told = capsys.readouterr().out
    duels = re.findall(r"\| 32 × (\d), (float32|8 bits) \| [\d.]+ \| 128 × 1, ", told)
    assert [way for _, way in duels] == ["float32", "8 bits"] * 2
    assert "Best by bytes (% of images wrong): 32 ×" in told
    assert "The same after 4 times the budget:" in told
    assert told.count(" | rank 0.25 | ") == 2
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    main(arguments)  # from what was kept
    assert capsys.readouterr().out == told
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), "--tasks", "text"])
    assert f"{tmp_path} lacks tinyshakespeare.txt" in capsys.readouterr().err
    sys.modules.pop("train_large_then_compress")
