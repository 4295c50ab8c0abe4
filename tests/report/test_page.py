"""The report says what is known, as words and figures that need no network, and never as code."""

import math
import re

import pytest
from fixtures.by_hand.trials import bare_trial, study
from fixtures.readers.pages import Page
from fixtures.studies.quick_studies import LAYERS
from fixtures.studies.recorded_study import Recorded

from wwopt.report.page import render_report
from wwopt.tracking.tracked_studies import TrackedStudy

SECTIONS = ("warnings", "trials", "layers", "hyperparameters", "choices", "leaderboard")


def test_every_figure_is_there_with_words_for_who_cannot_see_it(text: str) -> None:
    page = Page(text)
    for key in ("history", "terms", "alphas", "depth", "parallel", "spectrum0", "spectrum2"):
        assert page.ids.count(key) == 1
    figures = [key for key in page.ids if key not in (*SECTIONS, "recommendation")]
    assert len([label for label in page.labels if label != "Sections"]) == len(figures) == 8
    assert all(len(label) > 20 for label in page.labels if label != "Sections")
    assert page.words.count("What to look for.") == 6  # one for all spectra
    assert set(SECTIONS) <= set(page.ids)


def test_the_page_asks_no_network(text: str) -> None:
    page = Page(text)
    assert page.links and all(link.startswith(("#", "data:")) for link in page.links)
    assert "default-src 'none'" in text
    assert not {"img", "iframe", "object", "embed"} & set(page.tags)
    assert len(text.encode()) < 8e6


def test_its_data_hold_no_number_that_a_chart_cannot_show(text: str) -> None:
    # What plotly itself contains is not data.
    figures = re.findall(r'Plotly\.newPlot\(\s*"(\w+)",\s*(\[.*?\]),\s*\{', text, flags=re.DOTALL)
    assert len(figures) == 8
    for _, data in figures:
        assert not re.search(r"\b(NaN|Infinity)\b|e\+?30[78]", data)


def test_it_says_what_is_known(text: str, tracked: TrackedStudy, recorded: Recorded) -> None:
    words = Page(text).words
    best = recorded[0].best_trial
    assert "14 trials (12 complete, 1 pruned, 1 failed)" in words
    assert f"The best is trial {best.number}, with an objective of {best.value:.4f}" in words
    assert "guided by the score validation-free, which reads the weights and the train" in words
    assert (
        "1 trial failed; most often (1): RuntimeError: postgresql://me:***@db/x is down." in words
    )
    assert "1 trial refused as broken; most often (1): training loss is nan." in words
    assert "More data." in words and "Not more tuning." in words
    assert "too few eigenvalues" in words and LAYERS[0] in words
    assert "s3cret" not in text


def test_without_a_recommendation_its_section_is_left_out(tracked: TrackedStudy) -> None:
    assert "recommendation" not in Page(render_report(tracked)).ids


def test_names_are_text_and_never_code() -> None:
    evil = "</script><script>alert(1)</script><b onload='x'>"
    alphas = {f"layer_alpha/{evil}": 2.0}
    params = {f"lr/{evil}": "0.1", evil: "1"}
    trials = [
        bare_trial(
            n, float(n), metrics={**alphas, f"metrics/{evil}": 1.0}, params=params, status=evil
        )
        for n in range(6)
    ]
    text = render_report(study(*trials, params={evil: evil}))
    assert "alert(1)</script>" not in text and "<script>alert" not in text
    assert Page(text).tags.count("b") < 30 and "onload='x'>" not in text


@pytest.mark.parametrize(
    "trials",
    [
        (),
        (bare_trial(0, state="FAIL"),),
        (bare_trial(0, 1.0),),
        (bare_trial(0, 1.0, state="PRUNED"),),
        (bare_trial(0, metrics={"loss": 1.0}), bare_trial(1, metrics={"loss": 2.0})),
        (bare_trial(0, 1.0, metrics={"guards/traps": 1.0}), bare_trial(1, math.inf)),
    ],
    ids=["nothing", "failed", "one", "pruned", "foreign", "guarded"],
)
def test_studies_that_lack_nearly_everything_get_a_report(trials: tuple) -> None:
    words = Page(render_report(study(*trials))).words
    assert "Leaderboard" in words and "What to know before trusting the winner" in words
