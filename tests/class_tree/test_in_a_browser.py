"""The `page` as it is seen: at three widths, with few classes and many, named in any script."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fixtures.networks.class_trees import draw_features, make_tree

from wwopt.class_tree.correction import move_class
from wwopt.class_tree.page import write_page

SCRIPTS = (
    "猫", "كلب بحر", "צב ים", "ราชสีห์", "हाथी", "Ёж обыкновенный", "cat",
    "Donaudampfschifffahrtsgesellschaftskapitän", "a name of several words that goes on and on",
    "🦒 giraffe",
)  # fmt: skip


@pytest.fixture(scope="module", params=[10, 100])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of that many classes, with wrong decisions, images and a correction."""
    classes: int = request.param
    rows = np.random.default_rng(0).normal(size=(classes, 16))
    names = tuple(SCRIPTS[i % 10] + (f" {i}" if i >= 10 else "") for i in range(classes))
    before = make_tree(rows, names)
    after = move_class(before, 0, before.hierarchy.parents[before.hierarchy.parents[0]])
    images = np.random.default_rng(1).random((20 * classes, 8, 8))
    long = "ordner/画像-{}-of-a-long-name-without-a-space.png"
    ids = np.array([long.format(i) for i in range(len(images))])
    training = replace(draw_features(rows), images=images, ids=ids)
    unseen = replace(draw_features(rows, seed=1, spread=2.0), images=images)
    path = tmp_path_factory.mktemp("pages") / f"{classes}.html"
    write_page(after, path, title="모델.pt", training=training, held_out=unseen, before=before)
    return path.as_uri()


# What sticks out of the page, but for tables, which scroll in a box of their own.
CUT = """width => Array.from(document.querySelectorAll("body *"))
    .filter(part => !part.closest(".scroll") && !part.closest("svg"))
    .filter(part => { const box = part.getBoundingClientRect();
                      return box.width > 0 && (box.right > width + 1 || box.left < -1); })
    .map(part => part.outerHTML.slice(0, 150))"""

# Lines that reach the names.
ENDS = """() => { const boxOf = part => part.getBoundingClientRect();
    const right = boxOf(document.querySelector(".branches")).right;
    return Array.from(document.querySelectorAll(".branches path"))
        .filter(path => boxOf(path).right >= right - 1).length; }"""

# Pairs of dots of which one hides the middle of the other.
HIDDEN = """() => { const dots = Array.from(document.querySelectorAll(".dot"))
        .map(dot => dot.getBoundingClientRect());
    let hidden = 0;
    dots.forEach((one, i) => dots.slice(i + 1).forEach(other => {
        const x = Math.abs(one.x + one.width / 2 - other.x - other.width / 2);
        const y = Math.abs(one.y + one.height / 2 - other.y - other.height / 2);
        if (x < one.width / 2 && y < one.height / 2) hidden += 1; }));
    return hidden; }"""


@pytest.mark.integration
@pytest.mark.parametrize("width", [390, 820, 1400])
def test_in_a_browser(browser: Any, address: str, width: int) -> None:
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT, width) == []
    assert page.evaluate(HIDDEN) == 0
    names = page.locator(".names li")
    classes = names.count()
    rows = [names.nth(i).bounding_box() for i in (0, 1, classes - 1)]
    assert rows[1]["y"] - rows[0]["y"] == rows[0]["height"] >= 18
    branches = page.locator(".branches").bounding_box()
    height = rows[2]["y"] + rows[2]["height"] - rows[0]["y"]
    assert branches["height"] == pytest.approx(height, abs=1)
    assert branches["width"] > 100
    assert page.evaluate(ENDS) == classes
    page.locator(".dot").first.click()
    assert page.evaluate("location.hash").startswith("#node")
    assert page.locator("article img").count() > 20
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert errors == []
    page.context.close()
