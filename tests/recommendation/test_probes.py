"""Probes: what is planned, in which order, and which learning rates follow."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from fixtures.studies.noted_studies import CONDITIONS, HP, make_space, make_spec

from wwopt.plain_data import make_plain
from wwopt.recommendation.probe_training import run_probe
from wwopt.recommendation.probes import (
    LR_STEP,
    MAX_LR_STEPS,
    PARTS,
    RATED,
    TRAININGS,
    Kind,
    Probe,
    ProbeResult,
    extend_probes,
    find_kinds,
    find_size,
    need_probes,
    plan_probes,
)

RATES = (1 / LR_STEP, 1.0, LR_STEP)


def price(probes: Iterable[Probe]) -> float:
    return math.fsum(probe.cost for probe in probes)


def test_what_is_needed_costs_three_trainings_and_comes_first() -> None:
    needed = need_probes(("data", "width", "epochs"))
    points = {(p.kind, p.factor) for p in needed}
    parts = {("data", part) for part in (*PARTS, 1.0)}
    assert points == parts | {("width", 0.25), ("width", 0.5), ("epochs", 0.5)}
    assert price(needed) == pytest.approx(0.875 + 1.0 + 0.75 + 0.5)
    planned = plan_probes(("data", "width", "epochs"))
    assert planned[: len(needed)] == needed and len(set(planned)) == len(planned)
    assert price(planned) == pytest.approx(TRAININGS)


@pytest.mark.parametrize("trainings", [0.3, 1.0, 3.2, 5.0, 12.0, 47.0])
def test_a_plan_is_within_its_price_and_part_of_every_dearer_one(trainings: float) -> None:
    planned = plan_probes(("data", "width", "epochs"), trainings=trainings)
    assert price(planned) <= trainings + 1e-9
    assert trainings - price(planned) < 1.0  # there is always one more to run for less than that
    if trainings > price(need_probes(("data", "width", "epochs"))):
        dearer = plan_probes(("data", "width", "epochs"), trainings=2.0 * trainings)
        assert set(planned) <= set(dearer)


def test_few_trials_need_other_rates_and_one_epoch_cannot_be_halved() -> None:
    few = set(need_probes(("data", "epochs"), trials=1)) - set(need_probes(("data", "epochs")))
    assert few == {Probe("data", RATED, LR_STEP)}
    once = need_probes(("data", "epochs"), epochs=1)
    assert Probe("epochs", 2.0) in once and Probe("epochs", 0.5) not in once


def test_size_is_the_width_where_it_can_change_else_the_depth() -> None:
    assert find_size(("data", "depth", "width")) == "width"
    assert find_size(("data", "depth")) == "depth" and find_size(("data", "epochs")) is None
    assert {p.kind for p in plan_probes(("data", "epochs", "depth"), trainings=20)} == {
        "data", "epochs", "depth",
    }  # fmt: skip


def test_the_best_configuration_is_trained_again_whatever_is_asked() -> None:
    assert plan_probes((), trainings=1.0) == (Probe("data", 1.0),)


def test_twice_the_width_costs_four_trainings_and_half_of_it_a_half() -> None:
    costs = [Probe("width", factor).cost for factor in (0.25, 0.5, 1.0, 2.0)]
    assert costs == [0.25, 0.5, 1.0, 4.0]
    assert Probe("depth", 2.0).cost == Probe("epochs", 2.0).cost == 2.0


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind of probe 'size'; known: data, width, depth"):
        plan_probes(["size"])  # type: ignore[list-item]


def test_names_tell_probes_apart() -> None:
    planned = plan_probes(("data", "width", "epochs"), trainings=100.0)
    assert len({probe.name for probe in planned}) == len(planned)
    assert Probe("data", 0.125, 1 / 3, 1).name == "data ×0.125, lr ×0.333, seed 1"


def test_what_a_study_can_change_is_seen_from_its_space() -> None:
    assert find_kinds(make_spec([])) == ("data", "epochs", "width", "depth")
    fixed = make_space(CONDITIONS)
    assert find_kinds(make_spec([], space=fixed)) == ("data", "epochs")
    assert find_kinds(make_spec([], space=lambda conditions: fixed)) == ("data", "epochs")
    wide = make_spec([], space=lambda conditions: make_space(replace(conditions, depth=1.0)))
    assert find_kinds(wide) == ("data", "epochs", "width")


def test_a_result_survives_json() -> None:
    result = run_probe(make_spec([]), HP, Probe("data", 0.25, 3.0, 1))
    plain = json.loads(json.dumps(make_plain(result.to_dict())))
    again = ProbeResult.from_dict(plain)
    assert again.probe == result.probe and again.metrics == result.metrics
    assert again.score == result.score
    assert again.course == result.course and len(again.course["train_loss"]) > 1
    del plain["course"]  # as versions before 0.3 wrote it
    assert ProbeResult.from_dict(plain).course == {}


@pytest.mark.parametrize(
    ("status", "raised"), [("raised ValueError: x", True), ("training loss is nan", False)]
)
def test_what_version_0_1_0_wrote_tells_an_error_from_a_divergence(
    status: str, raised: bool
) -> None:
    old = make_plain(ProbeResult(Probe("data", 1.0), status).to_dict())
    del old["raised"]
    assert ProbeResult.from_dict(old).raised == raised
    assert ProbeResult.from_dict(old | {"raised": not raised}).raised != raised


def follow(optimum: float, *, group: tuple[Kind, float] = ("data", 0.5)) -> dict[Probe, float]:
    """Run the extension on losses that are lowest at a rate of LR_STEP**optimum, till it stops."""

    def loss(probe: Probe) -> float:
        return abs(math.log(probe.lr_factor, LR_STEP) - optimum) + 0.01 * probe.replicate

    losses = {Probe(*group, rate, r): 0.0 for rate in RATES for r in range(2)}
    losses = {probe: loss(probe) for probe in losses}
    for _ in range(20):
        further = extend_probes(losses)
        if not further:
            return losses
        assert not set(further) & set(losses)
        losses |= {probe: loss(probe) for probe in further}
    raise AssertionError("extending never stopped")


@pytest.mark.parametrize("optimum", [-9, -3, -2, -1, 0, 1, 2, 3, 9])
def test_rates_go_on_until_the_best_is_inside_or_the_limit_is_reached(optimum: int) -> None:
    steps = {round(math.log(p.lr_factor, LR_STEP)) for p in follow(optimum)}
    reach = min(abs(optimum) + 1, MAX_LR_STEPS) * (1 if optimum > 0 else -1)
    wanted = {-1, 0, 1} | set(range(min(reach, 0), max(reach, 0) + 1))
    assert steps == wanted


def test_every_seed_is_taken_along_and_other_groups_are_left_alone() -> None:
    losses = {Probe("data", 0.5, rate, r): rate for rate in RATES for r in range(3)}
    losses |= {Probe("epochs", 2.0, rate, 0): abs(math.log(rate)) for rate in RATES}
    further = extend_probes(losses)
    assert {p.replicate for p in further} == {0, 1, 2}
    assert {(p.kind, p.factor) for p in further} == {("data", 0.5)}
    assert {p.lr_factor for p in further} == {LR_STEP**-2}


def test_a_rate_that_is_best_on_a_part_of_the_data_is_tried_on_all_of_them() -> None:
    losses = {Probe("data", RATED, LR_STEP**n): abs(n - 1.0) for n in range(3)}
    assert extend_probes(losses) == (Probe("data", 1.0, LR_STEP),)
    losses[Probe("data", 1.0, LR_STEP)] = losses[Probe("data", 1.0)] = 0.1
    assert Probe("data", 1.0, LR_STEP) not in extend_probes(losses)


def test_where_all_failed_or_rates_are_missing_nothing_is_added() -> None:
    failed = {Probe("data", 0.5, rate): math.inf for rate in RATES}
    assert extend_probes(failed) == ()
    assert extend_probes({Probe("data", 0.5, 1.0): 0.3}) == ()
    alone = {Probe("data", 0.5, 1.0): 0.3, Probe("data", 0.5, 3.0): 0.4}
    assert extend_probes(alone) == (Probe("data", 0.5, 1 / 3),)
    assert extend_probes({}) == ()
    # The low edge is the best of what did not diverge.
    diverged = {Probe("data", 0.5, rate): math.inf if rate > 0.5 else 0.2 for rate in RATES}
    assert [p.lr_factor for p in extend_probes(diverged)] == [LR_STEP**-2]
