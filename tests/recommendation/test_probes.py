"""Probes: what is planned, in which order, and which learning rates follow."""

import json
import math
from dataclasses import replace

import pytest
from fixtures.noted_studies import CONDITIONS, HP, make_space, make_spec

from wwopt.plain_data import make_plain
from wwopt.recommendation.probe_training import run_probe
from wwopt.recommendation.probes import (
    FRACTIONS,
    LR_FACTORS,
    LR_STEP,
    MAX_LR_STEPS,
    SEEDS,
    Kind,
    Probe,
    ProbeResult,
    extend_probes,
    find_kinds,
    plan_probes,
)


def test_the_plan_holds_every_step_at_every_rate_and_seed() -> None:
    planned = plan_probes(("data", "width", "epochs"))
    steps = len(FRACTIONS) + 2
    assert len(planned) == len(set(planned)) == steps * len(LR_FACTORS) * SEEDS
    costs = [probe.cost for probe in planned]
    assert costs == sorted(costs)
    once = sum(FRACTIONS) + 4.0 + 2.0  # twice the width has four times the weights
    assert sum(costs) == pytest.approx(once * len(LR_FACTORS) * SEEDS)
    for kind, factor in (("data", 1.0), ("width", 2.0), ("epochs", 2.0)):
        group = [p for p in planned if (p.kind, p.factor) == (kind, factor)]
        assert {p.lr_factor for p in group} == set(LR_FACTORS) and 1.0 in LR_FACTORS
        assert {p.replicate for p in group} == set(range(SEEDS))


def test_the_best_configuration_is_trained_again_whatever_is_asked() -> None:
    assert {(p.kind, p.factor) for p in plan_probes(())} == {("data", 1.0)}
    assert {(p.kind, p.factor) for p in plan_probes(("epochs",))} == {("data", 1), ("epochs", 2)}
    few = plan_probes(("data",), fractions=(0.5, 1.0), lr_factors=(1.0,), seeds=1)
    assert few == (Probe("data", 0.5), Probe("data", 1.0))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind of probe 'size'; known: data, width, depth"):
        plan_probes(["size"])  # type: ignore[list-item]


def test_names_tell_probes_apart() -> None:
    planned = plan_probes(("data", "width", "depth", "epochs"), lr_factors=(1 / 9, *LR_FACTORS, 9))
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

    losses = {Probe(*group, rate, r): 0.0 for rate in LR_FACTORS for r in range(2)}
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
    losses = {Probe("data", 0.5, rate, r): rate for rate in LR_FACTORS for r in range(3)}
    losses |= {Probe("epochs", 2.0, rate, 0): abs(math.log(rate)) for rate in LR_FACTORS}
    further = extend_probes(losses)
    assert {p.replicate for p in further} == {0, 1, 2}
    assert {(p.kind, p.factor) for p in further} == {("data", 0.5)}
    assert {p.lr_factor for p in further} == {LR_STEP**-2}


def test_where_all_failed_or_rates_are_missing_nothing_is_added() -> None:
    failed = {Probe("data", 0.5, rate): math.inf for rate in LR_FACTORS}
    assert extend_probes(failed) == ()
    assert extend_probes({Probe("data", 0.5, 1.0): 0.3}) == ()
    assert extend_probes({}) == ()
    # The low edge is the best of what did not diverge.
    diverged = {Probe("data", 0.5, rate): math.inf if rate > 0.5 else 0.2 for rate in LR_FACTORS}
    assert [p.lr_factor for p in extend_probes(diverged)] == [LR_STEP**-2]
