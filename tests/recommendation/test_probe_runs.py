"""Probes in a real tracking store: apart from the trials, resumed, of one configuration only.

What is read back of them is what `probe_records` wrote.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from mlflow import MlflowClient
from torch import nn

import wwopt
from wwopt.cli import main
from wwopt.recommendation.probe_plans import Budget
from wwopt.recommendation.probe_records import digest, find_probes
from wwopt.recommendation.probe_runs import _Spent, read_configuration, run_probes
from wwopt.recommendation.probes import Probe, ProbeResult
from wwopt.report.leaderboard import make_leaderboard
from wwopt.report.page import render_report
from wwopt.study.references import load_study
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters
from wwopt.tracking.tracked_studies import find_runs

RATES = (1 / 3, 1.0, 3.0)
Train = Callable[[LayerHyperparameters, wwopt.Conditions, Any], None]
SPACE = wwopt.LayerSpace.from_model(
    nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)),
    lr=(0.01, 1.0),
    dropout=None,
    momentum=(0.1, 0.9),
    tie="layer",
    batch_size=(16, 64),
)


def train(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
    """A network of chance whose error falls with the data; its rate is best where it is."""
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    error = 0.05 + 0.1 * conditions.fraction**-0.5 + 0.001 * float(torch.rand(()))
    error += 0.1 * abs(math.log(hp.lr["0"] / 0.1))
    recorder.step(network, train_loss=0.1, error=error)


def make_spec(training: Train = train, *, name: str = "plain", **options: Any) -> wwopt.StudySpec:
    given = {"space": SPACE, "conditions": wwopt.Conditions(seed=0, epochs=1)} | options
    return wwopt.StudySpec(name, training, metric="error", **given)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    tune(make_spec(), folder, trials=4)
    return folder


def tune(spec: wwopt.StudySpec, out: Path, *, trials: int) -> wwopt.TrackedStudy:
    """Tune, and read back; all studies share one store, which takes 10 s to make."""
    wwopt.tune(spec, trials=trials, out=out, progress=False, explain=False, max_weights=0)
    return wwopt.read_study(f"sqlite:///{out / 'mlflow.db'}", spec.name)


@pytest.fixture
def study(out: Path) -> wwopt.TrackedStudy:
    return wwopt.read_study(f"sqlite:///{out / 'mlflow.db'}", "plain")


def error_of(result: ProbeResult) -> float:
    return result.metrics["error"] if result.status == "ok" else math.inf


def probe(
    study: wwopt.TrackedStudy,
    number: int,
    *,
    spec: wwopt.StudySpec | None = None,
    shares: tuple[float, ...] = (1.0,),
    loss: Callable[[ProbeResult], float] = lambda result: abs(math.log(result.probe.lr_factor)),
    **options: Any,
) -> dict[Probe, ProbeResult]:
    """Run the configuration on these shares of the data, at each rate; the middle rate is best."""
    planned = [Probe("data", share, rate) for share in shares for rate in RATES]
    options = {"progress": False} | options
    return run_probes(spec or make_spec(), study, study[number], planned, loss, **options)


def test_the_configuration_is_the_trials_own(study: wwopt.TrackedStudy) -> None:
    hp = read_configuration(make_spec(), study[1])
    params = study[1].params
    assert hp.lr == {"0": float(params["lr/0"]), "1": float(params["lr/1"])}
    assert hp.momentum == {layer: float(params[f"momentum/{layer}"]) for layer in ("0", "1")}
    assert hp.batch_size == int(params["batch_size"]) and hp.width is None
    assert digest(study[0]) != digest(study[1]) == digest(study[1])


def test_a_configuration_of_another_space_is_refused(study: wwopt.TrackedStudy) -> None:
    other = wwopt.LayerSpace.from_model(
        nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)),
        lr=(0.01, 1.0),
        dropout=None,
        momentum=None,
    )
    with pytest.raises(wwopt.StudyError, match="trial 1 has no lr/2: it was not made by study"):
        read_configuration(make_spec(space=other), study[1])


def test_probes_are_runs_of_their_own_and_no_trials(study: wwopt.TrackedStudy) -> None:
    before = make_leaderboard(study)
    page = render_report(study)
    results = probe(study, 0, shares=(0.5, 1.0))
    assert len(results) == 2 * len(RATES)
    again = wwopt.read_study(study.uri, "plain")
    assert again == study  # no trial more, no tag or number changed
    assert make_leaderboard(again).equals(before)
    assert render_report(again) == page
    assert find_runs(study.uri, experiment=study.name) == study.trials
    client = MlflowClient(study.uri)
    query = f"tags.`wwopt.kind` = 'probe' and tags.`mlflow.parentRunId` = '{study.run_id}'"
    runs = client.search_runs([study.experiment_id], query)
    assert {run.info.run_name for run in runs} == {p.name for p in results}
    for run in runs:
        assert run.info.status == "FINISHED"
        assert {"metrics/error", "train/loss", "probe/score"} <= set(run.data.metrics)
        assert run.data.params["probe/trial"] == "0"
        assert run.info.end_time >= run.info.start_time


def test_the_command_compare_shows_trials_only(study: wwopt.TrackedStudy, out: Path) -> None:
    probe(study, 0)
    result = CliRunner().invoke(main, ["compare", "plain", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.output)["leaderboard"]
    assert sorted(row["trial"] for row in rows) == [0, 1, 2, 3]


def test_what_is_read_back_is_what_was_found(study: wwopt.TrackedStudy) -> None:
    results = probe(study, 0, shares=(0.5, 1.0))
    found = find_probes(study, study[0])
    assert set(found) == set(results)
    for key, result in results.items():
        assert found[key].metrics == result.metrics and found[key].score == result.score
        assert found[key].status == "ok"
        for layer, signs in result.layers.items():
            assert found[key].layers[layer] == pytest.approx(signs, nan_ok=True)
            assert any(map(math.isnan, signs.values())) or len(signs) > 0


def test_nan_survives_the_store(study: wwopt.TrackedStudy) -> None:
    def small(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
        network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))  # 4 eigenvalues: no alpha
        recorder.step(network, train_loss=0.1, error=math.nan)

    results = probe(study, 1, spec=make_spec(small))
    found = find_probes(study, study[1])
    assert set(found) == set(results)
    for key, result in found.items():
        assert math.isnan(result.metrics["error"])
        assert result.layers["1"] == pytest.approx(results[key].layers["1"], nan_ok=True)
        assert any(map(math.isnan, result.layers["1"].values()))


def test_failed_probes_are_kept_with_their_reason(study: wwopt.TrackedStudy) -> None:
    def crash(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
        if hp.lr["0"] > float(study[2].params["lr/0"]) * 2.0:
            raise RuntimeError("too fast")
        train(hp, conditions, recorder)

    results = probe(study, 2, spec=make_spec(crash), loss=error_of)
    failed = {p: r for p, r in find_probes(study, study[2]).items() if r.status != "ok"}
    assert failed and {r.status for r in failed.values()} == {"raised RuntimeError: too fast"}
    assert all(p.lr_factor > 2.0 and math.isnan(r.score) for p, r in failed.items())
    assert len(results) > len(failed)
    query = "tags.`wwopt.kind` = 'probe' and attributes.status = 'FAILED'"
    runs = MlflowClient(study.uri).search_runs([study.experiment_id], query)
    assert {run.info.run_name for run in runs} == {p.name for p in failed}

    mended = probe(study, 2, spec=make_spec(train), loss=error_of)
    assert {r.status for r in mended.values()} == {"ok"}  # what raised was run again
    assert all(r.status == "ok" for r in find_probes(study, study[2]).values())


@pytest.fixture
def fresh(out: Path, request: pytest.FixtureRequest) -> wwopt.TrackedStudy:
    """A study of this test's own, without probes."""
    return tune(make_spec(name=request.node.name), out, trials=2)


def count_calls(stop: Iterator[bool]) -> tuple[Train, list[tuple[float, float, int]]]:
    """A training that notes its calls, and raises as Ctrl-C does where `stop` says so."""
    calls: list[tuple[float, float, int]] = []

    def training(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
        if next(stop, False):
            raise KeyboardInterrupt
        calls.append((conditions.fraction, round(hp.lr["0"], 6), conditions.seed))
        train(hp, conditions, recorder)

    return training, calls


def test_probing_goes_on_where_it_was_interrupted(fresh: wwopt.TrackedStudy) -> None:
    training, calls = count_calls(iter([False, False, True]))
    spec = make_spec(training)
    with pytest.raises(KeyboardInterrupt):
        probe(fresh, 0, spec=spec, shares=(0.5, 1.0))
    assert len(calls) == 2 == len(find_probes(fresh, fresh[0]))
    results = probe(fresh, 0, spec=spec, shares=(0.5, 1.0))
    assert len(calls) == len(results) == 2 * len(RATES) == len(set(calls))
    probe(fresh, 0, spec=spec, shares=(0.5, 1.0))  # all are known
    assert len(calls) == 2 * len(RATES)


def test_an_interrupted_extension_goes_on_too(fresh: wwopt.TrackedStudy) -> None:
    """The highest rate is best: the planned three are followed by two, the first of them cut."""
    training, calls = count_calls(iter([False, False, False, True]))
    spec = make_spec(training)

    def loss(result: ProbeResult) -> float:
        return -result.probe.lr_factor

    with pytest.raises(KeyboardInterrupt):
        probe(fresh, 0, spec=spec, loss=loss)
    assert len(calls) == len(RATES)
    results = probe(fresh, 0, spec=spec, loss=loss)
    assert sorted(round(p.lr_factor, 3) for p in results) == [0.333, 1.0, 3.0, 9.0, 27.0]
    assert len(calls) == len(set(calls)) == 5


def test_probes_of_another_configuration_are_not_used(fresh: wwopt.TrackedStudy) -> None:
    training, calls = count_calls(iter([]))
    probe(fresh, 0, spec=make_spec(training))
    assert find_probes(fresh, fresh[1]) == {}
    probe(fresh, 1, spec=make_spec(training))
    assert len(calls) == 2 * len(RATES) == len(set(calls))
    assert set(find_probes(fresh, fresh[0])) == set(find_probes(fresh, fresh[1]))


def test_a_study_without_a_parent_run_cannot_be_probed(study: wwopt.TrackedStudy) -> None:
    foreign = replace(study, run_id=None)
    assert find_probes(foreign, foreign[0]) == {}
    with pytest.raises(wwopt.StudyError, match="has no parent run; `wwopt tune` makes one"):
        probe(foreign, 0)


def test_a_trial_of_a_sampled_depth_is_probed_at_that_depth(out: Path) -> None:
    seen: list[tuple[float, tuple[str, ...]]] = []

    def make(conditions: wwopt.Conditions) -> nn.Sequential:
        return nn.Sequential(*(nn.Linear(64, 64) for _ in range(round(2 * conditions.depth))))

    def space(conditions: wwopt.Conditions) -> wwopt.LayerSpace:
        return wwopt.LayerSpace.from_model(
            make(conditions), lr=(0.01, 1.0), dropout=None, momentum=None, depths=(2.0,)
        )

    def training(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
        seen.append((conditions.depth, tuple(hp.lr)))
        recorder.step(make(conditions), train_loss=0.1, error=0.1)

    spec = make_spec(training, name="deep", space=space)
    study = tune(spec, out, trials=1)
    results = probe(study, 0, spec=spec)
    assert all(result.status == "ok" for result in results.values())
    assert set(seen) == {(2.0, ("0", "1", "2", "3"))}


def test_probes_end_when_the_budget_does_and_further_seeds_when_the_verdict_stands(
    fresh: wwopt.TrackedStudy,
) -> None:
    training, calls = count_calls(iter([]))
    spec, study = make_spec(training), replace(fresh)

    def run(probes: list[Probe], **options: Any) -> set[Probe]:
        return set(run_probes(spec, study, study[0], probes, error_of, progress=False, **options))

    parts = [Probe("data", part) for part in (0.25, 0.5, 1.0)]
    assert run(parts, budget=Budget(0.8)) == set(parts[:2])  # the third would take 1.75
    seconds = replace(study[0], duration=100.0)
    assert _Spent(Budget(9.0, 60.0), seconds.duration).allows(Probe("data", 0.5), {})
    assert not _Spent(Budget(9.0, 60.0), seconds.duration).allows(Probe("data", 1.0), {})
    asked: list[int] = []

    def stands(found: Mapping[Probe, ProbeResult]) -> bool:
        asked.append(len(found))
        return len(found) > 3

    seeds = [replace(part, replicate=1) for part in parts]
    assert run([*parts, *seeds], enough=stands) == {*parts, seeds[0]}
    assert asked == [3, 4] and len(calls) == 4


def test_one_bar_grows_with_the_learning_rates_that_follow(
    tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = load_study(f"{tuned / 'law.py'}")
    study = wwopt.read_study(f"sqlite:///{tuned / 'runs' / 'mlflow.db'}")
    planned = [
        Probe("data", 1.0, rate) for rate in RATES
    ]  # three rates; the lower the better, down to 1/27
    run_probes(spec, study, study[0], planned, lambda r: r.probe.lr_factor, seed=7)
    bar = capsys.readouterr().err
    assert bar.count("\n") == 1
    states = re.findall(r" (\d+/\d+) ", bar)
    assert states[0] == "0/3" and states[-1] == "5/5"
    assert {"3/4", "4/5"} <= set(states)
    run_probes(spec, study, study[0], planned, lambda r: r.probe.lr_factor, seed=7)
    assert capsys.readouterr().err == ""  # nothing to run, no bar
