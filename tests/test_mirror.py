"""Whoever changes a module finds its tests by its name: `tests/` mirrors the package.

A module is tested by `tests/<wing>/test_<module>.py`, or is named between backticks in the first
lines of a test file of its wing's folder.
"""

import ast
import re
from pathlib import Path

import pytest
from fixtures.paths import ROOT

PACKAGE, TESTS = ROOT / "wwopt", ROOT / "tests"
FOLDERS = sorted(  # of the package, "" for its own files
    {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
)


def modules_of(folder: Path) -> set[str]:
    """The modules of a folder of the package."""
    return {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__"}


def named_by(file: Path, modules: set[str]) -> set[str]:
    """Those of the modules that a test file is about, by its name or in its docstring."""
    words = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    named = {file.stem.removeprefix("test_"), *re.findall(r"`(\w+)`", words)}
    return named & modules


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_every_module_is_named_by_a_test_file_of_its_folder(folder: Path) -> None:
    modules = modules_of(folder)
    files = (TESTS / folder).glob("test_*.py")
    missing = modules.difference(*(named_by(file, modules) for file in files))
    assert not missing, f"no file of {TESTS / folder} is about {sorted(missing)}"


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f.name], ids=str)
def test_every_test_file_of_a_wing_names_a_module_of_it(folder: Path) -> None:
    modules = modules_of(folder)
    strangers = [
        file.name for file in (TESTS / folder).glob("test_*.py") if not named_by(file, modules)
    ]
    assert not strangers, f"these are about no module of {PACKAGE / folder}: {strangers}"
