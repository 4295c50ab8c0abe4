"""A real browser shows the report and MLflow's screens as they are meant to be seen.

Of the report the `page` and its `next_step`, of MLflow's screens what the `explanation` left.
"""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from click.testing import CliRunner
from fixtures.studies.quick_studies import LAYERS, make_network
from fixtures.studies.recorded_study import Recorded
from mlflow import MlflowClient
from sklearn.datasets import load_digits
from torch import nn

from wwopt.cli import main
from wwopt.recommendation.recommendation import recommend
from wwopt.report.explanation import explain_study
from wwopt.study.conditions import Conditions
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters
from wwopt.study.space.layer_space import LayerSpace
from wwopt.study.spec import StudySpec
from wwopt.study.trial.recording import record
from wwopt.tracking import StudyRun
from wwopt.tracking.tracked_studies import read_study
from wwopt.tuning.tuning import tune


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
    assert verdict.inner_text().startswith("Not enough evidence: run 12 probes") != probed
    heads = section.locator("thead th:first-child").all_inner_texts()
    assert heads == (["action"] if probed else [])
    for table in section.locator("table").all():
        assert table.is_visible() and table.bounding_box()["height"] > 40
        assert table.locator("tbody tr").count() <= 5
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
