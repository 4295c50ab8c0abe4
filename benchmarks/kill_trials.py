"""What is lost when a study is killed, again and again, at random moments?

    python benchmarks/kill_trials.py --kills 100              # 8 minutes
    python benchmarks/kill_trials.py --kills 20 --jobs 2

A study of small MLPs is started by `wwopt tune` in a process group of its own, gets SIGKILL after a
random time, and is started again, until it has been killed that often; then it may finish. Counted
is what must not be: trials that were finished and are not any more, places of the study that are
filled twice or not at all, runs in MLflow that stand for no finished trial, anything left running.
One after another (`--jobs 1`) every trial must also have the value that it has in a study that was
never killed. Exit status 1 if anything of this is the case.
"""

import argparse
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

import wwopt
from wwopt.cli import main
from wwopt.study.tries import INTERRUPTED_ATTR, place_of
from wwopt.tracking.keys import KIND_TAG, STATE_TAG, TRIAL_TAG
from wwopt.tuning.claims.places import list_filled

STUDY = """
import torch
from torch import nn
import wwopt

torch.set_num_threads(1)

def make():
    return nn.Sequential(nn.Linear(64, 80), nn.ReLU(), nn.Dropout(), nn.Linear(80, 10))

def train(hp, conditions, recorder):
    model = hp.apply_dropout(make())
    optimizer = hp.optimizer(model, torch.optim.SGD)
    for _ in range(conditions.epochs):
        x = torch.randn(32, 64)
        loss = (model(x) - x[:, :10]).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        recorder.step(model, train_loss=loss.item())

study = wwopt.StudySpec(
    "killed", train,
    wwopt.LayerSpace.from_model(make(), lr=(.01, 1.), dropout=(0., .5), momentum=(0., .9)),
    conditions=wwopt.Conditions(seed=0, epochs=4),
    sampler=lambda seed: __import__("optuna").samplers.TPESampler(seed=seed),
)
"""


def start(folder: Path, trials: int, jobs: int) -> int:
    """Start `wwopt tune` in a process group of its own; libraries are imported already."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    with (folder / "log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    status = 1
    try:
        command = ["tune", str(folder / "killed.py"), "--out", str(folder / "out"), "--no-explain"]
        main([*command, "--trials", str(trials), "--jobs", str(jobs)], standalone_mode=False)
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        os._exit(status)


def end(pid: int) -> None:
    """Kill a group of processes at once."""
    for group in (os.killpg, os.kill):
        try:
            group(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    os.waitpid(pid, 0)


def is_running(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG) == (0, 0)


def read_trials(folder: Path) -> list[FrozenTrial]:
    url = f"sqlite:///{folder / 'out' / 'optuna.db'}"
    try:
        return optuna.load_study(study_name="killed", storage=url).trials
    except (KeyError, optuna.exceptions.StorageInternalError):
        return []  # killed before there was one


def finished_of(trials: list[FrozenTrial]) -> dict[int, tuple[str, float | None]]:
    return {
        t.number: (t.state.name, t.value)
        for t in trials
        if t.state.is_finished() and INTERRUPTED_ATTR not in t.user_attrs
    }


def read_runs(database: Path) -> list[tuple[str, dict[str, str]]]:
    """Status and tags of every run of the study in MLflow, as its database has them."""
    with closing(sqlite3.connect(database)) as opened:
        tags: dict[str, dict[str, str]] = {}
        for run, key, value in opened.execute("select run_uuid, key, value from tags"):
            tags.setdefault(run, {})[key] = value
        listed = opened.execute("select run_uuid, status from runs where lifecycle_stage='active'")
        return [(status, tags.get(run, {})) for run, status in listed]


def find_faults(
    all_trials: list[FrozenTrial],
    runs: list[tuple[str, dict[str, str]]],
    trials: int,
    seen: dict[int, tuple[str, float | None]],
) -> Counter:
    """What is not as it must be, by name.

    Args:
        all_trials: of the study.
        runs: of the study in MLflow: status, tags.
        trials: that the study shall have.
        seen: those that were known to be finished while it ran.
    """
    found: Counter = Counter()
    filled = list_filled(all_trials)
    ended = [t for t in all_trials if t.number in finished_of(all_trials)]
    per_place = Counter(place_of(t) for t in ended)
    found["lost trials"] = sum(finished_of(all_trials).get(n) != how for n, how in seen.items())
    found["places filled twice"] = sum(count > 1 for count in per_place.values())
    found["places not filled"] = sum(
        p not in filled or not filled[p].state.is_finished() for p in range(trials)
    )
    found["too many trials"] = max(0, len(per_place) - trials)
    found["trials left running"] = sum(t.state == TrialState.RUNNING for t in all_trials)
    found["runs left running"] = sum(status == "RUNNING" for status, _ in runs)
    good = Counter(
        tags[TRIAL_TAG] for _, tags in runs if tags.get(STATE_TAG) in ("COMPLETE", "PRUNED")
    )
    wanted = {str(t.number) for t in ended if t.state != TrialState.FAIL}
    found["runs of no finished trial"] = len(set(good) - wanted)
    found["finished trials without a run"] = len(wanted - set(good))
    found["trials with two runs"] = sum(count > 1 for count in good.values())
    found["parent runs but one"] = abs(sum(tags.get(KIND_TAG) == "study" for _, tags in runs) - 1)
    return found


def run(kills: int, *, jobs: int, longest: float, seed: int, folder: Path) -> bool:
    """Kill and resume; whether nothing was lost."""
    (folder / "killed.py").write_text(STUDY)
    moments = random.Random(seed)
    seen: dict[int, tuple[str, float | None]] = {}
    began, killed, trials, states = time.monotonic(), 0, 10, Counter()
    while killed < kills:
        if killed == 3 and not seen:  # so far it died while the tables were made
            os.waitpid(start(folder, 1, 1), 0)
        pid = start(folder, trials, jobs)
        time.sleep(moments.uniform(0.0, longest))
        if not is_running(pid):
            trials += 10  # it was done: it shall have more
            continue
        end(pid)
        killed += 1
        known = read_trials(folder)
        states[
            "in a trial" if any(t.state == TrialState.RUNNING for t in known) else "between"
        ] += 1
        seen |= finished_of(known)
    pid = start(folder, trials, jobs)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    runs = read_runs(folder / "out" / "mlflow.db")
    faults = find_faults(read_trials(folder), runs, trials, seen)
    tried = [t for t in read_trials(folder) if INTERRUPTED_ATTR in t.user_attrs]
    print(f"{killed} kills in {time.monotonic() - began:.0f} s ({dict(states)}), {jobs} workers")
    places = list_filled(read_trials(folder))
    given_up = [p for p, t in places.items() if INTERRUPTED_ATTR in t.user_attrs]
    print(f"{len(given_up)} places given up, having been killed three times: {given_up}")
    print(f"{trials} trials, {len(tried)} interrupted and tried again; exit status {status}")
    for name, count in faults.items():
        print(f"{count:6d} {name}")
    same = True
    if jobs == 1:
        whole = folder / "whole"
        whole.mkdir()
        (whole / "killed.py").write_text(STUDY)
        os.waitpid(start(whole, trials, 1), 0)
        ours = {p: t.values for p, t in list_filled(read_trials(folder)).items()}
        theirs = {p: t.values for p, t in list_filled(read_trials(whole)).items()}
        # A place that was killed three times counts as failed, and what comes after it differs.
        up_to = min(given_up, default=trials)
        different = sum(ours.get(p) != values for p, values in theirs.items() if p < up_to)
        print(
            f"{different:6d} of {up_to} values differ from those of a study that was never killed"
        )
        same = different == 0
    return same and status == 0 and not any(faults.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--longest", type=float, default=8.0, help="seconds until a kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "killed.py").write_text(STUDY)
        # What is imported late is imported here once, and not after each kill.
        wwopt.tune(f"{place}/killed.py", trials=1, out=place, progress=False, explain=False)
    with tempfile.TemporaryDirectory() as place:
        fine = run(
            given.kills,
            jobs=given.jobs,
            longest=given.longest,
            seed=given.seed,
            folder=Path(place),
        )
    sys.exit(0 if fine else 1)
