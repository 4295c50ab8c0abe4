"""Read studies back from MLflow: the tracking server alone, no Optuna database.

What wwopt wrote is a parent run with a child run a trial. Runs that wwopt did not write are read
too: without a parent run every run of the experiment is a trial, numbered in order of time. The
runs of a study are one search, page by page; artifacts are fetched only when asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wwopt.tracking.keys import (
    KEPT_TAG,
    KIND_TAG,
    OBSERVED_TAG,
    PARENT_TAG,
    PROBE_KIND,
    hide_password,
)
from wwopt.tracking.store import TrackingError, connect, explained, reach
from wwopt.tracking.tracked_trials import TrackedTrial, read_numbers, trial_from_run

Client = Any  # MlflowClient, which is not imported here
PAGE = 1000  # runs or experiments a request; MLflow's own default


@dataclass(frozen=True)
class TrackedStudy:
    """A study as the tracking store tells it."""

    uri: str  # of the tracking store
    experiment_id: str
    run_id: str | None  # of the parent run; None for runs that wwopt did not write
    name: str
    params: Mapping[str, str]  # resolved settings, as MLflow keeps them: text
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    trials: tuple[TrackedTrial, ...]  # in order of their numbers

    @property
    def judged(self) -> tuple[TrackedTrial, ...]:
        """The complete trials with an objective, the lowest first."""
        found = [trial for trial in self.trials if trial.judged]
        return tuple(sorted(found, key=lambda trial: (trial.value, trial.number)))

    @property
    def best(self) -> TrackedTrial | None:
        """The complete trial with the lowest objective that violates no guard; None without any.

        The textbook configuration's where `wwopt tune` kept that one.
        """
        if self.kept is not None:
            return self.kept
        return next((trial for trial in self.judged if not trial.violated), None)

    @property
    def kept(self) -> TrackedTrial | None:
        """The trial of the textbook configuration, if it is kept though others score lower."""
        number = self.tags.get(KEPT_TAG)
        return next((trial for trial in self.judged if str(trial.number) == number), None)

    @property
    def is_observed(self) -> bool:
        """Whether it has an objective of its own, which wwopt only stood beside."""
        return self.tags.get(OBSERVED_TAG) == "true"

    @property
    def second(self) -> str | None:
        """Its second objective, whose metric is `objective/` and this; None in a study of one."""
        second = self.params.get("second", "null")
        return None if second == "null" else second

    def __getitem__(self, number: int) -> TrackedTrial:
        """The trial of that number.

        Raises:
            KeyError: if there is none.
        """
        for trial in self.trials:
            if trial.number == number:
                return trial
        known = ", ".join(str(trial.number) for trial in self.trials[:20])
        more = ", …" if len(self.trials) > 20 else ""
        raise KeyError(f"study {self.name!r} has no trial {number}; it has {known}{more}")


def read_study(uri: str, name: str | None = None, *, run_id: str | None = None) -> TrackedStudy:
    """Read a study and all its trials.

    Args:
        uri: tracking URI, as `sqlite:////absolute/mlflow.db` or `http://host:5000`.
        name: of the study, which is its experiment's; None for the one that was last active.
        run_id: of the study's parent run or of one of its trials, instead of a name.

    Raises:
        TrackingError: if the store cannot be read, or holds no such study.
    """
    reach(uri, exists=True)
    with explained(uri):
        client = connect(uri)
        if run_id is not None:
            run = client.get_run(run_id)
            is_parent = run.data.tags.get(KIND_TAG) == "study"
            parent = run_id if is_parent else run.data.tags.get(PARENT_TAG)
            return _read(client, uri, run.info.experiment_id, parent)
        if name is None:
            experiments = [e.experiment_id for e in _experiments(client)]
        else:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise TrackingError(_unknown(client, uri, name))
            experiments = [experiment.experiment_id]
        latest = _latest_parent(client, experiments)
        if latest is not None:
            return _read(client, uri, latest.info.experiment_id, latest.info.run_id)
        newest = ["attributes.start_time DESC"]
        runs = client.search_runs(experiments, max_results=1, order_by=newest)
        if not runs:
            where = hide_password(uri) if name is None else f"experiment {name!r}"
            raise TrackingError(f"{where} holds no runs; `wwopt tune` makes some")
        return _read(client, uri, runs[0].info.experiment_id, None)


def find_runs(
    uri: str,
    *,
    experiment: str | None = None,
    run_id: str | None = None,
    model_id: str | None = None,
) -> tuple[TrackedTrial, ...]:
    """Find runs by their id, by the id of a logged model, or all of an experiment or study.

    The parent run of a study stands for its trials. Exactly one of the arguments is given.

    Args:
        uri: tracking URI.
        experiment: its name, which is also a study's.
        run_id: of a run.
        model_id: of a logged model (`m-…`); found is the run that made it, with `model_id` set.

    Raises:
        TrackingError: if the store cannot be read, or holds no such run.
    """
    if sum(given is not None for given in (experiment, run_id, model_id)) != 1:
        raise ValueError("find_runs needs exactly one of experiment, run_id and model_id")
    if experiment is not None:
        return read_study(uri, experiment).trials
    reach(uri, exists=True)
    with explained(uri):
        client = connect(uri)
        if model_id is not None:
            model = client.get_logged_model(model_id)
            if model.source_run_id is None:
                return (_trial_from_model(uri, model),)
            run_id = model.source_run_id
        assert run_id is not None
        run = client.get_run(run_id)
        if run.data.tags.get(KIND_TAG) == "study":
            return read_study(uri, run_id=run_id).trials
        return (trial_from_run(uri, run, model_id=model_id),)


def _read(client: Client, uri: str, experiment_id: str, parent: str | None) -> TrackedStudy:
    query = "" if parent is None else f"tags.`{PARENT_TAG}` = '{parent}'"
    runs = search_runs(client, [experiment_id], query)
    runs = [run for run in runs if run.data.tags.get(KIND_TAG) != PROBE_KIND]
    runs.sort(key=lambda run: run.info.start_time or 0)
    trials = [trial_from_run(uri, run, place=place) for place, run in enumerate(runs)]
    trials.sort(key=lambda trial: trial.number)
    study = None if parent is None else client.get_run(parent)
    return TrackedStudy(
        uri=uri,
        experiment_id=experiment_id,
        run_id=parent,
        name=client.get_experiment(experiment_id).name,
        params={} if study is None else dict(study.data.params),
        tags={} if study is None else dict(study.data.tags),
        metrics={} if study is None else read_numbers(study.data.metrics.items()),
        trials=tuple(trials),
    )


def _trial_from_model(uri: str, model: Any) -> TrackedTrial:
    """A logged model that no run made."""
    return TrackedTrial(
        uri=uri,
        run_id="",
        number=0,
        state="COMPLETE",
        status="",
        name=model.name,
        params=dict(model.params or {}),
        metrics=read_numbers((metric.key, metric.value) for metric in model.metrics or []),
        tags=dict(model.tags or {}),
        model_id=model.model_id,
    )


def search_runs(client: Client, experiments: Sequence[str], query: str) -> list[Any]:
    """All runs that a query finds, page by page."""
    found: list[Any] = []
    token: str | None = None
    while token is None or token:
        page = client.search_runs(
            list(experiments), filter_string=query, max_results=PAGE, page_token=token
        )
        found += page
        token = page.token or ""
    return found


def _experiments(client: Client) -> Iterator[Any]:
    token: str | None = None
    while token is None or token:
        page = client.search_experiments(max_results=PAGE, page_token=token)
        yield from page
        token = page.token or ""


def _latest_parent(client: Client, experiments: Sequence[str]) -> Any | None:
    """The parent run that was last active; a resumed study is the latest again."""
    if not experiments:
        return None
    parents = search_runs(client, experiments, f"tags.`{KIND_TAG}` = 'study'")
    return max(parents, key=lambda run: run.info.end_time or run.info.start_time, default=None)


def _unknown(client: Client, uri: str, name: str) -> str:
    names = sorted(e.name for e in _experiments(client) if e.name != "Default")
    listed = ", ".join(names[:20]) + ", …" * (len(names) > 20)
    known = f"its studies are {listed}" if names else "it holds none; `wwopt tune` makes one"
    return f"{hide_password(uri)} has no study {name!r}; {known}"
