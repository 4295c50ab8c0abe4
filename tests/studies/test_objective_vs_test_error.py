"""The study that judges scores: its statistics by hand, its commands on a tiny zoo of MLPs."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fixtures.paths import DATA

import wwopt
from harness.score_statistics import (
    matched_pairs,
    paired_difference,
    permutation_threshold,
    regret,
    tau,
    tau_interval,
)
from harness.zoos.digits import DIGITS
from harness.zoos.records import Network, read_zoo
from harness.zoos.scores import fitted_models, reads_labels, reads_training, weights_only
from harness.zoos.tasks import TASKS
from objective_vs_test_error import main

TINY = DATA / "digits-mlp-96"  # make digits-mlp-96 --networks 14


def networks() -> list[Network]:
    return read_zoo(TINY)


class TestStatistics:
    truth = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    def test_tau_of_orders_that_are_known(self) -> None:
        assert tau(self.truth**2, self.truth) == pytest.approx(1.0)
        assert tau(-self.truth, self.truth) == pytest.approx(-1.0)
        swapped = np.array([2.0, 1.0, 3.0, 4.0, 5.0, 6.0])  # one pair of fifteen is wrong
        assert tau(swapped, self.truth) == pytest.approx(13 / 15)
        assert np.isnan(tau(np.ones(6), self.truth))

    def test_an_interval_holds_the_value_and_narrows_with_more_networks(self) -> None:
        rng = np.random.default_rng(0)
        widths = []
        for count in (30, 300):
            truth = rng.normal(size=count)
            found = tau_interval(truth + rng.normal(size=count), truth, resamples=100)
            assert found.low < found.value < found.high
            widths.append(found.high - found.low)
        assert widths[1] < widths[0] / 2

    def test_a_score_differs_from_itself_by_nothing(self) -> None:
        same = paired_difference(self.truth, self.truth, self.truth, resamples=20)
        assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)

    def test_regret_is_what_the_choice_loses(self) -> None:
        error = np.array([0.3, 0.1, 0.2])
        assert regret(error, error) == 0.0
        assert regret(np.array([1.0, 2.0, np.nan]), error) == pytest.approx(20.0)
        assert regret(np.array([1.0, 2.0, 3.0]), error, top=2) == pytest.approx(5.0)

    def test_matched_pairs_are_neighbours_in_training_loss(self) -> None:
        loss = np.array([1.0, 1.05, 2.0, 2.1, 9.0])
        test_loss = np.array([5.0, 6.0, 7.0, 6.5, 9.0])
        right = np.array([1.0, 2.0, 2.0, 1.0, 0.0])
        assert matched_pairs(right, loss, test_loss) == (1.0, 2)
        assert matched_pairs(-right, loss, test_loss) == (0.0, 2)

    def test_luck_grows_with_the_candidates_tried(self) -> None:
        rng = np.random.default_rng(0)
        truth = rng.normal(size=40)
        many = {str(i): rng.normal(size=40) for i in range(20)}
        one = permutation_threshold({"0": many["0"]}, truth, permutations=60)
        assert 0.1 < one < permutation_threshold(many, truth, permutations=60)


class TestRecords:
    def test_a_network_reads_back_as_spectra(self) -> None:
        network = networks()[0]
        spectra = network.spectra("1.0")
        assert [s.name for s in spectra] == ["l0", "l1"]
        assert [s.shape for s in spectra] == [(96, 64), (96, 96)]
        assert spectra[0].shuffled_tops.shape == (3, 8)
        energy = spectra[0].eigenvalues.sum() / (96 * 64)
        entries = spectra[0].element_variance + spectra[0].element_mean ** 2
        assert energy == pytest.approx(entries, rel=1e-3)
        assert network.movement("0") == (0.0, 0.0)
        assert min(network.movement("1.0")) > 0.01

    def test_a_folder_without_records_is_no_zoo(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="it is no zoo folder"):
            read_zoo(tmp_path)


class TestScores:
    def test_the_default_prefers_networks_that_learned_and_nothing_else_is_chosen(self) -> None:
        zoo = networks()
        accuracy = np.array([network.outcome("tea") for network in zoo])
        for checkpoint in ("0.5", "1.0"):
            values = np.array(
                [wwopt.SpectralObjective()(network.metrics(checkpoint)).value for network in zoo]
            )
            assert accuracy[values.argmin()] > 0.9  # seven of the fourteen have less than .7

    def test_every_score_has_one_value_a_network(self) -> None:
        zoo = networks()
        error = np.array([1.0 - network.outcome("tea") for network in zoo])
        scores = weights_only(zoo, "1.0") | reads_training(zoo, "1.0") | reads_labels(zoo, "1.0")
        scores |= fitted_models(zoo, "1.0", error)
        assert {"wwopt, weights only", "training loss", "validation on 100"} <= set(scores)
        assert all(score.shape == (len(zoo),) for score in scores.values())
        assert all(np.isfinite(score).all() for score in scores.values())


class TestCommands:
    @pytest.mark.slow
    def test_judge_writes_a_table_and_a_picture(self, tmp_path: Path) -> None:
        given = ["judge", str(TINY), "--out", str(tmp_path), "--jobs", "1"]
        result = CliRunner().invoke(main, given)
        assert result.exit_code == 0, result.output
        text = (tmp_path / "table.md").read_text()
        assert "| wwopt, weights only |" in text
        assert "| digits-mlp-96 | 14 | 0 |" in text
        assert (tmp_path / "table.png").stat().st_size > 10_000

    @pytest.mark.slow
    def test_make_resumes_and_repeats_itself(self, tmp_path: Path) -> None:
        for count in (1, 2):
            given = ["make", "digits-mlp-96", "--networks", str(count), "--out", str(tmp_path)]
            assert CliRunner().invoke(main, [*given, "--jobs", "1"]).exit_code == 0
        lines = (tmp_path / "digits-mlp-96" / "digits-mlp-96_0.jsonl").read_text().splitlines()
        made = [json.loads(line) for line in lines]
        before = (TINY / "digits-mlp-96_0.jsonl").read_text().splitlines()
        kept = [json.loads(line) for line in before]
        assert [record["k"] for record in made] == [0, 1]
        for new, old in zip(made, kept[:2], strict=True):
            assert new["cfg"] == old["cfg"]
            assert new["hist"]["1.0"]["trl"] == pytest.approx(old["hist"]["1.0"]["trl"], rel=0.02)

    def test_make_says_what_data_it_needs(self, tmp_path: Path) -> None:
        for given in ([], ["--data", str(tmp_path)]):
            result = CliRunner().invoke(main, ["make", "mnist-cnn", *given])
            assert result.exit_code == 2
            assert "t10k-images-idx3-ubyte.gz" in result.output


@pytest.mark.parametrize("index", [0, 3, 8, 9])
def test_one_percent_weight_noise_hardly_moves_the_default(index: int) -> None:
    """Less than 2 % of the score's spread over the zoo."""
    zoo = networks()
    score = wwopt.SpectralObjective()
    spread = np.ptp([score(network.metrics("1.0")).value for network in zoo])
    rng = np.random.default_rng(0)
    for _ in range(3):
        moved = []
        for spectrum in zoo[index].spectra("1.0"):
            N, M = spectrum.shape
            W = np.zeros((N, M))
            np.fill_diagonal(W, np.sqrt(spectrum.eigenvalues))  # any matrix with this spectrum
            left, _ = np.linalg.qr(rng.normal(size=(N, N)))
            right, _ = np.linalg.qr(rng.normal(size=(M, M)))
            scale = 0.01 * np.sqrt(spectrum.element_variance)
            noisy = left @ W @ right + scale * rng.normal(size=(N, M))
            values = np.linalg.svd(noisy, compute_uv=False)[::-1] ** 2
            changed = {**vars(spectrum), "eigenvalues": values}
            moved.append(wwopt.LayerSpectrum(**changed))
        after = score(wwopt.metrics_from_spectra(moved)).value
        before = score(zoo[index].metrics("1.0")).value
        assert abs(after - before) < 0.02 * spread


def test_no_two_tasks_of_the_studies_share_a_name() -> None:
    """Two tasks of one name would write their networks over each other's."""
    assert not set(TASKS) & set(DIGITS)
