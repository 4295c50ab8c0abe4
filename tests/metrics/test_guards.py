"""Guards: the formulas by hand, what they must never do, and trained networks that they refuse."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures.paths import ROOT
from hypothesis import given
from hypothesis import strategies as st

from wwopt.metrics.guards import CAP, MEMORISING, SPECTRAL, UNKNOWN, Guards, check_guards, violation
from wwopt.metrics.model_metrics import (
    COLLAPSED,
    NOT_FINITE,
    OK,
    TOO_FEW,
    ZERO,
    LayerMetrics,
    ModelMetrics,
)

if TYPE_CHECKING:
    from fixtures.recorded.zoo import ZooMetricsOf


def network(*layers: dict[str, Any]) -> ModelMetrics:
    """Layers named a, b, …, each at every limit of `Guards` unless told otherwise."""
    at_limit = {"spectral_norm": 2000.0, "stable_rank": 1.8, "mean_spike": 100.0, "trap_z": 10.0}
    return ModelMetrics(
        tuple(
            LayerMetrics(name=name, N=80, M=60, num_evals=60, **{**at_limit, **changes})
            for name, changes in zip("abcdef", layers, strict=False)
        )
    )


START = network({"spectral_norm": 1.0, "stable_rank": 20.0, "mean_spike": 0.0, "trap_z": -1.0})


class TestTheNetworks:
    """Two guards judge a quarter of the layers, traps half of them, and λmax one."""

    @pytest.mark.parametrize(
        ("guard", "changes", "layers", "least"),
        [
            (guard, changes, layers, least)
            for guard, changes, needed in (
                ("stable_rank", {"stable_rank": 1.2}, {1: 1, 4: 1, 5: 2}),
                ("stable_rank", {"stable_rank": 1.2, "status": COLLAPSED}, {4: 1, 5: 2}),
                ("mean_spike", {"mean_spike": 900.0}, {1: 1, 4: 1, 5: 2}),
                ("traps", {"trap_z": 300.0}, {1: 1, 2: 1, 3: 2, 6: 3}),
            )
            for layers, least in needed.items()
        ],
    )
    def test_a_few_layers_of_many_refuse_nothing(
        self, guard: str, changes: dict[str, Any], layers: int, least: int
    ) -> None:
        for beyond in range(layers + 1):
            found = check_guards(network(*[changes] * beyond, *[{}] * (layers - beyond)))
            assert (found[guard] > 0.0) == (beyond >= least)

    def test_one_layer_that_blows_up_or_dies_is_enough(self) -> None:
        start = ModelMetrics(tuple(dataclasses.replace(START.layers[0], name=n) for n in "abcde"))
        grown = network({"spectral_norm": 2000.0 * math.e}, *[{}] * 4)
        assert check_guards(grown, initial=start)["lambda_max"] == pytest.approx(1.0)
        for status in (ZERO, NOT_FINITE):
            assert check_guards(network({"status": status}, *[{}] * 4))["stable_rank"] == CAP


class TestFormulas:
    def test_at_the_limits_every_guard_is_zero_and_feasible(self) -> None:
        found = check_guards(network({}), initial=START, train_loss=0.95, first_train_loss=1.0)
        assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-12)
        assert list(found) == ["train_loss", MEMORISING, *SPECTRAL]

    @pytest.mark.parametrize(
        ("guard", "changes", "value"),
        [
            ("lambda_max", {"spectral_norm": 2000.0 * math.e}, 1.0),
            ("lambda_max", {"spectral_norm": 1.0}, -math.log(2000.0)),
            ("stable_rank", {"stable_rank": 1.8 / math.e}, 1.0),
            ("stable_rank", {"stable_rank": 18.0}, -math.log(10.0)),
            ("mean_spike", {"mean_spike": 201.0}, math.log(2.0)),
            ("mean_spike", {"mean_spike": 0.0}, -math.log(101.0)),
            ("traps", {"trap_z": 21.0}, math.log(2.0)),
            ("traps", {"trap_z": -3.0}, -math.log(11.0)),
        ],
    )
    def test_distance_from_a_limit_is_in_e_folds(
        self, guard: str, changes: dict[str, float], value: float
    ) -> None:
        assert check_guards(network(changes), initial=START)[guard] == pytest.approx(value)

    @pytest.mark.parametrize(
        ("last", "first", "value"),
        [
            (0.5, 1.0, -0.45),
            (1.0, 1.0, 0.05),
            (3.0, 1.0, 2.05),
            (1e9, 1.0, CAP),
            (-3.0, -1.0, -1.95),  # a log-likelihood that rose
            (-1.0, -3.0, 2 / 3 + 0.05),
            (math.nan, 1.0, CAP),
            (math.inf, None, CAP),
            (1.0, None, UNKNOWN),
            (None, None, UNKNOWN),
        ],
    )
    def test_the_loss_must_have_fallen(
        self, last: float | None, first: float | None, value: float
    ) -> None:
        found = check_guards(None, train_loss=last, first_train_loss=first)
        assert found["train_loss"] == pytest.approx(value)

    def test_a_fall_of_the_stable_rank_counts_from_its_start(self) -> None:
        start = network({"stable_rank": 90.0})
        found = check_guards(network({"stable_rank": 2.0}), initial=start)
        assert found["stable_rank"] == pytest.approx(math.log(90.0 / 30.0 / 2.0))  # below 3

    def test_the_worst_layer_speaks(self) -> None:
        found = check_guards(network({}, {"mean_spike": 302.0}, {"mean_spike": 0.0}))
        assert found["mean_spike"] == pytest.approx(math.log(3.0))

    def test_layers_that_do_not_count_are_not_asked(self) -> None:
        found = check_guards(network({}, {"trap_z": 1e6, "status": TOO_FEW}))
        assert found["traps"] == pytest.approx(0.0)

    @pytest.mark.parametrize("status", [ZERO, NOT_FINITE, COLLAPSED])
    def test_a_broken_layer_is_at_the_cap(self, status: str) -> None:
        broken = {"status": status, "stable_rank": math.nan, "spectral_norm": math.nan}
        found = check_guards(network({}, broken), initial=START)
        assert found["stable_rank"] == CAP


class TestStart:
    def test_without_a_start_growth_is_unknown_and_absolute_limits_hold(self) -> None:
        found = check_guards(network({"spectral_norm": 1e30, "stable_rank": 1.0}))
        assert found["lambda_max"] == UNKNOWN
        assert found["stable_rank"] == pytest.approx(math.log(1.8))

    def test_nothing_is_held_against_a_layer_that_it_came_with(self) -> None:
        pretrained = network({"stable_rank": 1.6, "mean_spike": 900.0, "trap_z": 1156.0})
        assert violation(check_guards(pretrained)) > 0.0
        assert violation(check_guards(pretrained, initial=pretrained)) == 0.0
        worse = network({"stable_rank": 0.7, "mean_spike": 2000.0, "trap_z": 2500.0})
        found = check_guards(worse, initial=pretrained)
        assert all(found[guard] > 0.0 for guard in ("stable_rank", "mean_spike", "traps"))

    def test_a_layer_that_starts_at_zero_may_grow(self) -> None:
        start = network({"spectral_norm": 0.0, "stable_rank": math.nan, "status": ZERO})
        assert check_guards(network({}), initial=start)["lambda_max"] == UNKNOWN

    def test_a_layer_that_was_not_there_has_no_start(self) -> None:
        assert check_guards(network({}), initial=ModelMetrics(()))["lambda_max"] == UNKNOWN


class TestLimits:
    def test_infinity_turns_a_guard_off(self) -> None:
        off = Guards(
            loss_ratio=math.inf,
            memorising=math.inf,
            lambda_growth=math.inf,
            rank_floor=0.0,
            rank_drop=math.inf,
            mean_spike=math.inf,
            trap_z=math.inf,
        )
        wild = network(
            {"spectral_norm": 1e9, "stable_rank": 1.01, "mean_spike": 1e9, "trap_z": 1e9}
        )
        found = check_guards(
            wild,
            initial=START,
            train_loss=9.0,
            first_train_loss=1.0,
            losses={1: 9.0, 2: 8.0, 4: 7.9, 8: 1.0},
            guards=off,
        )
        assert found == dict.fromkeys(found, -CAP)

    @pytest.mark.parametrize(
        ("limits", "message"),
        [
            ({"trap_z": 0.0}, "trap_z must be positive, got 0.0"),
            ({"loss_ratio": math.nan}, "loss_ratio must be positive, got nan"),
            ({"rank_floor": -1.0}, "rank_floor must be positive, got -1.0"),
        ],
    )
    def test_an_impossible_limit_is_refused(self, limits: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Guards(**limits)


anything = st.floats(allow_nan=True, allow_infinity=True)


@given(
    now=st.tuples(anything, anything, anything, anything),
    start=st.tuples(anything, anything, anything, anything),
    losses=st.tuples(st.none() | anything, st.none() | anything),
    status=st.sampled_from([OK, ZERO, COLLAPSED]),
)
def test_whatever_is_measured_the_values_are_finite_and_within_the_cap(
    now: tuple[float, ...], start: tuple[float, ...], losses: tuple[Any, Any], status: str
) -> None:
    names = ("spectral_norm", "stable_rank", "mean_spike", "trap_z")
    found = check_guards(
        network(dict(zip(names, now, strict=True), status=status)),
        initial=network(dict(zip(names, start, strict=True))),
        train_loss=losses[0],
        first_train_loss=losses[1],
    )
    assert all(-CAP <= value <= CAP for value in found.values()), found


def test_violation_is_the_sum_of_what_is_beyond() -> None:
    assert violation({"a": 0.5, "b": -3.0, "c": 0.25, "d": 0.0}) == 0.75
    assert violation({}) == 0.0


@pytest.mark.parametrize("checkpoint", ["0.5", "1.0"])
@pytest.mark.parametrize("start_shown", [True, False])
def test_on_the_zoo_they_refuse_every_collapsed_network_and_no_good_one(
    zoo_records: list[dict[str, Any]],
    zoo_metrics: ZooMetricsOf,
    checkpoint: str,
    start_shown: bool,
) -> None:
    accuracy = np.array([record["hist"]["1.0"]["tra"] for record in zoo_records])
    test = np.array([record["hist"]["1.0"]["tea"] for record in zoo_records])
    collapsed, good = accuracy < np.median(accuracy) / 2, test >= np.median(test)
    pairs = zip(zoo_records, zoo_metrics(checkpoint), zoo_metrics("0"), strict=True)
    refused = np.array(
        [
            violation(
                check_guards(
                    metrics,
                    initial=initial if start_shown else None,
                    train_loss=record["hist"][checkpoint]["ema"],
                    first_train_loss=record["hist"]["0.25"]["ema"],
                )
            )
            > 0.0
            for record, metrics, initial in pairs
        ]
    )
    assert collapsed.sum() == 9 and good.sum() == 39
    assert refused[collapsed].all()
    assert not refused[good].any()


@pytest.mark.slow
def test_the_study_that_calibrates_them_counts_the_same(zoo_folder: Path) -> None:
    import calibrate_guards as calibrate
    from harness.zoos.records import read_zoo

    networks = read_zoo(zoo_folder)
    counts = calibrate.count(calibrate.judge_zoo(networks))
    assert len(counts) == 4  # half and end, start shown and not
    assert set(counts["collapsed"]) == {"9 of 9"} and set(counts["good"]) == {"0 of 39"}


def test_the_page_on_guards_says_the_defaults() -> None:
    page = (ROOT / "docs" / "guards.md").read_text()
    table = page[: page.index("##")]
    said = re.findall(r"^\|.*\| ([\d.]+) \|$", table, flags=re.MULTILINE)
    defaults = [float(value) for value in dataclasses.asdict(Guards()).values()]
    assert [float(value) for value in said] == defaults
