"""Memorisation told by the fall of a training loss: closed forms, invariances, real trainings."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from wwopt.metrics.guards import CAP, UNKNOWN, Guards, check_guards
from wwopt.metrics.memorisation import octave_ratio


def curve(*losses: float) -> dict[int, float]:
    return dict(enumerate(losses, start=1))


def power_law(steps: int, exponent: float, floor: float = 0.0) -> dict[int, float]:
    return {step: floor + step**-exponent for step in range(1, steps + 1)}


class TestClosedForms:
    def test_octaves_are_halves_of_the_steps(self) -> None:
        # Losses at 1, 2, 4 and 8: falls of 1, .25 and .5.
        losses = curve(3.0, 2.0, 9.0, 1.75, 9.0, 9.0, 9.0, 1.25)
        assert octave_ratio(losses) == pytest.approx(0.5 / 0.25)

    @pytest.mark.parametrize("exponent", [0.1, 0.5, 1.0, 2.0])
    def test_a_power_law_falls_by_a_constant_share_of_the_octave_before(
        self, exponent: float
    ) -> None:
        # At 8 steps every octave's mean is one step, and the falls are geometric.
        assert octave_ratio(power_law(8, exponent)) == pytest.approx(2.0**-exponent)

    def test_memorising_at_a_constant_pace_doubles_each_octave(self) -> None:
        losses = {step: (2.0 if step == 1 else 1.1) - 0.05 * step for step in range(1, 17)}
        # Points 1, 2, 4, 8, 16 (the last a mean over 15 and 16): falls .95, .1, .2, .375.
        assert octave_ratio(losses) == pytest.approx(0.375 / 0.1)

    def test_a_fall_that_never_slowed_is_no_sign(self) -> None:
        assert octave_ratio(curve(3.0, 2.9, 2.8, 2.7, 2.5, 2.3, 2.1, 1.5)) == 0.0

    def test_an_octave_that_stood_still_is_no_scale(self) -> None:
        # Of a fall of 1.0 in all a fiftieth is the least that another is measured by.
        losses = curve(2.0, 1.01, 1.01, 1.01, 1.0, 1.0, 1.0, 1.0)
        assert octave_ratio(losses) == pytest.approx(0.01 / 0.02)

    @pytest.mark.parametrize(
        "losses",
        [
            {},
            curve(3.0, 2.0, 1.0, 0.9, 0.8, 0.7, 0.6),  # seven steps
            {8: 1.0},
            {0: 2.3, 4: 1.2, 8: 1.0},  # step 0 is before training
            curve(3.0, 2.0, math.nan, 1.0, 1.0, 1.0, 1.0, 1.0),
            curve(3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, math.inf),
        ],
    )
    def test_what_is_not_shown_is_unknown(self, losses: dict[int, float]) -> None:
        assert math.isnan(octave_ratio(losses))
        assert check_guards(None, losses=losses)["memorising"] == UNKNOWN

    def test_a_loss_that_rose_at_the_end_does_not_memorise(self) -> None:
        assert octave_ratio(curve(3.0, 2.0, 1.8, 1.6, 1.6, 1.6, 1.6, 1.7)) < 0.0
        rose = check_guards(None, losses=curve(3.0, 2.0, 1.8, 1.6, 1.6, 1.6, 1.6, 1.7))
        assert rose["memorising"] == -CAP


@given(
    losses=st.lists(st.integers(1, 500), min_size=8, max_size=40),  # hundredths
    shift=st.floats(-3.0, 3.0),
    scale=st.floats(0.5, 2.0),
)
def test_neither_the_unit_nor_the_floor_of_the_loss_matters(
    losses: list[float], shift: float, scale: float
) -> None:
    plain = octave_ratio(curve(*(loss / 100 for loss in losses)))
    moved = octave_ratio(curve(*(scale * loss / 100 + shift for loss in losses)))
    assert moved == pytest.approx(plain, rel=1e-4, abs=1e-4)


def test_the_limit_is_the_studys() -> None:
    losses = curve(3.0, 2.0, 9.0, 1.75, 9.0, 9.0, 9.0, 1.25)  # ratio 2
    assert check_guards(None, losses=losses)["memorising"] == pytest.approx(math.log(2.0))
    assert check_guards(None, losses=losses, guards=Guards(memorising=2.0))["memorising"] == 0.0
    off = Guards(memorising=math.inf)
    assert check_guards(None, losses=losses, guards=off)["memorising"] == -CAP


def test_labels_memorised_long_ago_still_show() -> None:
    # Falls of 1, .1, .8 and then of nothing: memorised by step 8.
    assert octave_ratio({1: 2.0, 2: 1.0, 4: 0.9, 8: 0.1, 16: 0.1}) == pytest.approx(8.0)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_training_on_wrong_labels_shows_it_and_one_on_right_ones_does_not(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4, (600,), generator=generator)
    centres = 3.0 * torch.randn(4, 30, generator=generator)
    x = centres[y] + torch.randn(600, 30, generator=generator)
    wrong = torch.rand(600, generator=generator) < share
    y = torch.where(wrong, torch.randint(0, 4, (600,), generator=generator), y)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(30, 200), torch.nn.ReLU(), torch.nn.Linear(200, 4))
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    losses = {}
    for epoch in range(1, 33):
        seen = []
        for batch in torch.randperm(600).split(32):
            loss = cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        losses[epoch] = sum(seen) / len(seen)
    assert (octave_ratio(losses) > 1.0) == (share > 0.0)
