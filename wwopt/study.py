"""A study: which networks to train, over which space, judged how. And the way to refer to one.

A study file ends in `study = wwopt.StudySpec(...)`. Processes and machines are handed a reference
to it (`file.py`, `file.py:attribute` or `module:attribute`), never a pickled function.
"""

import dataclasses
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import torch

from wwopt.layer_metrics import MIN_EIGENVALUES
from wwopt.layer_space import LayerHyperparameters, LayerSpace
from wwopt.objective import SpectralObjective
from wwopt.recorder import Conditions, Recorder, record
from wwopt.tracking import StudyRun

_FILE_MODULE = "wwopt_study_"  # prefix of the module name that a study file is loaded under

_CONDITIONS = Conditions(seed=0, epochs=20)

Sampler = optuna.samplers.BaseSampler
Train = Callable[[LayerHyperparameters, Conditions, Recorder], object]


class StudyError(ValueError):
    """A study cannot be loaded, resumed or run; the message says why and what to do."""


@dataclass(frozen=True)
class StudySpec:
    """What `tune` runs."""

    name: str  # of the study in Optuna and of the experiment in MLflow
    train: Train  # trains one network and calls recorder.step each epoch
    space: LayerSpace | Callable[[Conditions], LayerSpace]
    _: KW_ONLY
    objective: SpectralObjective | None = None  # None for the default preset
    conditions: Conditions = _CONDITIONS  # the seed is replaced trial by trial
    metric: str | None = None  # a logged validation metric: shown, never seen by the objective
    sampler: Sampler | Callable[[int], Sampler] | None = None  # a function gets a seed
    pruner: optuna.pruners.BasePruner | None = None

    def optuna_objective(
        self, *, tracking: str | StudyRun | None = None, seed: int = 0
    ) -> Callable[[optuna.Trial], float]:
        """The plain callable for `optuna.Study.optimize`: suggest, train, record, return the value.

        Training runs with torch's generator seeded from (seed, trial number); the caller's
        generator is left as it was.
        """

        def objective(trial: optuna.Trial) -> float:
            conditions = dataclasses.replace(self.conditions, seed=derive_seed(seed, trial.number))
            hp = self.space_at(conditions).suggest(trial)
            with (
                record(
                    trial, objective=self.objective, tracking=tracking, conditions=conditions
                ) as recorder,
                torch.random.fork_rng(),
            ):
                torch.manual_seed(conditions.seed)
                self.train(hp, conditions, recorder)
            return recorder.value

        return objective

    def space_at(self, conditions: Conditions) -> LayerSpace:
        """The search space under the given conditions."""
        return self.space if isinstance(self.space, LayerSpace) else self.space(conditions)

    def make_sampler(self, seed: int) -> Sampler:
        """The study's sampler; a new one from the seed unless the study names an object."""
        if isinstance(self.sampler, Sampler):
            return self.sampler
        if self.sampler is not None:
            return self.sampler(seed)
        # Multivariate TPE: uses pruned trials, and on 9 depth knots it comes within a factor of 2
        # of a Gaussian process at a fraction of its cost.
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)

    def make_pruner(self) -> optuna.pruners.BasePruner:
        """The study's pruner; none under a sampler that ignores pruned trials.

        By default the median of the trials before it, from half of the epochs on: earlier, alpha
        means nothing.
        """
        if self.pruner is not None:
            return self.pruner
        if isinstance(self.sampler, optuna.samplers.GPSampler | optuna.samplers.CmaEsSampler):
            return optuna.pruners.NopPruner()
        return optuna.pruners.MedianPruner(
            n_startup_trials=5, n_warmup_steps=self.conditions.epochs // 2
        )

    def describe(self) -> dict[str, Any]:
        """What must not change when a study is resumed, as plain data."""
        objective = self.objective or SpectralObjective()
        conditions = dataclasses.asdict(self.conditions)
        del conditions["seed"], conditions["device"], conditions["checkpoint_dir"]
        return {
            "space": self.space_at(self.conditions).describe(),
            "objective": {**dataclasses.asdict(objective), "version": objective.version},
            "conditions": conditions,
        }

    def check(self) -> None:
        """Refuse, before the first trial, a study that cannot succeed.

        Raises:
            StudyError: if no layer has enough eigenvalues for the objective to count it.
        """
        counts = self.space_at(self.conditions).eigenvalues
        if max(counts.values()) < MIN_EIGENVALUES:
            listed = ", ".join(f"{layer} {count}" for layer, count in list(counts.items())[:5])
            raise StudyError(
                f"study {self.name!r}: no layer has {MIN_EIGENVALUES} eigenvalues ({listed}), so "
                f"the objective would count none; widen a layer"
            )


def derive_seed(seed: int, *parts: int) -> int:
    """A seed for one part of a study, from the study's: every trial gets its own."""
    return int(np.random.SeedSequence([seed, *parts]).generate_state(1)[0])


def load_study(reference: str) -> StudySpec:
    """Load the study that a reference names.

    Args:
        reference: `path/to/file.py` (its attribute `study`), `path/to/file.py:attribute`, or
            `module:attribute`.

    Raises:
        StudyError: if it is missing, raises on import, or is no study.
    """
    place, _, attribute = reference.rpartition(":") if ":" in reference else (reference, "", "")
    if not place.endswith(".py") and not attribute:
        raise StudyError(
            f"{reference!r} is no study: name a file (studies/digits.py) or module:attribute"
        )
    attribute = attribute or "study"
    path = Path(place)
    if place.endswith(".py") and not path.is_file():
        raise StudyError(f"study file {place} does not exist")
    try:
        module = _import_file(path) if place.endswith(".py") else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise StudyError(f"study {place} raised on import: {_where(error, path)}") from error
    if not hasattr(module, attribute):
        raise StudyError(f"{place} has no attribute {attribute!r}; end it in study = StudySpec(…)")
    study = getattr(module, attribute)
    if not isinstance(study, StudySpec):
        raise StudyError(f"{place}:{attribute} is a {type(study).__name__}, not a StudySpec")
    return study


def reference_of(study: StudySpec) -> str:
    """The reference under which another process finds this study.

    Raises:
        StudyError: if it is defined in `__main__` or inside a function, where none can.
    """
    name = getattr(study.train, "__module__", "__main__")
    module = sys.modules.get(name)
    if name == "__main__" or module is None:
        raise StudyError(
            f"study {study.name!r} is defined in __main__, where worker processes cannot import "
            f"it; put it into a file of its own, or use jobs=1"
        )
    for attribute, value in vars(module).items():
        if value is study:
            place = module.__file__ if name.startswith(_FILE_MODULE) else name
            return f"{place}:{attribute}"
    raise StudyError(
        f"study {study.name!r} is no attribute of the module {name}, so worker processes cannot "
        f"find it; assign it at module level, or use jobs=1"
    )


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    name = f"{_FILE_MODULE}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise StudyError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # As `python file.py` would: the file may import its neighbours.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _where(error: BaseException, path: Path) -> str:
    """The error in one line, with the line of the study file that led to it."""
    message = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {message[0]}" if message else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{text} (line {error.lineno})"
    stack = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in stack if frame.filename == str(path.resolve())]
    return f"{text} (line {frames[-1].lineno})" if frames else text
