"""The walls of studies/: what people copy stands alone, questions are short, floors import down."""

import ast
import re
import sys
from pathlib import Path

import pytest
from fixtures.paths import ROOT, STUDIES

TO_COPY = ("digits", "mnist_mlp", "char_gpt")
QUESTIONS = (
    "calibrate_drift",
    "calibrate_gate",
    "calibrate_guards",
    "closed_loops",
    "compress_budget",
    "compress_minilm",
    "compression_cost",
    "data_or_tune",
    "explain_by_tree",
    "fine_tune_minilm",
    "follow_advice",
    "kinds_of_change",
    "noisy_labels",
    "objective_vs_test_error",
    "pruning",
    "published_checkpoints",
    "search_spaces",
    "select_model",
    "train_large_then_compress",
)
LINES = 150  # of a question, which has one command: machinery belongs into the harness

# Floors of the harness, lowest first: a file imports from those below, and from its own folder.
# `harness/__init__.py` says the same.
FLOORS = (
    ("data", "score_statistics", "markdown_tables"),
    ("damage", "selection_worth"),
    ("damage_cases", "zoos"),
    (
        "scenarios",
        "loops",
        "layer_rates",
        "class_trees",
        "compression",
        "train_large",
        "retrainings",
    ),
    ("changes", "embeddings"),
)
FLOOR_OF = {part: number for number, floor in enumerate(FLOORS) for part in floor}

HARNESS = sorted(path for path in (STUDIES / "harness").rglob("*.py") if path.stem != "__init__")
OURS = {"wwopt", "harness", *(path.stem for path in STUDIES.glob("*.py"))}


def find_imports(path: Path) -> set[str]:
    """Modules that a file imports, wherever in it; names that it takes from a package count too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(STUDIES).with_suffix("").parts)


def find_neighbours(path: Path) -> set[str]:
    """The files of the harness that one of them imports."""
    return find_imports(path) & {name_of(other) for other in HARNESS}


def test_every_file_beside_the_harness_is_to_copy_or_a_question_or_the_networks() -> None:
    assert {path.stem for path in STUDIES.glob("*.py")} == {*TO_COPY, *QUESTIONS, "networks"}


@pytest.mark.parametrize("name", [*TO_COPY, "networks"])
def test_what_people_copy_imports_nothing_of_ours_but_wwopt_and_the_networks(name: str) -> None:
    ours = {module.split(".")[0] for module in find_imports(STUDIES / f"{name}.py")} & OURS
    assert ours <= ({"wwopt", "networks"} if name in TO_COPY else set())


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_is_short_and_says_its_command(name: str) -> None:
    text = (STUDIES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= LINES
    first, *_ = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    assert "?" in first
    assert f"\n    python studies/{name}.py" in text


def test_no_file_hides_one_of_pythons_own() -> None:
    """`python studies/x.py` puts the folder first on the path."""
    beside = {path.stem for path in STUDIES.iterdir()}
    assert not beside & set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", HARNESS, ids=name_of)
def test_the_harness_imports_downwards_alone(path: Path) -> None:
    part = name_of(path).split(".")[1]
    for other in find_neighbours(path):
        below = other.split(".")[1]
        assert FLOOR_OF[below] < FLOOR_OF[part] or below == part, f"{part} imports {other}"
    studies = {module for module in find_imports(path) if module in {*TO_COPY, *QUESTIONS}}
    assert not studies  # a loop's study is named, and imported when its data are known


def test_no_circle_in_the_harness() -> None:
    arrows = {name_of(path): find_neighbours(path) for path in HARNESS}
    while arrows:  # take away what imports nothing that is left
        leaves = {name for name, others in arrows.items() if not others & arrows.keys()}
        assert leaves, f"a circle among {sorted(arrows)}"
        arrows = {name: others for name, others in arrows.items() if name not in leaves}


@pytest.mark.parametrize("page", ["README.md", "docs", "benchmarks"])
def test_commands_of_the_pages_name_files_that_exist(page: str) -> None:
    pages = [ROOT / page] if page.endswith(".md") else sorted((ROOT / page).glob("*.md"))
    for path in pages:
        for name in re.findall(r"\b(?:studies|benchmarks)/[\w/]+\.py", path.read_text()):
            assert (ROOT / name).is_file(), f"{path} names {name}"
