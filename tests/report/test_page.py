"""The report: what it says, that it needs no network, and how it looks in a real browser."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from click.testing import CliRunner
from fixtures.studies import LAYERS, make_network
from mlflow import MlflowClient
from sklearn.datasets import load_digits
from torch import nn

from wwopt.cli import main
from wwopt.recommendation.recommendation import recommend
from wwopt.report.cautions import warn_about
from wwopt.report.explanation import explain_study
from wwopt.report.figure_style import axis_top
from wwopt.report.importance import explain_importance
from wwopt.report.next_step import explain_next_step
from wwopt.report.other_choices import choose_by_scores
from wwopt.report.page import render_report
from wwopt.report.page_data import gather
from wwopt.study.conditions import Conditions
from wwopt.study.layer_hyperparameters import LayerHyperparameters
from wwopt.study.layer_space import LayerSpace
from wwopt.study.recording import record
from wwopt.study.spec import StudySpec
from wwopt.tracking import StudyRun, read_settings
from wwopt.tracking.tracked_studies import TrackedStudy, read_study
from wwopt.tracking.tracked_trials import TrackedTrial
from wwopt.tracking.views import VIEW_TAG
from wwopt.tuning.tuning import tune

Recorded = tuple[optuna.Study, str]
SECTIONS = ("warnings", "trials", "layers", "hyperparameters", "choices", "leaderboard")


class Page(HTMLParser):
    """Ids, links, texts and alternative texts of a page, its scripts left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._silent = tag in ("script", "style")
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href", "action", "data"):
                self.links.append(str(value))
            if name == "aria-label":
                self.labels.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        self.words += "" if self._silent else data


@pytest.fixture(scope="module")
def tracked(recorded: Recorded) -> TrackedStudy:
    return read_study(recorded[1])


@pytest.fixture(scope="module")
def text(tracked: TrackedStudy) -> str:
    return render_report(tracked, recommendation="More data.\n\nNot more tuning.")


def trial(number: int, value: float = math.nan, **given: Any) -> TrackedTrial:
    metrics = given.pop("metrics", {})
    if not math.isnan(value):
        metrics = {"objective/value": value, **metrics}
    values = {"state": "COMPLETE", "status": "ok", **given}
    return TrackedTrial(uri="", run_id="", number=number, metrics=metrics, **values)


def made(*trials: TrackedTrial, **given: Any) -> TrackedStudy:
    values: dict[str, Any] = {"params": {}, "tags": {}, "metrics": {}, **given}
    return TrackedStudy("", "1", None, "made", trials=trials, **values)


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
        trial(n, float(n), metrics={**alphas, f"metrics/{evil}": 1.0}, params=params, status=evil)
        for n in range(6)
    ]
    text = render_report(made(*trials, params={evil: evil}))
    assert "alert(1)</script>" not in text and "<script>alert" not in text
    assert Page(text).tags.count("b") < 30 and "onload='x'>" not in text


@pytest.mark.parametrize(
    "trials",
    [
        (),
        (trial(0, state="FAIL"),),
        (trial(0, 1.0),),
        (trial(0, 1.0, state="PRUNED"),),
        (trial(0, metrics={"loss": 1.0}), trial(1, metrics={"loss": 2.0})),
        (trial(0, 1.0, metrics={"guards/traps": 1.0}), trial(1, math.inf)),
    ],
    ids=["nothing", "failed", "one", "pruned", "foreign", "guarded"],
)
def test_studies_that_lack_nearly_everything_get_a_report(trials: tuple) -> None:
    words = Page(render_report(made(*trials))).words
    assert "Leaderboard" in words and "What to know before trusting the winner" in words


def test_the_median_stands_between_the_best_and_the_worst(tracked: TrackedStudy) -> None:
    exemplars = gather(tracked).exemplars
    assert [e.role for e in exemplars] == ["best", "median", "worst"]
    values = sorted(t.value for t in tracked.judged)
    assert exemplars[0].trial.value == values[0] and exemplars[2].trial.value == values[-1]
    below = sum(value < exemplars[1].trial.value for value in values)
    assert abs(below - (len(values) - 1) / 2) <= 0.5


def test_penalised_trials_do_not_squeeze_the_axis() -> None:
    assert axis_top([0.0, 1.0, 2.0, 3.0]) == 3.0
    assert axis_top([0.0, 1.0, 2.0, 3.0, 1000.0]) == 3.0 + 3.0 * 2.0
    assert axis_top([]) == 1.0
    assert axis_top([2.0, 2.0]) == 2.0


def test_how_other_scores_would_have_chosen_by_hand() -> None:
    trials = [
        trial(
            number,
            float(number),
            metrics={
                "layer_alpha/x": alphas[0],
                "layer_alpha/y": alphas[1],
                "alpha/mean": sum(alphas) / 2.0,
                "train/loss": loss,
                "metrics/accuracy": accuracy,
                "metrics/mystery": 1.0,
            },
        )
        for number, (alphas, loss, accuracy) in enumerate(
            [((2.1, 1.9), 2.0, 0.8), ((1.0, 1.0), 1.0, 0.5), ((3.0, 3.0), 3.0, 0.9)]
        )
    ]
    found = {c.score: c for c in choose_by_scores(made(*trials))}
    assert {score: c.trial.number for score, c in found.items()} == {
        "wwopt's objective": 0,
        "training loss": 1,
        "mean alpha": 1,
        "mean |alpha - 2|": 0,
        "highest accuracy": 2,
    }
    assert [c.score for c in found.values() if not c.seen] == ["highest accuracy"]
    assert found["highest accuracy"].taus == {"metrics/accuracy": 1.0}
    assert found["mean alpha"].taus["metrics/accuracy"] == pytest.approx(-1.0)


def told(study: TrackedStudy) -> str:
    importance = explain_importance(study)
    settings = read_settings(study)  # of parameters alone: as version 0.1.0 left them
    return " ".join(warn_about(study, None, importance=importance, choices=(), settings=settings))


def test_warnings_by_hand() -> None:
    space = json.dumps({"ranges": {"lr": [0.01, 1.0], "momentum": [0.0, 0.9]}})
    ends = {"lr/a": "1", "lr/b": "0.1", "momentum/a": "0", "momentum/b": "0.9"}
    words = told(made(trial(0, 1.0, params=ends), params={"space": space}))
    assert "Only 1 trial complete" in words
    assert "The best lr lies at the upper end of its range (1) for a: " in words
    assert "The best momentum lies at the upper end of its range (0.9) for b: " in words
    assert "lower end" not in words  # no momentum is an end that nothing lies beyond
    losing = [trial(n, float(n), metrics={"train/loss": -float(n)}) for n in range(12)]
    assert "order the trials differently (tau -1.00)" in told(made(*losing))
    agreeing = [trial(n, float(n), metrics={"train/loss": float(n)}) for n in range(12)]
    assert "differently" not in told(made(*agreeing))
    sizes = [trial(n, float(n), params={"tuned/width": str(n)}) for n in range(3)]
    assert "Networks of different sizes" in told(made(*sizes))
    assert "a second objective, size" in told(made(trial(0, 1.0), params={"second": '"size"'}))
    assert "second objective" not in told(made(trial(0, 1.0), params={"second": "null"}))
    assert "Every complete trial violates a guard" in told(
        made(trial(0, 1.0, metrics={"guards/traps": 1.0}))
    )
    assert "No trial logged an objective" in told(made(trial(0, metrics={"loss": 1.0})))
    assert "1 trial still running" in told(made(trial(0, state="RUNNING")))


def test_a_settings_text_that_mlflow_cut_is_no_error() -> None:
    assert "range" not in told(made(trial(0, 1.0), params={"space": '{"ranges": {"lr": [0.0'}))


def test_the_command_writes_the_page(recorded: Recorded, tmp_path: Path) -> None:
    folder = str(Path(recorded[1].removeprefix("sqlite:///")).parent)
    file = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["report", folder, "-o", str(file)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "study härte/1, 14 trials" in result.stdout
    assert "history" in Page(file.read_text("utf-8")).ids
    nowhere = str(tmp_path / "none" / "page.html")
    result = CliRunner().invoke(main, ["report", folder, "-o", nowhere])
    assert result.exit_code == 2 and result.stderr.startswith("wwopt: ")


def test_a_finished_study_has_its_report_pictures_and_view_in_mlflow(recorded: Recorded) -> None:
    study = read_study(recorded[1])
    assert study.run_id is not None and study.best is not None
    for _ in range(2):  # again, as resuming does
        explain_study(StudyRun(study.uri, study.experiment_id, study.run_id, ""))
    client = MlflowClient(study.uri)
    assert [a.path for a in client.list_artifacts(study.run_id)] == ["report.html"]
    attached = Path(client.download_artifacts(study.run_id, "report.html")).read_text("utf-8")
    page = render_report(study, recommendation=explain_next_step(study))
    assert 'id="recommendation"' in attached
    assert attached.partition("<footer>")[0] == page.partition("<footer>")[0]  # but for the date
    pictures = {a.path for a in client.list_artifacts(study.best.run_id, "spectra")}
    assert len(pictures) == len(LAYERS) + 1 and "spectra/overview.png" in pictures
    view = json.loads(client.get_experiment(study.experiment_id).tags[VIEW_TAG])
    assert view["name"] == "wwopt" and view["state"].startswith("deflate;")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real, headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, a test extra")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def open_page(browser: Any, address: str, width: int) -> tuple[Any, list[str], list[str]]:
    """The page, its errors, and what it asked for beyond itself."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.set_default_timeout(180_000)
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    return page, errors, [url for url in asked if not url.startswith((address, "data:", "blob:"))]


DRAWN = """keys => keys.every(key => {
    const plot = document.getElementById(key);
    return plot && plot.querySelector(".main-svg") && plot._fullData.length > 0;
})"""


@pytest.mark.integration
@pytest.mark.parametrize("width", [390, 820, 1400])
def test_in_a_browser(text: str, tmp_path: Path, browser: Any, width: int) -> None:
    file = tmp_path / "report.html"
    file.write_text(text, "utf-8")
    page, errors, asked = open_page(browser, file.as_uri(), width)
    keys = ["history", "terms", "alphas", "depth", "parallel", "spectrum0", "spectrum1"]
    page.wait_for_function(DRAWN, arg=keys)
    boxes = [page.locator(f"#{key}").bounding_box() for key in keys]
    assert all(box["height"] > 150 for box in boxes)
    assert all(box["width"] > 0.7 * min(width, 330) for box in boxes)
    # Wide tables scroll inside themselves; the page does not.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    names = page.locator("#alphas .ytick text").all_text_contents()
    assert names[0] == LAYERS[0] and "…" in names[1]
    assert (errors, asked) == ([], [])
    page.context.close()


def train_digits(hp: LayerHyperparameters, conditions: Conditions, recorder: Any) -> None:
    """A small network on 8×8 images of digits, for half a second."""
    images, digits = (torch.tensor(array) for array in load_digits(return_X_y=True))
    images = images.float() / 16.0
    count = round(600 * conditions.fraction)
    model = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    optimizer = hp.optimizer(model, torch.optim.SGD)
    for _ in range(conditions.epochs):
        for batch in torch.randperm(count).split(20):
            loss = nn.functional.cross_entropy(model(images[batch]), digits[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        accuracy = (model(images[1000:]).argmax(1) == digits[1000:]).float().mean()
    recorder.step(model, train_loss=loss.item(), accuracy=accuracy.item())


@pytest.fixture(scope="module")
def advised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Reports of a study that was really tuned, before and after its probes."""
    folder = tmp_path_factory.mktemp("advised")
    layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    space = LayerSpace.from_model(
        nn.Sequential(*layers, nn.ReLU(), nn.Linear(64, 10)),
        lr=(0.05, 0.5), dropout=None, momentum=None, tie="global",
    )  # fmt: skip
    spec = StudySpec("advised", train_digits, space, conditions=Conditions(seed=0, epochs=4))
    tune(spec, trials=4, out=folder, progress=False, explain=False, max_weights=0)
    pages = (folder / "before.html", folder / "after.html")
    for page in pages:
        result = CliRunner().invoke(main, ["report", str(folder), "-o", str(page)])
        assert result.exit_code == 0, result.stderr
        recommend(spec, out=folder, probe=True, progress=False)
    return pages


CUT = """section => {
    const right = section.getBoundingClientRect().right + 1;
    const cut = Array.from(section.querySelectorAll("p, li, table, .plot, .plot text"))
        .filter(part => part.getBoundingClientRect().right > right ||
                        part.getBoundingClientRect().left < 0);
    return cut.map(part => part.outerHTML.slice(0, 200));
}"""


@pytest.mark.integration
@pytest.mark.parametrize("probed", [False, True], ids=["unprobed", "probed"])
@pytest.mark.parametrize("width", [400, 1200])
def test_what_to_do_next_in_a_browser(
    advised: tuple[Path, Path], browser: Any, width: int, probed: bool
) -> None:
    page, errors, asked = open_page(browser, advised[probed].as_uri(), width)
    keys = ["history", "next_step"] if probed else ["history"]
    page.wait_for_function(DRAWN, arg=keys)
    section = page.get_by_role("region", name="What to do next")
    assert section.get_by_role("heading", name="What to do next").is_visible()
    verdict = section.locator("p.lead")
    assert verdict.is_visible()
    assert verdict.inner_text().startswith("Not enough evidence: run 30 probes") != probed
    heads = section.locator("thead th:first-child").all_inner_texts()
    assert heads == (["action", "layer"] if probed else ["layer"])
    for table in section.locator("table").all():
        assert table.is_visible() and table.bounding_box()["height"] > 40
        assert table.locator("tbody tr").count() <= (5 if probed else 2)
    assert section.locator("#next_step").count() == probed
    if probed:
        box = section.locator("#next_step").bounding_box()
        assert box["height"] > 400 and box["width"] > 0.8 * width
        points = page.evaluate("document.querySelector('#next_step')._fullData.map(d => d.name)")
        assert {"probes", "best so far", "more data, median", "more trials, median"} <= set(points)
    assert section.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (errors, asked) == ([], [])
    page.context.close()


@pytest.mark.integration
def test_mlflows_screens_show_what_matters(
    browser: Any, mlflow_server: str, recorded: Recorded, tmp_path: Path
) -> None:
    study = record_on_server(mlflow_server)
    tracked = read_study(mlflow_server, study.study_name)
    assert tracked.run_id is not None and tracked.best is not None
    run = StudyRun(mlflow_server, tracked.experiment_id, tracked.run_id, "")
    explain_study(run)
    link = f"{mlflow_server}/#/experiments/{tracked.experiment_id}/runs"
    link += "?viewStateShareKey=wwopt&workflowType=machine_learning"
    page, _, _ = open_page(browser, link, 1800)
    rows = page.locator("a[href*='/runs/']").filter(has_text=re.compile(r"^trial \d+$"))
    rows.first.wait_for()
    names = rows.all_inner_texts()
    assert names == [f"trial {t.number}" for t in tracked.judged]  # best first, no parent run
    page.get_by_text("objective/value").first.wait_for()  # the column that MLflow hides by default
    page.goto(f"{page.url}&compareRunsMode=CHART")
    page.get_by_text("What matters").first.wait_for()
    page.get_by_text("Parallel Coordinates").first.wait_for()
    page.context.close()
    command = ["report", study.study_name, "--tracking-uri", mlflow_server, "--attach"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "r.html")])
    assert result.exit_code == 0
    artifacts = MlflowClient(mlflow_server).list_artifacts(tracked.run_id)
    assert [a.path for a in artifacts] == ["report.html"]


def record_on_server(server: str) -> optuna.Study:
    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("lr", 0.01, 1.0, log=True)
        with record(trial, epochs=1, tracking=server) as recorder:
            recorder.step(make_network(trial.number, rate), train_loss=1.0 - rate)
        return recorder.value

    study = optuna.create_study(
        study_name="on a server", sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(objective, n_trials=4)
    return study
