"""The report says what to do next: in words, by action, or why it cannot."""

from dataclasses import replace
from pathlib import Path

from click.testing import Result

import wwopt
from wwopt.recommendation.label_noise import LabelNoise
from wwopt.recommendation.recommendation import Recommendation
from wwopt.report.next_step import explain_next_step, tell_next_step
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


def test_what_is_found_of_labels_reaches_the_section_and_is_left_out_without(
    judged: Recommendation,
) -> None:
    labels = LabelNoise("labels may be noisy: why", 0.8)
    step = tell_next_step(replace(judged, labels=labels))
    assert step.labels == "Labels may be noisy: why (80% sure)."
    study = wwopt.TrackedStudy("", "1", None, "x", params={}, tags={}, metrics={}, trials=())
    assert step.labels in render_report(study, recommendation=step)
    assert tell_next_step(replace(judged, labels=None)).labels == ""


def test_without_probes_the_section_names_the_command_that_runs_them(tuned: Path) -> None:
    study = wwopt.read_study(f"sqlite:///{tuned / 'runs' / 'mlflow.db'}")
    step = explain_next_step(study)
    assert not step.table and step.picture is None
    page = render_report(study, recommendation=step)
    assert page.count("<code>wwopt recommend STUDY.py --probe</code>") == 1
    told = " ".join([*step.words, *step.gaps])
    assert told.count("full trainings") == 1  # what they cost is said once
