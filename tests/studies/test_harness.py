"""What all studies stand on: bootstraps against a loop by hand, tables, data, loops."""

import gzip
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from calibrate_gate import wilson
from harness.data import MNIST, cut_windows, load_digits, load_mnist, load_text, shuffle_and_cut
from harness.markdown_tables import format_markdown
from harness.score_statistics import (
    bootstrap_interval,
    mean_interval,
    pooled_difference,
    resample,
    tau,
    tau_interval,
)


class TestBootstraps:
    rng = np.random.default_rng(0)
    score, truth = rng.normal(size=(2, 20))

    def test_a_mean_is_that_of_a_loop_by_hand(self) -> None:
        draws = np.random.default_rng(3).integers(0, 20, (500, 20))
        by_hand = [np.mean(self.score[rows]) for rows in draws]
        found = mean_interval(self.score, resamples=500, seed=3)
        expected = np.quantile(by_hand, [0.025, 0.975])
        assert [found.low, found.high] == pytest.approx(expected, abs=1e-12)

    def test_networks_keep_their_score_and_their_truth_together(self) -> None:
        draws = np.random.default_rng(3).integers(0, 20, (100, 20))
        by_hand = [tau(self.score[rows], self.truth[rows]) for rows in draws]
        found = tau_interval(self.score, self.truth, resamples=100, seed=3)
        assert [found.low, found.high] == pytest.approx(np.quantile(by_hand, [0.025, 0.975]))
        assert tau_interval(self.truth, self.truth, resamples=20).low == pytest.approx(1.0)

    def test_resamples_without_a_value_are_left_out(self) -> None:
        values = np.array([0.0, 1.0])  # half of the resamples hold one value only

        def spread(drawn: np.ndarray) -> float:
            return float(np.ptp(drawn)) or math.nan

        found = bootstrap_interval((values,), spread, resamples=50, seed=0)
        assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)

    def test_of_one_observation_nothing_can_be_drawn(self) -> None:
        found = mean_interval(np.array([2.0]))
        assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)

    def test_several_numbers_are_drawn_together(self) -> None:
        found = resample(
            (np.arange(5), np.arange(9)),
            lambda a, b: np.array([[a.size, b.size], [a.max(), b.max()]], dtype=float),
            resamples=30,
            seed=0,
        )
        assert found.shape == (2, 2, 30)
        assert (found[0, 0] == 5).all() and (found[0, 1] == 9).all()
        assert (found[1, 0] <= 4).all() and found[1, 1].max() == 8

    def test_a_zoo_of_one_network_adds_nothing(self) -> None:
        zoo = (self.score, -self.truth, self.truth)
        one = tuple(np.array([1.0]) for _ in range(3))
        alone = pooled_difference([zoo], resamples=50)
        assert pooled_difference([zoo, one], resamples=50) == alone  # type: ignore[list-item]
        assert alone.low < alone.value < alone.high


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263, and 0 of 20.
    assert wilson(81, 263) == "81/263 (26–37 %)"  # .2553 to .3662
    assert wilson(0, 20) == "0/20 (0–16 %)"  # .0000 to .1611
    assert wilson(0, 0) == "–"


class TestTables:
    frame = pd.DataFrame({"a": [1 / 3, math.nan], "b": ["0.024", "1.5 [1, 2]"], "c": [3, 4]})

    def test_numbers_have_two_decimals_and_texts_stay_as_they_are(self) -> None:
        head, rule, *rows = format_markdown(self.frame, index=False).splitlines()
        assert head == "| a | b | c |" and set(rule) == {"|", "-"}
        assert rows == ["| 0.33 | 0.024 | 3 |", "| nan | 1.5 [1, 2] | 4 |"]

    def test_the_index_is_the_first_column(self) -> None:
        lines = format_markdown(self.frame.set_axis(["x", "y"]).rename_axis("which")).splitlines()
        assert lines[0] == "| which | a | b | c |" and lines[2].startswith("| x | 0.33 |")

    def test_columns_may_share_a_name(self) -> None:
        frame = pd.DataFrame([["x", "", "y"]], columns=["", "less", "less"])
        head, _, row = format_markdown(frame, index=False).splitlines()
        assert head == "|  | less | less |" and row == "| x |  | y |"


class TestData:
    def test_parts_share_no_example_and_are_always_the_same(self) -> None:
        x, y = load_digits()
        assert x.shape == (1797, 64) and x.min() == 0.0 and x.max() == 1.0
        parts = shuffle_and_cut((x, y), (1000, 200, 5000))
        assert [len(targets) for _, targets in parts] == [1000, 200, 597]
        whole = torch.cat([inputs for inputs, _ in parts])
        assert torch.equal(whole.sum(0), x.sum(0))
        for (a, b), (c, d) in zip(parts, shuffle_and_cut((x, y), (1000, 200, 597)), strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)

    def test_the_characters_after_a_window_are_its_own_one_further(self) -> None:
        x, y = cut_windows(torch.arange(100), 10, 30, stride=7, context=8)
        assert x[:, 0].tolist() == [10, 17, 24, 31] and x.shape == (4, 8)
        assert torch.equal(y, x + 1)

    def test_files_may_have_something_before_their_names(self, tmp_path: Path) -> None:
        for name, header in zip(MNIST, (16, 8), strict=True):
            size = 784 if header == 16 else 1
            data = bytes(header) + bytes([255] * size)
            (tmp_path / f"mnist-{name}").write_bytes(gzip.compress(data))
        x, y = load_mnist(tmp_path, normalised=False)
        assert x.shape == (1, 784) and (x == 1.0).all() and y.tolist() == [255]
        assert load_mnist(tmp_path)[0][0, 0].item() == pytest.approx((1.0 - 0.1307) / 0.3081)
        with pytest.raises(FileNotFoundError, match=r"lacks tinyshakespeare\.txt"):
            load_text(tmp_path)
        with pytest.raises(FileNotFoundError, match="pass its folder with --data FOLDER"):
            load_text(None)
