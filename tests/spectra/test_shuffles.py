"""Cheap shuffles against uniform ones and Tracy-Widom's law."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

import wwopt.spectra.shuffles
from wwopt.spectra.lanczos import top_eigenvalues
from wwopt.spectra.marchenko_pastur import trap_z
from wwopt.spectra.shuffles import iterate_shuffles

Array = NDArray[np.float64]
N, M = 180, 140  # beyond the side up to which LAPACK is asked


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small layers be shuffled as those of millions of entries are."""
    monkeypatch.setattr(wwopt.spectra.shuffles, "UNIFORM_SIZE", 1000)
    monkeypatch.setattr(wwopt.spectra.shuffles, "_TILE", 500)


def uniform(entries: torch.Tensor, *, seed: int, count: int) -> list[torch.Tensor]:
    """What the cheap shuffles are compared with."""
    rng = np.random.default_rng(seed)
    return [
        torch.from_numpy(rng.permutation(entries.numpy().ravel()).reshape(entries.shape))
        for _ in range(count)
    ]


def shuffled(entries: torch.Tensor, *, seed: int, count: int) -> list[torch.Tensor]:
    return [new.clone() for new in iterate_shuffles(entries, seed=seed, count=count)]


def scores(weights: Array, shuffle: Callable[..., list[torch.Tensor]], count: int) -> Array:
    """Tracy-Widom scores of `count` shuffles, a fresh seed for every two."""
    entries = torch.from_numpy((weights - weights.mean()) / weights.std(ddof=1)).float()
    found = []
    for seed in range(count // 2):
        for new in shuffle(entries, seed=seed, count=2):
            gram = (new.T @ new).numpy()
            found.append(trap_z(float(top_eigenvalues(gram, 1, tolerance=0.1)[0]), N, M, 1.0))
    return np.array(found)


def gaussian(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


STRUCTURES: dict[str, Array] = {
    "noise": gaussian(N, M),
    "rank four": gaussian(N, 4) @ gaussian(4, M, seed=1) + 0.3 * gaussian(N, M, seed=2),
    "one rank": np.outer(gaussian(N), gaussian(M, seed=1)),
    "equal rows": np.outer(gaussian(N), np.ones(M)),
    "equal columns": np.outer(np.ones(N), gaussian(M)),
    "large rows": gaussian(N, M) * np.where(np.arange(N) < N // 10, 4.0, 1.0)[:, None],
    "large columns": gaussian(N, M) * np.where(np.arange(M) < M // 10, 4.0, 1.0),
    "blocks": (-1.0) ** np.add.outer(np.arange(N) // (N // 2), np.arange(M) // (M // 2)),
    "a wave": np.sin(np.add.outer(0.02 * np.arange(N), 0.05 * np.arange(M))),
    "a period": np.tile(gaussian(1, 500), 51)[:, : N * M].reshape(N, M),
    "a trap": gaussian(N, M) + 40.0 * (np.arange(N * M).reshape(N, M) == 1234),
}  # fmt: skip


class TestPermutations:
    @pytest.mark.parametrize(
        "shape", [(30, 20), (3, 17, 11), (1, 1), (1001, 1), (37, 41), (9, 64, 31)]
    )
    def test_keep_every_entry(self, tiled: None, shape: tuple[int, ...]) -> None:
        entries = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
        for new in shuffled(entries, seed=1, count=3):
            assert new.shape == shape
            assert torch.equal(new.flatten().sort().values, entries.flatten())

    def test_of_millions_keep_every_entry_and_move_nearly_all(self) -> None:
        entries = torch.arange(1_300_001, dtype=torch.float32)
        for new in shuffled(entries, seed=0, count=2):
            assert torch.equal(new.sort().values, entries)
            assert int((new == entries).sum()) < 20

    def test_send_every_entry_everywhere(self, tiled: None) -> None:
        # Where four entries end, over 400 seeds: uniform, also between tiles and for the last.
        entries = torch.arange(1_777, dtype=torch.float32)
        ends: dict[int, list[int]] = {0: [], 499: [], 900: [], 1_776: []}
        for seed in range(400):
            (new,) = shuffled(entries, seed=seed, count=1)
            for entry, places in ends.items():
                places.append(int((new == entry).nonzero()))
        for places in ends.values():
            assert stats.kstest(np.array(places) / 1_777, "uniform").pvalue > 0.001

    @pytest.mark.parametrize("size", [600, 5_000])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_are_of_standardised_entries_and_leave_them_alone(
        self, tiled: None, size: int, dtype: torch.dtype
    ) -> None:
        entries = 3.0 + 2.0 * torch.randn(size, generator=torch.Generator().manual_seed(0))
        entries = entries.to(dtype)
        before = entries.clone()
        first, second = (
            new.clone() for new in iterate_shuffles(entries, mean=3.0, scale=2.0, seed=0, count=2)
        )
        expected = ((before.double() - 3.0) / 2.0).sort().values.numpy()
        assert first.dtype == torch.float32
        assert first.sort().values.numpy() == pytest.approx(expected, abs=1e-6)
        assert torch.equal(first.sort().values, second.sort().values)
        assert not torch.equal(first, second)
        assert torch.equal(entries, before)

    @pytest.mark.parametrize("size", [600, 5_000])
    def test_of_constant_entries_are_zero(self, tiled: None, size: int) -> None:
        (new,) = iterate_shuffles(torch.full((size,), 0.1), mean=0.2, scale=0.0, seed=0, count=1)
        assert not new.any()

    @pytest.mark.parametrize("size", [600, 5_000])
    def test_depend_on_seed_index_and_size_alone(self, tiled: None, size: int) -> None:
        entries = torch.arange(size, dtype=torch.float32)
        expected = shuffled(entries, seed=5, count=3)
        wwopt.spectra.shuffles._uniform_permutation.cache_clear()
        wwopt.spectra.shuffles._tile_permutation.cache_clear()
        shuffled(torch.arange(4_999.0), seed=5, count=1)
        torch.manual_seed(123)
        again = shuffled(entries.reshape(20, -1), seed=5, count=2)
        assert torch.equal(again[0].flatten(), expected[0])
        assert torch.equal(again[1].flatten(), expected[1])
        assert not torch.equal(shuffled(entries, seed=6, count=1)[0], expected[0])


class TestNull:
    def test_of_gaussian_entries_is_the_tracy_widom_law(self, tiled: None) -> None:
        # Quantiles of the law (β = 1): median -1.27, 95 % .98, 99 % 2.02.
        rng = np.random.default_rng(0)
        found = np.concatenate(
            [scores(rng.normal(size=(N, M)), shuffled, count=2) for _ in range(250)]
        )
        assert np.mean(found < -1.2687) == pytest.approx(0.5, abs=0.06)
        assert np.mean(found > 0.9793) == pytest.approx(0.05, abs=0.025)
        assert np.mean(found > 2.0234) == pytest.approx(0.01, abs=0.01)

    def test_of_one_shuffle_says_nothing_about_the_next(self, tiled: None) -> None:
        found = scores(STRUCTURES["noise"], shuffled, count=400)
        assert abs(np.corrcoef(found[::2], found[1::2])[0, 1]) < 0.2

    @pytest.mark.parametrize("structure", STRUCTURES)
    def test_is_that_of_a_uniform_shuffle(self, tiled: None, structure: str) -> None:
        weights = STRUCTURES[structure]
        cheap, full = scores(weights, shuffled, count=300), scores(weights, uniform, count=300)
        assert stats.ks_2samp(cheap, full).pvalue > 0.001  # once in 90 draws of these 11 tests
        assert np.std(cheap) == pytest.approx(np.std(full), rel=0.3)
