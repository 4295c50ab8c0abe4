"""Probes: what is planned, what of it reaches a study's training, and what a failure leaves."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
import pytest
import torch
from torch import nn

import wwopt
from wwopt.plain_data import make_plain
from wwopt.recommendation.probe_training import LAYER_SIGNS, run_probe
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
from wwopt.study.layer_hyperparameters import LayerHyperparameters

Seen = list[tuple[LayerHyperparameters, wwopt.Conditions]]
CONDITIONS = wwopt.Conditions(seed=0, epochs=3, fraction=0.5)


def make_network(conditions: wwopt.Conditions) -> nn.Sequential:
    """A stack of square layers that follows width and depth."""
    size, layers = round(64 * conditions.width), round(2 * conditions.depth)
    return nn.Sequential(*(nn.Linear(size, size) for _ in range(layers)))


def make_space(conditions: wwopt.Conditions) -> wwopt.LayerSpace:
    return wwopt.LayerSpace.from_model(
        make_network(conditions), lr=(0.01, 1.0), dropout=None, momentum=None
    )


def make_spec(
    seen: Seen, train: Callable[..., object] | None = None, **options: Any
) -> wwopt.StudySpec:
    """A study whose training notes what it was called with."""

    def note(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
        seen.append((hp, conditions))
        network = make_network(conditions)
        for _ in range(conditions.epochs):
            recorder.step(network, train_loss=0.5, error=float(torch.rand(())))

    given = {"space": make_space, "conditions": CONDITIONS} | options
    return wwopt.StudySpec("probed", train or note, **given)


HP = LayerHyperparameters(lr={"0": 0.1, "1": 0.4})


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


@pytest.mark.parametrize(
    ("kind", "factor", "changed"),
    [
        ("data", 0.25, {"fraction": 0.125}),  # of the half that the study trains on
        ("data", 1.0, {}),
        ("epochs", 2.0, {"epochs": 6}),
        ("epochs", 0.01, {"epochs": 1}),
        ("width", 2.0, {"width": 2.0}),
        ("depth", 2.0, {"depth": 2.0}),
    ],
)
def test_one_thing_is_changed_and_reaches_the_training(
    kind: Kind, factor: float, changed: dict[str, float]
) -> None:
    seen: Seen = []
    result = run_probe(make_spec(seen), HP, Probe(kind, factor))
    assert result.status == "ok", result.status
    conditions = seen[0][1]
    assert conditions == replace(CONDITIONS, seed=conditions.seed, **changed)
    assert conditions.seed != CONDITIONS.seed


def test_the_rates_of_all_layers_are_scaled_and_nothing_else() -> None:
    seen: Seen = []
    hp = replace(HP, momentum={"0": 0.5, "1": 0.9}, batch_size=32)
    run_probe(make_spec(seen), hp, Probe("data", 0.5, 3.0))
    given = seen[0][0]
    assert given.lr == pytest.approx({"0": 0.3, "1": 1.2})
    assert replace(given, lr=hp.lr) == hp


def test_a_sampled_size_is_kept_and_steps_start_from_it() -> None:
    seen: Seen = []
    hp = LayerHyperparameters(lr={"0": 0.1}, width=1.5, depth=0.5)
    run_probe(make_spec(seen), hp, Probe("width", 2.0))
    assert (seen[0][1].width, seen[0][1].depth) == (3.0, 0.5)


def test_layers_that_only_the_probe_has_get_values_by_relative_depth() -> None:
    seen: Seen = []
    hp = replace(HP, weight_decay={"0": 0.001, "1": 0.002})
    run_probe(make_spec(seen), hp, Probe("depth", 2.0, 3.0))
    given = seen[0][0]
    assert given.lr == pytest.approx({"0": 0.3, "1": 0.3, "2": 1.2, "3": 1.2})
    assert list(given.weight_decay.values()) == [0.001, 0.001, 0.002, 0.002]
    assert not given.momentum


def test_a_probe_gives_the_last_numbers_the_score_and_every_layers_signs() -> None:
    network = make_network(CONDITIONS)

    def train(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
        recorder.step(network, train_loss=0.9, error=0.5, rare=7.0)
        advice = recorder.step(network, train_loss=0.3, error=0.2, step=2)
        assert advice == wwopt.Advice()

    result = run_probe(make_spec([], train), HP, Probe("data", 1.0))
    assert result.metrics == {"train_loss": 0.3, "error": 0.2, "rare": 7.0}
    spectra = wwopt.analyze(network)
    assert list(result.layers) == ["0", "1"]
    assert all(set(signs) == set(LAYER_SIGNS) for signs in result.layers.values())
    assert [signs["alpha"] for signs in result.layers.values()] == [x.alpha for x in spectra.layers]
    assert math.isfinite(result.score) and result.seconds > 0.0


def test_the_same_seed_gives_the_same_numbers_and_replicates_differ() -> None:
    spec = make_spec([])
    one, again, other = (
        run_probe(spec, HP, Probe("data", 1.0, 1.0, replicate)) for replicate in (0, 0, 1)
    )
    assert one.metrics == again.metrics != other.metrics
    assert one.layers == again.layers != other.layers
    assert run_probe(spec, HP, Probe("data", 1.0), seed=5).metrics != one.metrics


def test_probes_that_differ_share_the_seed_of_their_replicate_but_none_with_the_trials() -> None:
    seen: Seen = []
    spec = make_spec(seen)
    for probe in (Probe("data", 0.5), Probe("epochs", 2.0, 3.0), Probe("data", 0.5, 1.0, 1)):
        run_probe(spec, HP, probe)
    seeds = [conditions.seed for _, conditions in seen]
    assert seeds[0] == seeds[1] != seeds[2]
    trials: Seen = []
    study = optuna.create_study()
    study.optimize(make_spec(trials).optuna_objective(seed=0), n_trials=3)
    assert not {conditions.seed for _, conditions in trials} & set(seeds)


def test_torchs_generator_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run_probe(make_spec([]), HP, Probe("data", 1.0))
    assert torch.equal(torch.rand(4), expected)


def diverge(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
    network = make_network(conditions)
    recorder.step(network, train_loss=0.5, error=0.3)
    recorder.step(network, train_loss=math.nan, error=0.9)


def crash(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
    recorder.step(make_network(conditions), error=0.3)
    raise RuntimeError("out of memory\nand much more")


def prune(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
    raise optuna.TrialPruned


def forget(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("train", "status"),
    [
        (diverge, "training loss is nan"),
        (crash, "raised RuntimeError: out of memory"),
        (prune, "pruned"),
        (forget, "raised ValueError: the study's train never called recorder.step(model)"),
    ],
)
def test_a_training_that_fails_says_why_and_leaves_no_number(
    train: Callable[..., None], status: str
) -> None:
    result = run_probe(make_spec([], train), HP, Probe("data", 1.0))
    assert result.status == status
    assert not result.metrics and not result.layers and math.isnan(result.score)


def test_an_interruption_is_no_failure() -> None:
    def stop(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_probe(make_spec([], stop), HP, Probe("data", 1.0))


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
