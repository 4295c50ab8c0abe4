"""A probe changes one thing, which reaches a study's training; a failure says why."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
import pytest
import torch
from fixtures.studies.noted_studies import CONDITIONS, HP, Seen, make_network, make_spec

import wwopt
from wwopt.recommendation.probe_training import LAYER_SIGNS, run_probe
from wwopt.recommendation.probes import (
    Kind,
    Probe,
)
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters


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
