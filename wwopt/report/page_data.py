"""What a report of a study is made of, read once: exemplary trials, their spectra, the layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wwopt.report.agreement import measure_agreement, tell_agreement
from wwopt.report.cautions import warn_about
from wwopt.report.compressed_variants import Front, read_front
from wwopt.report.importance import Importance, explain_importance
from wwopt.report.other_choices import Choice, choose_by_scores
from wwopt.report.spectrum_curves import thin
from wwopt.tracking.artifacts import read_layer_table, read_settings, read_spectra
from wwopt.tracking.keys import LAYER_ALPHA, OWN, unique_keys
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial
from wwopt.tracking.validation_metrics import Metric, find_validation_metrics, read_metric


@dataclass(frozen=True)
class Exemplar:
    """A trial that stands for others: the best, the median or the worst one."""

    role: str
    trial: TrackedTrial
    table: pd.DataFrame | None  # of its layers
    spectra: dict[str, NDArray[np.float32]] | None  # layer → (2, k): eigenvalues, shares above


@dataclass(frozen=True)
class Layer:
    """A layer's own name, and the one that it has in MLflow's keys."""

    name: str
    key: str


@dataclass(frozen=True)
class ReportData:
    """A study with everything that its report says."""

    study: TrackedStudy
    exemplars: tuple[Exemplar, ...]  # best, median, worst; fewer where there are fewer trials
    layers: tuple[Layer, ...]  # in the order of the network
    importance: Importance
    choices: tuple[Choice, ...]
    metrics: tuple[Metric, ...]  # of validation
    warnings: tuple[str, ...]
    front: Front | None = None  # of compressed networks; None where nothing was compressed
    agreement: tuple[str, ...] = ()  # of each score with an observed study's own objective

    @property
    def best(self) -> Exemplar | None:
        """The best trial; None without any."""
        return self.exemplars[0] if self.exemplars else None


def gather(study: TrackedStudy, *, seed: int = 0) -> ReportData:
    """Read what the report needs beyond the runs themselves: artifacts of three trials.

    Args:
        study: tracked in MLflow.
        seed: of the resampling behind intervals.
    """
    exemplars = tuple(
        Exemplar(role, trial, read_layer_table(trial), _read_curves(trial))
        for role, trial in _choose_exemplars(study)
    )
    layers = _list_layers(study, [e.table for e in exemplars if e.table is not None])
    importance = explain_importance(study, seed=seed)
    settings = read_settings(study)
    stated = read_metric(settings)
    choices = choose_by_scores(study, stated=stated)
    table = exemplars[0].table if exemplars else None
    warnings = warn_about(study, table, importance=importance, choices=choices, settings=settings)
    metrics = find_validation_metrics(study.judged, stated=stated)
    own = next((metric for metric in metrics if metric.name == OWN), None)
    agreement: tuple[str, ...] = ()
    if study.is_observed and own is not None:
        agreement = tell_agreement(measure_agreement(study, metric=own, seed=seed))
    return ReportData(
        study,
        exemplars,
        layers,
        importance,
        choices,
        metrics,
        tuple(warnings),
        read_front(study),
        agreement,
    )


def _read_curves(trial: TrackedTrial) -> dict[str, NDArray[np.float32]] | None:
    curves = read_spectra(trial)
    return None if curves is None else {name: thin(curve) for name, curve in curves.items()}


def _choose_exemplars(study: TrackedStudy) -> list[tuple[str, TrackedTrial]]:
    judged = study.judged
    best = study.best or (judged[0] if judged else None)
    if best is None:
        return []
    chosen = [("best", best)]
    others = [trial for trial in judged if trial is not best]
    if len(others) >= 2:
        chosen.append(("median", others[(len(others) - 1) // 2]))
    if others:
        chosen.append(("worst", others[-1]))
    return chosen


def _list_layers(study: TrackedStudy, tables: Sequence[pd.DataFrame]) -> tuple[Layer, ...]:
    """Layers in the order of the first table, then those that only other trials have."""
    names: dict[str, str] = {}  # key → name
    prefix = f"{LAYER_ALPHA}/"
    for table in tables:
        own = [str(name) for name in table["longname"]]
        for key, name in zip(unique_keys(prefix + n for n in own), own, strict=True):
            names.setdefault(key.removeprefix(prefix), name)
    for trial in study.trials:
        for key in trial.metrics:
            if key.startswith(prefix):
                names.setdefault(key.removeprefix(prefix), key.removeprefix(prefix))
    return tuple(Layer(name, key) for key, name in names.items())
