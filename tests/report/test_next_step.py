"""The report says what to do next: in words, by action and by layer, or why it cannot."""

from dataclasses import replace
from pathlib import Path

from click.testing import Result

import wwopt
from wwopt.recommendation.layer_findings import Finding
from wwopt.recommendation.recommendation import Recommendation
from wwopt.report.next_step import MAX_LAYERS, explain_next_step, tabulate_layers, tell_next_step
from wwopt.report.page import render_report


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
