"""Score checkpoints as they appear, each against the last that passed and against the history.

    score_arrivals(watcher) -> an iterator of what was found, one pass over what is there

A pass asks MLflow what was scored, so that it can be killed at any moment: a checkpoint counts as
scored when its run there is finished. A checkpoint is complete when it has not changed for a while,
its header agrees with its size, and it is the same after it was read.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wwopt.gate.arrivals import Arrival, list_folder, list_registry, look_at
from wwopt.gate.checks import GateResult, Side, compare_sides, measure_side
from wwopt.gate.history import Drift, PastCheck, find_drift, values_of
from wwopt.gate.logged_checks import describe_check, gate_metrics, model_metrics
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.tracking.addresses import NoWeightsError, fetch_weights
from wwopt.tracking.watches import (
    Watch,
    WatchedCheckpoint,
    chart,
    log_checkpoint,
    log_unreadable,
    read_charted,
    read_document,
    read_table,
    read_watched,
)
from wwopt.weights.files.training_checkpoints import NoChoiceError
from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError
from wwopt.weights.tensor_names import bare_name

MOST_PAST = 100  # checkpoints that drift is judged against, the latest: two years of weeks
MOST_LAYERS = 100  # with a chart of their own


@dataclass(frozen=True)
class Outcome:
    """What became of one checkpoint."""

    arrival: Arrival
    result: GateResult | None = None  # None: not scored
    drifts: tuple[Drift, ...] = ()
    before: str = ""  # the checkpoint that it was compared with; "" for the first
    by_numbers: bool = False  # whether that one's weights are gone, and its numbers were left
    past: int = 0  # checkpoints that drift was judged against
    score: float | None = None  # weights-only, lower is better
    unreadable: str = ""  # why it never will be read
    waiting: str = ""  # why it is left for the next pass

    @property
    def passed(self) -> bool:
        """Whether it was scored, and neither broke nor drifted."""
        return self.result is not None and self.result.passed and not self.drifts


@dataclass
class Watcher:
    """What is watched and how; and what a pass need not ask again."""

    watch: Watch
    folder: Path | None = None  # None: a registered model
    registry: str = ""  # tracking URI of the registry, and
    model: str = ""  # the name of the model in it
    thresholds: Thresholds = field(default_factory=Thresholds)
    layers: Sequence[str] | None = None
    key: str | None = None
    device: str | None = None
    seed: int = 0
    shuffles: int = 3
    quick: bool = False
    quiet: float = 2.0  # seconds without a change, after which a checkpoint is looked at
    patience: float = 60.0  # ... after which one that cannot be read never will be
    last: "tuple[str, Side, ExitStack] | None" = None  # run of the last that passed, as measured
    values: dict[str, Any] = field(default_factory=dict)  # run → what drift is judged by

    def close(self) -> None:
        """Remove the copy of a registered model's weights that is held, if one is."""
        if self.last is not None:
            self.last[2].close()
            self.last = None


def score_arrivals(watcher: Watcher) -> Iterator[Outcome]:
    """Score what has arrived since the last pass, one after another, oldest first.

    Raises:
        TrackingError: if MLflow cannot be used; the next pass finds what is left.
        OSError: if the folder cannot be read.
    """
    watched = read_watched(watcher.watch)
    _chart_last(watcher, watched)
    known = {checkpoint.identity for checkpoint in watched}
    for arrival in _list(watcher):
        if arrival.identity in known:
            continue
        if arrival.age < watcher.quiet:
            yield Outcome(arrival, waiting=f"changed {arrival.age:.0f} s ago")
            continue
        outcome, scored = _deal_with(watcher, arrival, watched)
        if scored is not None:
            watched.append(scored)
        yield outcome


def _list(watcher: Watcher) -> list[Arrival]:
    if watcher.folder is not None:
        return list_folder(watcher.folder)
    return list_registry(watcher.registry, watcher.model)


def _deal_with(
    watcher: Watcher, arrival: Arrival, watched: Sequence[WatchedCheckpoint]
) -> tuple[Outcome, WatchedCheckpoint | None]:
    held = ExitStack()  # a copy of a registered model's weights, while it is compared with
    try:
        try:
            side = _measure(watcher, arrival.place, held)
            outcome = _judge(watcher, arrival, side, watched)
        except (WeightsError, NoWeightsError) as error:
            return _unreadable(watcher, arrival, str(error)), None
        if not _is_still(watcher, arrival):
            return Outcome(arrival, waiting="it changed while it was read"), None
        scored = _log(watcher, outcome, watched)
        if scored.passed:
            watcher.close()
            watcher.last = scored.run_id, side, held.pop_all()
        return outcome, scored
    finally:
        held.close()


def _measure(watcher: Watcher, place: str, held: ExitStack) -> Side:
    if watcher.folder is None:
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="wwopt-"))
        place = str(fetch_weights(watcher.registry, place, folder))
    try:
        weights = read_weights(place, layers=watcher.layers, key=watcher.key)
    except NoChoiceError:  # a model alone has no keys
        weights = read_weights(place, layers=watcher.layers)
    return measure_side(
        weights,
        seed=watcher.seed,
        shuffles=watcher.shuffles,
        device=watcher.device,
        quick=watcher.quick,
    )


def _judge(
    watcher: Watcher, arrival: Arrival, side: Side, watched: Sequence[WatchedCheckpoint]
) -> Outcome:
    """Compare with the last that passed; the first with itself, which finds what is not finite."""
    passed = [checkpoint for checkpoint in watched if checkpoint.scored and checkpoint.passed]
    before = _recall(watcher, passed[-1]) if passed else side
    try:
        result = compare_sides(before, side, watcher.thresholds, device=watcher.device)
    except WeightsError:  # the last one's weights, if it is not this one's: removed just now
        before = replace(before, weights=None)
        result = compare_sides(before, side, watcher.thresholds, device=watcher.device)
    past = _recall_past(watcher, passed)
    return Outcome(
        arrival,
        result=result,
        drifts=tuple(find_drift(result, past)),
        before=passed[-1].name if passed else "",
        by_numbers=before.weights is None,
        past=len(past),
        score=model_metrics(side.metrics).get("objective/value"),
    )


def _recall(watcher: Watcher, checkpoint: WatchedCheckpoint) -> Side:
    """The last that passed: as measured, or measured again, or from its table if it is gone."""
    if watcher.last is None or watcher.last[0] != checkpoint.run_id:
        held = ExitStack()
        try:
            side = _measure_again(watcher, checkpoint, held)
        except BaseException:
            held.close()
            raise
        watcher.close()
        watcher.last = checkpoint.run_id, side, held
    side = watcher.last[1]
    if watcher.folder is not None and not _is_there(watcher.folder, checkpoint):
        side = replace(side, weights=None)  # written over or removed: its numbers are left
    return side


def _measure_again(watcher: Watcher, checkpoint: WatchedCheckpoint, held: ExitStack) -> Side:
    try:
        if watcher.folder is None:
            return _measure(watcher, f"models:/{checkpoint.name}", held)
        if _is_there(watcher.folder, checkpoint):
            return _measure(watcher, str(watcher.folder / checkpoint.name), held)
    except (WeightsError, NoWeightsError):
        held.close()
    return Side(ModelMetrics.from_frame(read_table(watcher.watch, checkpoint)))


def _is_there(folder: Path, checkpoint: WatchedCheckpoint) -> bool:
    found = look_at(folder / checkpoint.name)
    return found is not None and found.identity == checkpoint.identity


def _is_still(watcher: Watcher, arrival: Arrival) -> bool:
    """Whether it is, after it was read, what it was before."""
    if watcher.folder is None:
        return True  # a version does not change
    found = look_at(Path(arrival.place))
    return found is not None and found.identity == arrival.identity


def _recall_past(watcher: Watcher, passed: Sequence[WatchedCheckpoint]) -> list[PastCheck]:
    found = []
    for checkpoint in passed[-MOST_PAST:]:
        if checkpoint.run_id not in watcher.values:
            document = read_document(watcher.watch, checkpoint)
            watcher.values[checkpoint.run_id] = document.get("values")
        values = watcher.values[checkpoint.run_id]
        if values is not None:  # None: the first, which was compared with nothing
            found.append(PastCheck("", True, values))
    return found


def _log(
    watcher: Watcher, outcome: Outcome, watched: Sequence[WatchedCheckpoint]
) -> WatchedCheckpoint:
    """Log a checkpoint; from its run's end on it counts as scored, and then it is charted."""
    assert outcome.result is not None
    arrival = outcome.arrival
    check = describe_check(
        outcome.result, outcome.drifts, before=outcome.before, after=arrival.name
    )
    values = (
        {bare_name(x.name): values_of(x) for x in outcome.result.layers} if outcome.before else None
    )
    charted = _values_over_time(outcome.result, outcome.drifts)
    document = {**check.document, "values": values, "charted": charted, "time": arrival.time}
    check = replace(check, name=arrival.name, document=document)
    step = sum(checkpoint.scored for checkpoint in watched)
    run_id = log_checkpoint(watcher.watch, check, identity=arrival.identity, step=step)
    watcher.values[run_id] = values
    chart(watcher.watch, charted, step=step, time=int(arrival.time * 1000))
    return WatchedCheckpoint(run_id, arrival.name, arrival.identity, step, outcome.passed)


def _chart_last(watcher: Watcher, watched: Sequence[WatchedCheckpoint]) -> None:
    """Chart the last checkpoint, if its watcher died between its run's end and that."""
    scored = [checkpoint for checkpoint in watched if checkpoint.scored]
    if scored and scored[-1].step not in read_charted(watcher.watch):
        document = read_document(watcher.watch, scored[-1])
        at = int(document["time"] * 1000)
        chart(watcher.watch, document["charted"], step=scored[-1].step, time=at)


def _values_over_time(result: GateResult, drifts: Sequence[Drift]) -> dict[str, float]:
    metrics = result.metrics
    hills = {f"layer_hill/{layer.name}": layer.hill for layer in metrics.layers[:MOST_LAYERS]}
    finite = {name: value for name, value in hills.items() if value - value == 0.0}
    return gate_metrics(result, drifts) | model_metrics(metrics) | finite


def _unreadable(watcher: Watcher, arrival: Arrival, reason: str) -> Outcome:
    if arrival.age < watcher.patience and watcher.folder is not None:
        return Outcome(arrival, waiting=f"not complete yet? {reason}")
    if not _is_still(watcher, arrival):
        return Outcome(arrival, waiting="it changed while it was read")
    log_unreadable(watcher.watch, arrival.name, identity=arrival.identity, reason=reason)
    return Outcome(arrival, unreadable=reason)


def wait_for_quiet(outcomes: Sequence[Outcome], quiet: float) -> bool:
    """Sleep until what was too young may be looked at; whether there was anything to wait for."""
    ages = [outcome.arrival.age for outcome in outcomes if outcome.waiting]
    young = [age for age in ages if age < quiet]
    if young:
        time.sleep(max(quiet - min(young), 0.0) + 0.01)
    return bool(young)
