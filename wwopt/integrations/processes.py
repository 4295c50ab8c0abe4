"""Several processes a trial, under torchrun: one of them studies, all of them train.

Rank 0 alone has the study, in Optuna and in MLflow: it asks, analyses and prunes. What it decides
goes to the others over a group of its own (gloo, with four hours of patience), so that an analysis
may take longer than the timeout of the training's group. In `recorder.step` the processes meet:
each says what it comes for, so that one that has failed is known to all before anybody waits for
it. Then the others listen, and gather with rank 0 the tensors that it asks for, one at a time.

One that fails while others wait for it in a collective of the training cannot be met. It waits for
them for `GRACE` seconds and then ends its process: the others lose their connection, and torchrun
ends them. The trial is tried again by the next command.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial, wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import optuna
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wwopt.study.advice import Advice
from wwopt.study.conditions import Conditions
from wwopt.study.references import load_study
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters
from wwopt.study.spec import StudySpec
from wwopt.study.trial.recorder import Recorder
from wwopt.study.trial.recording import record
from wwopt.study.tries import LostProcess
from wwopt.weights.sharded_modules import (
    ShardedModule,
    gather_on_first,
    is_shard,
    is_sharded,
    named_tensors,
)
from wwopt.wording import first_line

PATIENCE = timedelta(hours=4)  # for one analysis, and for the slowest process between two steps
GRACE = float(  # seconds in which a process that failed waits for the others
    os.environ.get("WWOPT_GRACE_SECONDS", "30")
)

Value = TypeVar("Value")


class PeerError(RuntimeError):
    """Another process of this training failed; the message says which, and how."""


@dataclass(frozen=True)
class Word:
    """What a process comes for when all meet."""

    kind: str  # "step", "end" or "raised"
    what: str = ""  # its number, or the error


class Ranks:
    """The processes of one training, as one of them sees them."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.model: nn.Module | None = None  # whose tensors are gathered
        self._lock = threading.Lock()  # layers may be read by several threads

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which has the study."""
        return self.rank == 0

    def send(self, message: tuple[Any, ...]) -> None:
        """From rank 0 to all that listen."""
        with _connected():
            dist.broadcast_object_list([message], src=0, group=self.group)

    def listen(self) -> tuple[Any, ...]:
        """What rank 0 sends; what it asks to be gathered until then is gathered."""
        while True:
            heard: list[Any] = [None]
            with _connected():
                dist.broadcast_object_list(heard, src=0, group=self.group)
            message: tuple[Any, ...] = heard[0]
            if message[0] != "gather":
                return message
            self._whole(message[1])

    def gather(self, name: str) -> torch.Tensor:
        """The whole of a tensor, on rank 0, while the others listen."""
        with self._lock:
            self.send(("gather", name))
            return self._whole(name)

    def _whole(self, name: str) -> torch.Tensor:
        assert self.model is not None
        tensor = named_tensors(self.model)[name].detach()
        with _connected():
            return gather_on_first(tensor) if is_shard(tensor) else tensor

    def show(self, model: nn.Module) -> nn.Module:
        """A model as rank 0 analyses it: unwrapped, and gathered where it is sharded."""
        while isinstance(model, DistributedDataParallel):
            model = model.module
        self.model = model
        return ShardedModule(model, self.gather) if self.leads and is_sharded(model) else model

    def meet(self, word: Word) -> None:
        """Say what this process comes for, and hear it of the others.

        Raises:
            PeerError: if one of them failed, or they do not come for the same.
            LostProcess: if one of them has died.
        """
        words: list[Any] = [None] * self.size
        with _connected():
            dist.all_gather_object(words, word, group=self.group)
        failed = [(i, w.what) for i, w in enumerate(words) if w.kind == "raised"]
        if failed and word.kind != "raised":
            rank, what = failed[0]
            raise PeerError(f"rank {rank} raised {what}")
        if not failed and len(set(words)) > 1:
            told = ", ".join(f"rank {i} at {w.kind} {w.what}".strip() for i, w in enumerate(words))
            raise PeerError(f"the processes came apart: {told}; all must call step equally often")

    def say_raised(self, error: BaseException) -> None:
        """Tell the others that this process failed, before they wait for it.

        Raises:
            LostProcess: if one of them has died, which may be what failed here.
        """
        reason = first_line(error, named=True)
        timer = threading.Timer(GRACE, self._give_up, [reason])
        timer.daemon = True
        timer.start()
        try:
            self.meet(Word("raised", reason))
        finally:
            timer.cancel()

    def _give_up(self, reason: str) -> None:
        print(
            f"wwopt: rank {self.rank} raised {reason}, and the others wait for it elsewhere: its "
            f"process ends",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


@contextmanager
def _connected() -> Iterator[None]:
    """What a collective raises when another process has died, by its name."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcess("another process of this training has died") from error


class SharedRecorder:
    """What each process calls in place of a recorder; a `StepRecorder`. Rank 0 has the real one."""

    def __init__(self, ranks: Ranks, recorder: Recorder | None) -> None:
        self.ranks, self.recorder = ranks, recorder
        self._steps = 0
        self._known = False  # whether all processes know why it ends

    def step(
        self,
        model: nn.Module,
        *,
        train_loss: float | None = None,
        step: int | None = None,
        **metrics: float,
    ) -> Advice:
        """As `wwopt.Recorder.step`, on all processes at once; the loss and metrics are rank 0's.

        Raises:
            optuna.TrialPruned: on all processes, if rank 0 prunes.
            PeerError: if another process failed; of rank 0's own errors it names the reason.
        """
        self._steps += 1
        shown = self.ranks.show(model)
        with self._shared():
            self.ranks.meet(Word("step", str(self._steps)))
            if self.recorder is None:
                return _take(self.ranks.listen())
            work = partial(self.recorder.step, shown, train_loss=train_loss, step=step, **metrics)
            return _lead(self.ranks, work)

    def expect(self, steps: int) -> None:
        """As `wwopt.Recorder.expect`: the callbacks of frameworks say it, on each process alike."""
        if self.recorder is not None:
            self.recorder.expect(steps)

    def go_back(self, step: int) -> None:
        """As `wwopt.Recorder.go_back`, on each process alike."""
        if self.recorder is not None:
            self.recorder.go_back(step)

    def end(self) -> None:
        """Meet at the end of training."""
        with self._shared():
            self.ranks.meet(Word("end"))

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """What is raised inside is raised everywhere."""
        try:
            yield
        except BaseException:
            self._known = True
            raise

    def say(self, error: BaseException) -> None:
        """Tell the others of an error of this process's own."""
        if not self._known:
            self.ranks.say_raised(error)


def _lead(ranks: Ranks, work: Callable[[], Advice]) -> Advice:
    """Do rank 0's part while the others listen, and tell them how it ended."""
    try:
        advice = work()
    except optuna.TrialPruned as pruned:
        ranks.send(("pruned", str(pruned)))
        raise
    except BaseException as error:
        with suppress(LostProcess):
            ranks.send(("raised", first_line(error, named=True)))
        raise
    # The spectra stay here; what a training acts upon goes to all.
    ranks.send(("advice", replace(advice, metrics=None)))
    return advice


def _take(message: tuple[Any, ...]) -> Advice:
    kind, what = message
    if kind == "pruned":
        raise optuna.TrialPruned(what)
    if kind == "raised":
        raise PeerError(f"rank 0 raised {what}")
    advice: Advice = what
    return advice


_known: "WeakKeyDictionary[dist.ProcessGroup, Ranks]" = WeakKeyDictionary()


def join_ranks() -> Ranks:
    """The processes of the default group; all of them call it, the first time together.

    Raises:
        RuntimeError: if there is none.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "there is no process group: call torch.distributed.init_process_group() first, in a "
            "script that torchrun starts"
        )
    default = dist.group.WORLD
    assert default is not None
    if default not in _known:
        _known[default] = Ranks(dist.new_group(backend="gloo", timeout=PATIENCE))
    return _known[default]


def from_rank_0(function: Callable[[], Value]) -> Value:
    """Call a function on rank 0 alone; its result, or its error, on all processes.

    As in `hp = from_rank_0(lambda: space.suggest(trial))`. What it returns must pickle.

    Raises:
        PeerError: on the other processes, if it raises; as `optuna.TrialPruned` if it raises that.
    """
    ranks = join_ranks()
    if not ranks.leads:
        return _take(ranks.listen())  # type: ignore[return-value]
    try:
        value = function()
    except optuna.TrialPruned as pruned:
        ranks.send(("pruned", str(pruned)))
        raise
    except BaseException as error:
        ranks.send(("raised", first_line(error, named=True)))
        raise
    ranks.send(("value", value))
    return value


@contextmanager
def record_together(
    trial: optuna.trial.BaseTrial | None, **options: Any
) -> Iterator[SharedRecorder]:
    """As `wwopt.record`, on all processes at once.

    Args:
        trial: Optuna's, on rank 0; anywhere else it is not looked at.
        options: of `wwopt.record`.

    Raises:
        optuna.TrialPruned: on all processes, if the trial was pruned or is broken.
        PeerError: if another process failed.
    """
    ranks = join_ranks()
    with ExitStack() as stack:
        real: list[Recorder] = []
        if ranks.leads:
            opened = record(trial, **options)
            from_rank_0(lambda: real.append(stack.enter_context(opened)))
        else:
            from_rank_0(lambda: None)
        yield from _train(ranks, real[0] if real else None)
        # The recorder judges the last network now, for which it may gather.
        if not ranks.leads:
            _take(ranks.listen())
            return
        _lead(ranks, lambda: _close(stack))


def _close(stack: ExitStack) -> Advice:
    stack.close()
    return Advice()


def _train(ranks: Ranks, recorder: Recorder | None) -> Iterator[SharedRecorder]:
    shared = SharedRecorder(ranks, recorder)
    try:
        yield shared
        shared.end()
    except BaseException as error:
        shared.say(error)
        raise


_training = contextmanager(_train)


def run_together(run: Callable[..., Value], study: StudySpec | str, **options: Any) -> Value | None:
    """Run a study with all processes of torchrun in each of its trainings.

    As in `run_together(wwopt.tune, study, trials=20)`. The study's `train` runs on all of them,
    with the same hyperparameters and the same seed; its `recorder.step` is to be called by all,
    equally often.

    Args:
        run: what rank 0 does with the study: `wwopt.tune`.
        study: the study, or a reference to it.
        options: of `run`; workers of its own (`jobs`, `dask`) are not for this.

    Returns:
        What `run` returns, on rank 0; None on the others.

    Raises:
        PeerError: on the other processes, if rank 0 cannot go on.
    """
    for name in ("jobs", "dask"):
        if options.pop(name, None) not in (None, 1):
            raise ValueError(f"{name} is not for a study whose trials take all processes")
    ranks = join_ranks()
    spec = load_study(study) if isinstance(study, str) else study
    if not ranks.leads:
        _follow(ranks, spec)
        return None

    @wraps(spec.train)
    def lead(hp: LayerHyperparameters, conditions: Conditions, recorder: Any) -> None:
        ranks.send(("train", (hp, conditions)))
        with _training(ranks, recorder) as shared:
            spec.train(hp, conditions, shared)

    try:
        result = run(replace(spec, train=lead), **options)
    except BaseException as error:
        with suppress(LostProcess):
            ranks.send(("raised", first_line(error, named=True)))
        raise
    ranks.send(("over", None))
    return result


def _follow(ranks: Ranks, spec: StudySpec) -> None:
    """Train whatever rank 0 asks for, until the study is over."""
    while True:
        kind, what = ranks.listen()
        if kind == "over":
            return
        if kind != "train":
            _take((kind, what))
            continue
        hp, conditions = what
        # How the trial ends is rank 0's to say, which knows of each error by now.
        with suppress(optuna.TrialPruned, Exception), torch.random.fork_rng():
            torch.manual_seed(conditions.seed)
            with _training(ranks, None) as shared:
                spec.train(hp, conditions, shared)
