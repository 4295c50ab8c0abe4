"""`wwopt recommend`, its words, its picture and its section in the report, on a real store."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import wwopt
from wwopt.cli import main
from wwopt.recommendation.decisions import Prices
from wwopt.recommendation.fans import best_so_far, fan_of_data
from wwopt.recommendation.layer_findings import Finding
from wwopt.recommendation.phrases import say_gain, say_verdict
from wwopt.recommendation.plot import plot_recommendation
from wwopt.recommendation.probe_records import find_probes
from wwopt.recommendation.probe_runs import run_probes
from wwopt.recommendation.probes import plan_probes
from wwopt.recommendation.recommendation import Recommendation, recommend
from wwopt.recommendation.text import describe_recommendation
from wwopt.report.next_step import MAX_LAYERS, explain_next_step, tabulate_layers, tell_next_step
from wwopt.report.page import render_report
from wwopt.study.references import load_study
from wwopt.tracking import probes, store

TRIALS = 4
STUDY = """
import math
import torch
from torch import nn
import wwopt


def make_model(conditions):
    return nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))


def train(hp, conditions, recorder):
    if conditions.epochs > {limit}:
        raise RuntimeError("out of memory")
    model = make_model(conditions)
    error = 0.02 + 0.06 / conditions.fraction
    error *= 1 + 0.2 * abs(math.log(hp.lr["0"] / 0.1))
    error *= 1 + 0.01 * float(torch.randn(()))
    recorder.step(model, train_loss=error, accuracy=1 - error)


study = wwopt.StudySpec(
    name="law",
    train=train,
    space=lambda conditions: wwopt.LayerSpace.from_model(
        make_model(conditions), lr=(0.05, 0.2), dropout=None, momentum=None, tie="global"
    ),
    conditions=wwopt.Conditions(seed=0, epochs=4),
    metric="accuracy",
)
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["recommend", *map(str, arguments)])


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "law.py").write_text(STUDY.format(limit=1000))
    wwopt.tune(f"{folder / 'law.py'}", trials=TRIALS, out=folder / "runs", explain=False)
    return folder


@pytest.fixture(scope="module")
def probed(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("probed") / "study"
    shutil.copytree(tuned, folder)
    return folder, run(folder / "law.py", "--out", folder / "runs", "--probe", "--json")


@pytest.fixture(scope="module")
def judged(probed: tuple[Path, Result]) -> Recommendation:
    return recommend(wwopt.read_study(f"sqlite:///{probed[0] / 'runs' / 'mlflow.db'}"))


def test_probes_are_announced_run_once_and_judged(probed: tuple[Path, Result]) -> None:
    folder, first = probed
    assert first.exit_code in (0, 1), first.stderr
    assert "probes, about" in first.stderr and "full trainings" in first.stderr
    document = json.loads(first.stdout)
    assert document["probes"]["missing"] == [] and document["failed"] == []
    assert document["actions"]["data"]["gain"] > 0.01  # the law: .08 falls to .05
    assert document["actions"]["bigger"]["missing"]  # this model has no width
    again = run(folder / "law.py", "--out", folder / "runs", "--probe", "--json")
    assert "full trainings" not in again.stderr
    assert json.loads(again.stdout) == document


def test_each_probe_is_read_once(
    probed: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = probed
    read: list[str] = []

    def count(uri: str, source: str, target: Path | None = None) -> Path:
        read.append(source)
        return store.download(uri, source, target)

    monkeypatch.setattr(probes, "download", count)
    again = run(folder / "law.py", "--out", folder / "runs", "--probe", "--json")
    assert json.loads(again.stdout) == json.loads(first.stdout)
    study = wwopt.read_study(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    known = find_probes(study, study[json.loads(first.stdout)["trial"]])
    assert len(known) >= 24 and len(read) == 2 * len(known)  # by the command, and by this test
    assert len(set(read)) == len(known)


def test_without_probes_it_says_what_they_cost(tuned: Path) -> None:
    result = run(tuned / "law.py", "--out", tuned / "runs", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == (1 if document["verdict"] == "probe" else 0)
    assert document["probes"]["trainings"] > 1 and len(document["reasons"]) == 3
    assert document["actions"]["data"]["gain"] is None and document["actions"]["data"]["missing"]
    words = " ".join(run(tuned / "law.py", "--out", tuned / "runs").stdout.split())
    # Whatever it says, it does not hide that nothing is known of more data.
    assert "not enough evidence" in words or "nothing is known of data" in words
    assert "full trainings" in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metric", "colour"), "no metric 'colour'"),
        (("--price-example", "2"), "--price-example without --worth"),
        (("--worth", "100", "--price-example", "2"), "how many training examples"),
        (("--worth", "-1"), "not negative"),
        (("--plot", "picture.doc"), "ending must be one of"),
    ],
)
def test_wrong_input_is_one_line(tuned: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(tuned / "law.py", "--out", tuned / "runs", *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("wwopt: ") and message in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_study_and_no_file_are_one_line(tuned: Path, tmp_path: Path) -> None:
    for arguments in ((tmp_path,), ("--out", tmp_path)):
        result = run(*arguments)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1


def test_only_a_file_can_probe_and_that_is_said_before_anything_is_read(tmp_path: Path) -> None:
    for arguments, given in (
        ((tmp_path,), f"the folder '{tmp_path}'"),  # it holds no study, which is not looked at
        (("law", "--out", tmp_path), "the name 'law'"),
        (("--out", tmp_path), "no STUDY"),
    ):
        result = run(*arguments, "--probe")
        assert result.exit_code == 2 and result.stderr.count("\n") == 1
        assert f"needs the study's file, got {given}; name the file: " in result.stderr
    assert f"STUDY.py --probe --out {tmp_path}\n" in run(tmp_path, "--probe").stderr


def test_one_bar_grows_with_the_learning_rates_that_follow(
    tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = load_study(f"{tuned / 'law.py'}")
    study = wwopt.read_study(f"sqlite:///{tuned / 'runs' / 'mlflow.db'}")
    planned = plan_probes((), seeds=1)  # three rates; the lower the better, down to 1/27
    run_probes(spec, study, study[0], planned, lambda r: r.probe.lr_factor, seed=7)
    bar = capsys.readouterr().err
    assert bar.count("\n") == 1
    states = re.findall(r" (\d+/\d+) ", bar)
    assert states[0] == "0/3" and states[-1] == "5/5"
    assert {"3/4", "4/5"} <= set(states)
    run_probes(spec, study, study[0], planned, lambda r: r.probe.lr_factor, seed=7)
    assert capsys.readouterr().err == ""  # nothing to run, no bar


def test_failed_probes_are_told(tuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(tuned, folder)
    (folder / "law.py").write_text(STUDY.format(limit=4))
    result = run(folder / "law.py", "--out", folder / "runs", "--probe")
    assert result.exit_code in (0, 1)
    assert "Probes that failed" in result.stdout and "out of memory" in result.stdout


def test_prices_reach_the_table(probed: tuple[Path, Result]) -> None:
    folder = probed[0]
    prices = ("--worth", "1000", "--price-example", "0.5", "--examples", "100")
    result = run(folder / "law.py", "--out", folder / "runs", *prices, "--json")
    document = json.loads(result.stdout)
    data = document["actions"]["data"]
    assert data["cost"] == pytest.approx(50.0)
    assert data["net"] == pytest.approx(1000.0 * data["gain"] - 50.0, rel=1e-6)
    told = run(folder / "law.py", "--out", folder / "runs", *prices).stdout
    assert "net value" in told and " 50 " in told


def test_probabilities_sum_to_one_and_intervals_hold_the_gain(judged: Recommendation) -> None:
    actions = describe_recommendation(judged)["actions"]
    known = [a for a in actions.values() if not a["missing"]]
    assert sum(a["probability"] for a in known) == pytest.approx(1.0)
    assert all(a["low"] <= a["high"] for a in known)


def test_gains_have_the_direction_of_the_metric(judged: Recommendation) -> None:
    assert judged.better == "higher"
    assert say_gain(judged, 0.008) == "+0.8"  # points
    assert say_gain(judged, -0.01) == "-1"


def test_the_pictures_fans_start_at_what_was_measured(
    judged: Recommendation, tmp_path: Path
) -> None:
    fan = fan_of_data(judged)
    assert fan is not None
    shares, (low, middle, high) = fan
    assert shares[-1] == pytest.approx(4.0)
    assert (low <= middle).all() and (middle <= high).all()
    assert middle[-1] > middle[0]  # accuracy rises with the data
    places, best = best_so_far(judged)
    assert len(places) == TRIALS and (best[1:] >= best[:-1]).all()
    figure: Any = plot_recommendation(judged)
    figure.savefig(tmp_path / "a.png")
    assert say_verdict(judged)[:20] in figure.get_suptitle()
    assert [ax.get_xlabel() for ax in figure.axes] == ["training data", "trials"]


def test_the_report_tells_the_recommendation(
    probed: tuple[Path, Result], judged: Recommendation
) -> None:
    study = wwopt.read_study(f"sqlite:///{probed[0] / 'runs' / 'mlflow.db'}")
    page = render_report(study, recommendation=tell_next_step(judged))
    assert 'id="recommendation"' in page and 'id="next_step"' in page
    assert "What decided" in page and "<td>data ×2</td>" in page


def test_a_report_without_a_recommendation_says_why(tuned: Path) -> None:
    study = wwopt.read_study(f"sqlite:///{tuned / 'runs' / 'mlflow.db'}")
    step = explain_next_step(wwopt.TrackedStudy(**{**study.__dict__, "trials": ()}))
    assert step.picture is None and step.words[0].startswith("There is no recommendation. ")


def test_layers_stand_in_one_row_each_with_the_shares_of_their_signs() -> None:
    found = (
        Finding("regularise", "b", "traps", 0.9),
        Finding("holds back", "b", "high", 0.75),
        Finding("grow", "a", "full", 0.6),
    )
    assert tabulate_layers(found) == (
        ("layer", "holds back", "regularise", "grow"),
        ("b", "75%", "90%", "–"),
        ("a", "–", "–", "60%"),
    )
    assert tabulate_layers(()) == ()


def test_what_is_found_by_layer_reaches_the_section_and_is_left_out_without(
    judged: Recommendation,
) -> None:
    many = tuple(Finding("regularise", f"l{i}", f"words {i}", 0.9) for i in range(30))
    labels = Finding("labels", "", "labels may be noisy: why", 0.8)
    step = tell_next_step(replace(judged, layers=many, labels=labels))
    assert len(step.layers) == 1 + MAX_LAYERS
    assert step.notes[0] == "l0, regularise: words 0." and step.notes[1].startswith("5 further")
    assert step.labels == "Labels may be noisy: why (80% sure)."
    study = wwopt.TrackedStudy("", "1", None, "x", params={}, tags={}, metrics={}, trials=())
    page = render_report(study, recommendation=step)
    assert page.count("<td>90%</td>") == MAX_LAYERS and "<li>l0, regularise: words 0.</li>" in page
    nothing = tell_next_step(replace(judged, layers=(), labels=None))
    assert (nothing.layers, nothing.notes, nothing.labels) == ((), (), "")
    assert "By layer" not in render_report(study, recommendation=nothing)


def test_without_probes_the_section_names_the_command_that_runs_them(tuned: Path) -> None:
    study = wwopt.read_study(f"sqlite:///{tuned / 'runs' / 'mlflow.db'}")
    step = explain_next_step(study)
    assert not step.table and step.picture is None
    page = render_report(study, recommendation=step)
    assert page.count("<code>wwopt recommend STUDY.py --probe</code>") == 1
    told = " ".join([*step.words, *step.gaps])
    assert told.count("full trainings") == 1  # what they cost is said once


def test_money_needs_a_worth() -> None:
    with pytest.raises(ValueError, match="worth"):
        Prices(worth=0.0, example=1.0)
