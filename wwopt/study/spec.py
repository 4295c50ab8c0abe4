"""A study: which networks to train, over which space, judged how."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import torch

from wwopt.metrics.guards import Guards
from wwopt.metrics.inference_cost import Inputs
from wwopt.metrics.model_metrics import MIN_EIGENVALUES
from wwopt.metrics.objective import SpectralObjective
from wwopt.study.conditions import Conditions
from wwopt.study.errors import StudyError
from wwopt.study.score_version import describe_score
from wwopt.study.second_objectives import Second, measure_second
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters
from wwopt.study.space.layer_space import LayerSpace
from wwopt.study.textbook import check_textbook
from wwopt.study.trial.kept_networks import Judged
from wwopt.study.trial.recorder import Recorder
from wwopt.study.trial.recording import record
from wwopt.study.trial.step_recorder import StepRecorder
from wwopt.study.tries import SEED_ATTR, place_of
from wwopt.tracking import StudyRun
from wwopt.tracking.validation_metrics import Metric

_CONDITIONS = Conditions(seed=0, epochs=20)
_GUARDS = Guards()

NO_PRUNING = (
    "two objectives: Optuna can neither be told values before the end nor prune, so every trial "
    "trains to its end unless its loss or a layer breaks; there is no best trial but a front"
)

ELSEWHERE = (
    "its networks are trained by jobs of their own: `wwopt ask` hands out what each is to train "
    "with, `wwopt tell` takes its checkpoint"
)

Sampler = optuna.samplers.BaseSampler
Train = Callable[[LayerHyperparameters, Conditions, StepRecorder], object]


def train_elsewhere(
    hp: LayerHyperparameters, conditions: Conditions, recorder: StepRecorder
) -> object:
    """The `train` of a study whose networks are trained by jobs of their own: `wwopt ask`, `tell`.

    Raises:
        StudyError: that says so.
    """
    raise StudyError(ELSEWHERE)


@dataclass(frozen=True)
class StudySpec:
    """What `tune` runs.

    With a second objective Optuna minimises both, and the result is a front of trials that no other
    one beats in both (`StudyResult.best_trials`) in place of a best trial. It disables pruning:
    Optuna's trials of several objectives can neither report a value before their end nor be pruned,
    so each trains to its end, unless its loss or a layer breaks. "train_loss" is the last training
    loss that `recorder.step` was given; "size", "bytes" and "latency" are what the network costs to
    use (`wwopt.study.second_objectives`), and a study in which they never vary has one trial on
    its front. A score compares networks of one architecture: along these three the front says what
    a cost can reach, not that the larger network of two scores is the better one.
    """

    name: str  # of the study in Optuna and of the experiment in MLflow
    train: Train  # trains one network and calls recorder.step each epoch
    space: LayerSpace | Callable[[Conditions], LayerSpace]
    _: KW_ONLY
    objective: SpectralObjective | None = None  # None: see wwopt.study.guides
    conditions: Conditions = _CONDITIONS  # the seed is replaced trial by trial
    metric: str | Metric | None = None  # logged, of validation: shown, never seen by the objective
    sampler: Sampler | Callable[[int], Sampler] | None = None  # a function gets a seed
    pruner: optuna.pruners.BasePruner | None = (
        None  # None: see wwopt.tuning.samplers.sampling, as for the sampler
    )
    guards: Guards | None = _GUARDS  # limits that become Optuna's constraints; None for none
    second: Second | None = None  # a second objective, minimised as the first
    inputs: Callable[[], Inputs] | None = None  # makes one batch, for which latency is measured
    # Of the first trial, as {"lr": .001}, for all layers; usual values else: wwopt.study.textbook
    textbook: Mapping[str, float] | None = None
    judge: Judged = "last"  # the network of a trial's last step, or its best: see `wwopt.record`

    def optuna_objective(
        self,
        *,
        tracking: str | StudyRun | None = None,
        seed: int = 0,
        space: LayerSpace | None = None,
        checkpoints: Path | None = None,
    ) -> Callable[[optuna.Trial], float | tuple[float, float]]:
        """The plain callable for `optuna.Study.optimize`: suggest, train, record, return the value.

        With a second objective it returns both values, for a study of `directions`.

        Training runs with torch's generator seeded from (seed, trial number); the caller's
        generator is left as it was.

        Args:
            tracking: MLflow's tracking URI, or the study's parent run; None for no MLflow.
            seed: of the study.
            space: under the study's own conditions, where it is at hand; None to make it for each
                trial, which makes a model where the space is a function.
            checkpoints: folder in which each trial has one of its own, `conditions.checkpoint_dir`,
                the same for all of its tries; None to leave the study's own.
        """

        def objective(trial: optuna.Trial) -> float | tuple[float, float]:
            hp, conditions = self.draw(trial, seed=seed, space=space, checkpoints=checkpoints)
            with (
                record(
                    trial,
                    objective=self.objective,
                    tracking=tracking,
                    conditions=conditions,
                    guards=self.guards,
                    judge=self.judge,
                ) as recorder,
                torch.random.fork_rng(),
            ):
                torch.manual_seed(conditions.seed)
                self.train(hp, conditions, recorder)
                second = self.second_value(recorder)
            return recorder.value if second is None else (recorder.value, second)

        return objective

    def draw(
        self,
        trial: optuna.Trial,
        *,
        seed: int,
        space: LayerSpace | None = None,
        checkpoints: Path | None = None,
    ) -> tuple[LayerHyperparameters, Conditions]:
        """What a trial is to be trained with: suggested, or known from a try before it.

        Args:
            trial: Optuna's.
            seed: of the study.
            space: as of `optuna_objective`, like the folder of checkpoints.
            checkpoints: in which the trial gets one of its own.
        """
        own = trial.user_attrs.get(SEED_ATTR)
        own = derive_seed(seed, place_of(trial)) if own is None else own
        conditions = dataclasses.replace(self.conditions, seed=own)
        if checkpoints is not None:
            folder = checkpoints / f"trial-{place_of(trial)}"
            folder.mkdir(parents=True, exist_ok=True)
            conditions = dataclasses.replace(conditions, checkpoint_dir=str(folder))
        searched = self.space_at(conditions) if space is None else space
        size = searched.suggest_size(trial)
        if size:  # what layers there are follows from it
            sized = {name: getattr(conditions, name) * factor for name, factor in size.items()}
            conditions = dataclasses.replace(conditions, **sized)
            searched = self.space_at(conditions)
        return searched.suggest(trial), conditions

    @property
    def directions(self) -> list[optuna.study.StudyDirection]:
        """Of the study in Optuna: all values are minimised."""
        return [optuna.study.StudyDirection.MINIMIZE] * (1 if self.second is None else 2)

    @property
    def metric_name(self) -> str | None:
        """The name of the validation metric, however much is stated of it."""
        return self.metric.name if isinstance(self.metric, Metric) else self.metric

    def space_at(self, conditions: Conditions) -> LayerSpace:
        """The search space under the given conditions; torch's generator is left as it was."""
        if isinstance(self.space, LayerSpace):
            return self.space
        with torch.random.fork_rng():  # whoever makes a model draws its weights
            return self.space(conditions)

    def describe(self) -> dict[str, Any]:
        """What must not change when a study is resumed, as plain data."""
        conditions = dataclasses.asdict(self.conditions)
        del conditions["seed"], conditions["device"], conditions["checkpoint_dir"]
        return {
            "space": self.space_at(self.conditions).describe(),
            "objective": None if self.objective is None else describe_score(self.objective),
            "conditions": conditions,
            "guards": None if self.guards is None else dataclasses.asdict(self.guards),
            "second": self.second,
            # None as in studies that were begun before there was a choice.
            "judge": None if self.judge == "last" else self.judge,
        }

    def describe_metric(self) -> str | dict[str, Any] | None:
        """The validation metric as plain data: its name, or all that is stated of it."""
        return dataclasses.asdict(self.metric) if isinstance(self.metric, Metric) else self.metric

    def check(self) -> None:
        """Refuse, before the first trial, a study that cannot succeed.

        Raises:
            StudyError: if no layer has enough eigenvalues for the objective to count it, depths
                are sampled from a space that does not follow them, a second objective is unknown,
                lacks a batch or meets a pruner or CMA-ES, or the textbook configuration states
                what there is not.
        """
        self._check_second()
        check_textbook(self.textbook or {})
        space = self.space_at(self.conditions)
        if space.depths and isinstance(self.space, LayerSpace):
            raise StudyError(
                f"study {self.name!r} samples depths, and what layers there are follows from the "
                f"depth: make its space a function of the conditions"
            )
        counts = space.eigenvalues
        if max(counts.values()) < MIN_EIGENVALUES:
            listed = ", ".join(f"{layer} {count}" for layer, count in list(counts.items())[:5])
            raise StudyError(
                f"study {self.name!r}: no layer has {MIN_EIGENVALUES} eigenvalues ({listed}), so "
                f"the objective would count none; widen a layer"
            )

    def second_value(self, recorder: Recorder) -> float | None:
        """The second objective of a recorded trial, logged too; None of a study of one.

        Raises:
            ValueError: if the training did not show what it needs, such as a training loss.
        """
        if self.second is None:
            return None
        value = measure_second(self.second, recorder, inputs=self.inputs)
        if recorder.run is not None:
            recorder.run.log({f"objective/{self.second}": value}, step=self.conditions.epochs)
        return value

    def _check_second(self) -> None:
        if self.second is None:
            return
        if self.second not in get_args(Second):
            known = ", ".join(get_args(Second))
            raise StudyError(f"unknown second objective {self.second!r}; known: {known}")
        if self.second == "latency" and self.inputs is None:
            raise StudyError(
                f'study {self.name!r} has second="latency", and names no batch to measure it with; '
                f"add inputs=make_batch, a function that returns what the model is called with"
            )
        if self.pruner is not None and not isinstance(self.pruner, optuna.pruners.NopPruner):
            raise StudyError(
                f"study {self.name!r} names a pruner, and Optuna prunes no study of two "
                f"objectives; leave out pruner or second"
            )
        sampler = self.sampler
        if sampler is not None and not isinstance(sampler, Sampler):
            sampler = sampler(0)
        if isinstance(sampler, optuna.samplers.CmaEsSampler):
            raise StudyError(
                f"study {self.name!r} names CMA-ES, which knows one objective; leave out sampler "
                f"or second"
            )


def derive_seed(seed: int, *parts: int) -> int:
    """A seed for one part of a study, from the study's: every trial gets its own."""
    return int(np.random.SeedSequence([seed, *parts]).generate_state(1)[0])
