"""Searches that end when they have spent what a random one cost, each guided by another score.

All searches of a seed share their first, random, networks; finished ones are kept. What a search
costs is CPU seconds: of its trainings, of computing the score, of asking the sampler.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import optuna

import wwopt
from harness.loops.trials import EVIDENCE, NOISY, TASKS, load_metrics, run_trial
from harness.loops.tuning_free import make_tuning_free
from wwopt.metrics.memorisation import octave_ratio
from wwopt.metrics.objective import Preset
from wwopt.study.spec import derive_seed
from wwopt.tuning.pressure import pressure_of_search
from wwopt.tuning.samplers.sampling import make_sampler

# What a score by spectra is called in the tables → its preset, the version of its formulas, and
# whether a training that memorises is refused, as `wwopt.Guards` do.
SPECTRAL: dict[str, tuple[Preset, int, bool]] = {
    "weights only, version 3": ("weights-only", 3, False),  # which guided by default until 0.1.0
    "weights only": ("weights-only", 4, False),
    "validation-free": ("validation-free", 4, True),  # which guides by default
    "validation-free, unguarded": ("validation-free", 4, False),
}
GUIDES = ("weights only, version 3", "validation-free", "training loss", "validation 1000")
NOISY_GUIDES = ("validation-free, unguarded", NOISY)  # where labels are wrong
TIED_GUIDES = ("validation-free", "validation 1000")
TRIALS = {"mlp": 20, "mlp-noise": 20, "cnn": 20, "cnn-noise": 20, "gpt": 15, "gpt-long": 15}


def guides_of(name: str) -> tuple[str, ...]:
    """The scores that guide searches on a task."""
    return GUIDES + (NOISY_GUIDES if "noise" in name else ())


def run_seed(
    name: str, seed: int, trials: int, folder: Path, *, guided: bool, tied: bool, evidence: bool
) -> str:
    """Run all searches of a task for one seed; finished ones are kept.

    Args:
        name: of the task.
        seed: of the searches.
        trials: of the random one.
        folder: of the records.
        guided: by scores; else the random one alone.
        tied: over spaces too where all layers share their values, or each has its own.
        evidence: of the networks of the random one; and one training by a tuning-free optimizer.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    store = Store(folder / f"{name}-{seed}.jsonl")
    space = TASKS[name].module.make_space(TASKS[name].conditions)
    textbook = space_point(space, TASKS[name].default)
    alone = {"default": textbook}
    if evidence:
        alone["tuning-free"] = make_tuning_free(textbook)
    for kind, hp in alone.items():
        record = run_trial(name, hp, seed=derive_seed(seed, 10_000), folder=folder, known=store)
        store.keep_arm("default", kind, [record["key"]], spent=0.0)
    budget = math.inf
    arms = [("depth", "random")]
    if guided:
        arms += [("depth", guide) for guide in guides_of(name)]
    if tied:
        arms += [(tie, guide) for tie in ("global", "layer") for guide in TIED_GUIDES]
    for tie, guide in arms:
        if store.find_arm(tie, guide) is None:
            limit = trials if guide == "random" else 10 * trials
            search(
                name,
                seed,
                tie,
                guide,
                limit=limit,
                budget=budget,
                folder=folder,
                store=store,
                evidence=evidence and guide == "random" and "gpt" not in name,
            )
        if guide == "random":
            budget = store.find_arm(tie, guide)["spent"]
    return f"{name} {seed}"


def search(
    name: str,
    seed: int,
    tie: str,
    guide: str,
    *,
    limit: int,
    budget: float,
    folder: Path,
    store: "Store",
    evidence: bool = False,
) -> None:
    """Search until the budget of CPU seconds is spent, or the limit of trials is reached."""
    space = TASKS[name].module.make_space(TASKS[name].conditions, tie=tie)
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    keys: list[str] = []
    spent = 0.0
    limit_of_fall = TASKS[name].memorising
    while len(keys) < limit and spent < budget:
        number_seed = derive_seed(seed, 0, len(keys))
        random = optuna.samplers.RandomSampler(number_seed)
        study.sampler = random if guide == "random" else make_sampler("gp", number_seed)
        start = time.process_time()
        trial = study.ask()
        hp = space.suggest(trial)
        spent += time.process_time() - start
        record = run_trial(
            name,
            hp,
            seed=derive_seed(seed, len(keys)),
            folder=folder,
            known=store,
            evidence=evidence,
        )
        keys.append(record["key"])
        value = score(record, guide, folder, memorising=limit_of_fall)
        spent += record["seconds"]["train"] + record["seconds"].get(cost_of(guide), 0.0)
        if math.isfinite(value):
            study.tell(trial, value)
        else:
            trial.report(10.0, step=1)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    pressure = pressure_of_search(study.get_trials(deepcopy=False))
    store.keep_arm(tie, guide, keys, spent=spent, pressure=pressure)


def score(record: dict[str, Any], how: str, folder: Path, *, memorising: float) -> float:
    """The score of a trial, lower is better; infinite where it is refused.

    Args:
        record: of the trial.
        how: name of the score.
        folder: of the spectra.
        memorising: limit of the guard of that name.
    """
    if record["status"] != "ok":
        return math.inf
    if how in SPECTRAL:
        preset, formulas, guarded = SPECTRAL[how]
        if guarded and octave_ratio(dict(enumerate(record["losses"], 1))) > memorising:
            return math.inf
        objective = wwopt.SpectralObjective(preset, version=formulas)
        found = objective(load_metrics(record, folder), train_loss=record["train_loss"])
        return found.value if found.status == "ok" else math.inf
    if how == "training loss":
        return float(record["train_loss"])
    if how == "sum of losses":
        return math.fsum(record["losses"])
    if how == EVIDENCE:
        return float(record[EVIDENCE])
    if how == "random":
        return 0.0
    measured = record[how]  # few examples often tie
    return float(measured["error"] + 1e-6 * measured["loss"])


def cost_of(guide: str) -> str:
    """The entry of a trial's CPU seconds that computing a score takes."""
    return "spectra" if guide in SPECTRAL else guide


def space_point(space: wwopt.LayerSpace, values: dict[str, float]) -> wwopt.LayerHyperparameters:
    """The same values for every layer."""
    return wwopt.LayerHyperparameters(
        lr=dict.fromkeys(space.layers, values["lr"]),
        dropout=dict.fromkeys(space.dropout_layers, values["dropout"]),
        momentum=dict.fromkeys(space.layers, values["momentum"]),
    )


class Store(dict[str, dict[str, Any]]):
    """Records of one seed's trials by key, and its searches, kept in a file line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._arms: dict[tuple[str, str, str], dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            self._take(json.loads(line))

    def __setitem__(self, key: str, record: dict[str, Any]) -> None:
        self._append(record)

    def keep_arm(
        self, tie: str, guide: str, keys: list[str], *, spent: float, pressure: float = math.nan
    ) -> None:
        """Keep a finished search: keys in their order, CPU seconds, nats of pressure."""
        arm = {"tie": tie, "guide": guide, "keys": keys, "spent": spent, "pressure": pressure}
        arm["score"] = version(guide)
        if self.find_arm(tie, guide) is None:
            self._append(arm)

    def find_arm(self, tie: str, guide: str) -> dict[str, Any] | None:
        """The search, if it is finished and its score is the present one."""
        return self._arms.get((tie, guide, version(guide)))

    def _append(self, line: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        if "keys" in line:
            self._arms[line["tie"], line["guide"], line["score"]] = line
        else:
            super().__setitem__(line["key"], line)


def version(guide: str) -> str:
    """What a search guided by a score depends on; another version is searched anew."""
    if guide not in SPECTRAL:
        return guide
    preset, formulas, guarded = SPECTRAL[guide]
    return f"{preset} {formulas}{' guarded' if guarded else ''}"
