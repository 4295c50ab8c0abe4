"""Live through a scenario: its trials, the probes, and what each action then really brings.

All trainings are kept, line by line, in FOLDER/SCENARIO.jsonl; finished ones are not run again.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

import wwopt
from harness.scenarios.situations import SCENARIOS, Scenario
from harness.scenarios.training import make_study
from wwopt.recommendation.probe_training import run_probe, train_once
from wwopt.recommendation.probes import PARTS, Kind, Probe, ProbeResult, extend_probes
from wwopt.study.spec import derive_seed
from wwopt.tuning.samplers.sampling import make_sampler

MORE_TRIALS = 12  # of the action "keep tuning"
REPLICATES = 6  # networks that an action's true gain is the mean of
NOW: tuple[Kind, float] = ("data", 1.0)
TRUE_STEPS: dict[str, tuple[Kind, float]] = {
    "now": NOW,
    "data": ("data", 2.0),
    "bigger": ("width", 2.0),
    "longer": ("epochs", 2.0),
}
# Twice as far as what is told: does the next doubling pay?
FURTHER: dict[str, tuple[Kind, float]] = {"bigger": ("width", 4.0), "longer": ("epochs", 4.0)}
FURTHER_REPLICATES = 4
RATES = (3.0**-1, 1.0, 3.0)
CHEAP = (
    *(Probe("width", part, 1.0, seed) for part in (0.25, 0.5) for seed in range(2)),
    Probe("epochs", 0.5),
)


@dataclass(frozen=True)
class Lived:
    """All that was measured of a scenario."""

    scenario: Scenario
    trials: tuple[ProbeResult, ...]  # those before the question, then those of "keep tuning"
    probes: tuple[ProbeResult, ...]  # what `wwopt recommend --probe` would have run
    true: dict[str, tuple[ProbeResult, ...]]  # action → its networks, "now" among them
    tuned: tuple[tuple[ProbeResult, ...], ...]  # networks of each configuration found by tuning
    cheap: tuple[ProbeResult, ...]  # parts of the width, half of the epochs
    first: tuple[ProbeResult, ...]  # the first trial's configuration on parts of the data
    further: dict[str, tuple[ProbeResult, ...]]  # "bigger" and "longer" → networks at four times


class Store(dict[str, ProbeResult]):
    """Results by key, kept in a file line by line."""

    def __init__(self, path: Path, *, grows: bool = True) -> None:
        self._path, self.grows = path, grows
        for line in path.read_text().splitlines() if path.exists() else []:
            record = json.loads(line)
            super().__setitem__(record.pop("key"), ProbeResult.from_dict(record))

    def lacks(self, key: str) -> bool:
        """Whether it is to be run.

        Raises:
            KeyError: if it is not there, and nothing is to be.
        """
        if key not in self and not self.grows:
            raise KeyError(key)
        return key not in self

    def __setitem__(self, key: str, result: ProbeResult) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps({"key": key} | result.to_dict()) + "\n")
        super().__setitem__(key, result)


def live(name: str, data: Path | None, folder: Path, *, train: bool = True) -> Lived:
    """Run what is missing of a scenario and return all of it.

    Raises:
        KeyError: if something is missing and nothing is to be trained.
    """
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scenario = SCENARIOS[name]
    spec = make_study(scenario, data)
    store = Store(folder / f"{name}.jsonl", grows=train)
    trials, hps = _search(scenario, spec, store)
    before = best(trials[: scenario.trials], spec)
    planned = [
        Probe("data", part, rate, seed)
        for part, rate, seed in product((*PARTS, 1.0), RATES, range(2))
    ]
    planned += [Probe(kind, 2.0, 1.0, seed) for kind in ("width", "epochs") for seed in range(2)]
    probes = _retune(spec, hps[before], planned, store)
    cheap = [_probe(spec, hps[before], probe, store, tag="") for probe in CHEAP]
    first = [_probe(spec, hps[0], Probe("data", f), store, tag="first ") for f in PARTS]
    true = {
        action: _replicate(spec, hps[before], Probe(kind, factor), store)
        for action, (kind, factor) in TRUE_STEPS.items()
    }
    tuned = []
    now = [result for result in probes if (result.probe.kind, result.probe.factor) == NOW]
    rate = best_rate(now, spec.metric or "")
    if rate != 1.0:
        tuned.append(_replicate(spec, hps[before], Probe(*NOW, rate), store))
    after = best(trials, spec)
    if after != before:
        tuned.append(_replicate(spec, hps[after], Probe(*NOW), store, tag="tuned "))
    further = {
        action: _replicate(spec, hps[before], Probe(kind, factor), store, count=FURTHER_REPLICATES)
        for action, (kind, factor) in FURTHER.items()
    }
    return Lived(
        scenario,
        tuple(trials),
        tuple(probes),
        true,
        tuple(tuned),
        tuple(cheap),
        tuple(first),
        further,
    )


def best(trials: list[ProbeResult], spec: wwopt.StudySpec) -> int:
    """Number of the trial with the lowest validation metric."""
    values = [value_of(trial, spec.metric or "") for trial in trials]
    return int(np.argmin(values))


def value_of(result: ProbeResult, metric: str) -> float:
    """The metric, infinite where the training failed."""
    return float(result.metrics.get(metric, np.inf)) if result.status == "ok" else np.inf


def best_rate(results: list[ProbeResult], metric: str) -> float:
    """The factor on the learning rate whose networks are best in the mean."""
    means = {
        factor: np.mean([value_of(r, metric) for r in results if r.probe.lr_factor == factor])
        for factor in {result.probe.lr_factor for result in results}
    }
    return min(sorted(means), key=lambda factor: means[factor])


def _replicate(
    spec: wwopt.StudySpec,
    hp: wwopt.LayerHyperparameters,
    probe: Probe,
    store: Store,
    *,
    tag: str = "",
    count: int = REPLICATES,
) -> tuple[ProbeResult, ...]:
    """As many networks as a true value is the mean of."""
    replicates = [replace(probe, replicate=number) for number in range(count)]
    return tuple(_probe(spec, hp, replicate, store, tag=tag) for replicate in replicates)


def _retune(
    spec: wwopt.StudySpec,
    hp: wwopt.LayerHyperparameters,
    planned: Iterable[Probe],
    store: Store,
) -> list[ProbeResult]:
    """Run the probes, and further ones until no best learning rate is at the edge."""
    results: dict[Probe, ProbeResult] = {}
    while planned:
        results |= {probe: _probe(spec, hp, probe, store, tag="") for probe in planned}
        losses = {probe: value_of(result, spec.metric or "") for probe, result in results.items()}
        planned = extend_probes(losses)
    return list(results.values())


def _search(
    scenario: Scenario, spec: wwopt.StudySpec, store: Store
) -> tuple[list[ProbeResult], list[wwopt.LayerHyperparameters]]:
    space = spec.space_at(spec.conditions)
    study = optuna.create_study()
    results, hps = [], []
    for number in range(scenario.trials + MORE_TRIALS):
        study.sampler = make_sampler("gp", derive_seed(0, 0, number))
        if number == 0 and scenario.trials == 1:
            study.enqueue_trial(_textbook(scenario, space))
        trial = study.ask()
        hp = space.suggest(trial)
        key = f"trial {number}"
        if store.lacks(key):
            seed = derive_seed(0, number)
            conditions = wwopt.Conditions(seed=seed, epochs=scenario.epochs)
            place = Probe("data", 1.0, 1.0, number)
            store[key] = train_once(spec, hp, conditions, probe=place)
        results.append(store[key])
        hps.append(hp)
        value = value_of(store[key], spec.metric or "")
        if np.isfinite(value):
            study.tell(trial, value)
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return results, hps


def _textbook(scenario: Scenario, space: wwopt.LayerSpace) -> dict[str, Any]:
    """One learning rate for all layers, and usual values of the rest."""
    usual = {
        "lr": scenario.lr,
        "dropout": 0.1,
        "momentum": 0.5 if scenario.metric == "error" and not scenario.adam else 0.9,
    }
    return {name: usual[name.split("/")[0]] for name in space.distributions(0)}


def _probe(
    spec: wwopt.StudySpec,
    hp: wwopt.LayerHyperparameters,
    probe: Probe,
    store: Store,
    *,
    tag: str,
) -> ProbeResult:
    key = tag + probe.name
    if store.lacks(key):
        store[key] = run_probe(spec, hp, probe)
    return store[key]
