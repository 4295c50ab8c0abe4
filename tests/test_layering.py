"""The walls: which wing may import which, and what importing wwopt must not drag in."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.paths import ROOT

from wwopt.cli import COMMANDS

PACKAGE = ROOT / "wwopt"

# Wing → the wings that it may import, the lowest first. A change of this table is a decision.
MAY_IMPORT = {
    "weights": "",
    "tracking": "",
    "spectra": "weights",
    "metrics": "weights spectra",
    "gate": "weights spectra metrics tracking",
    "selection": "weights spectra metrics tracking",
    "study": "metrics tracking",
    "integrations": "weights metrics study tracking",
    "recommendation": "metrics study tracking",
    "compression": "weights spectra metrics gate study tracking",
    "class_tree": "weights tracking",
    "report": "metrics recommendation tracking",
    "tuning": "metrics study tracking report",
}
EVERYBODY_MAY = {"plain_data", "wording"}


def find_arrows(path: Path, *, package: Path = PACKAGE) -> set[str]:
    """The parts of wwopt, wings or files of its own, that a file imports, wherever in it."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = path.relative_to(package.parent).parts[: -node.level] if node.level else ()
            module = ".".join([*home, *filter(None, [node.module])])
            imported |= {f"{module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in imported if name.startswith("wwopt.")}


@pytest.mark.parametrize("wing", [wing for wing in MAY_IMPORT if (PACKAGE / wing).is_dir()])
def test_a_wing_imports_only_what_its_row_allows(wing: str) -> None:
    allowed = {wing, *MAY_IMPORT[wing].split(), *EVERYBODY_MAY}
    for path in sorted((PACKAGE / wing).rglob("*.py")):
        assert find_arrows(path) <= allowed, path


def test_the_files_that_everybody_may_import_import_nothing() -> None:
    for name in EVERYBODY_MAY:
        assert not find_arrows(PACKAGE / f"{name}.py")


def test_a_new_arrow_is_found_however_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "wwopt" / "weights" / "layouts.py"
    file.parent.mkdir(parents=True)
    for line in ("import wwopt.gate", "from wwopt import gate", "from ..gate import checks"):
        file.write_text(f"def late():\n    {line}\n")
        assert find_arrows(file, package=tmp_path / "wwopt") == {"gate"}


def test_names_are_imported_from_where_they_are_defined() -> None:
    """No module hands on what it imported itself; only the doors of wings do, lazily."""
    defined: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            defined[module] = set(find_definitions(tree))
    for path in (
        p for folder in ("wwopt", "tests", "studies") for p in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in defined:
                borrowed = {alias.name for alias in node.names} - defined[node.module]
                assert not borrowed, f"{path}: {node.module} only imports {borrowed}"


def find_definitions(tree: ast.Module) -> Iterator[str]:
    """The names that a module defines, at its top or below a condition."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))


HEAVY = (
    "lightning", "matplotlib", "mlflow", "numpy", "optuna", "pandas", "peft", "plotly", "scipy",
    "torch", "transformers",
)  # fmt: skip


def modules_after(code: str) -> set[str]:
    """Which of the heavy libraries a fresh process holds after running some code."""
    ask = f"import sys\n{code}\nprint('\\n', *(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_doors_open_without_what_lies_behind_them() -> None:
    doors = ", ".join(f"wwopt.{wing}" for wing in MAY_IMPORT)
    assert not modules_after(f"import wwopt, {doors}, wwopt.cli")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_imports_none_of_it(command: list[str]) -> None:
    arguments = [*command, "--help"]
    assert not modules_after(
        f"from wwopt.cli import main; main({arguments}, standalone_mode=False)"
    )


def test_what_only_reads_mlflow_starts_without_torch() -> None:
    words = "wwopt.report.page, wwopt.report.text, wwopt.report.export, wwopt.recommendation.text"
    assert "torch" not in modules_after(f"import {words}, wwopt.tracking.tracked_studies")


# Frameworks take five seconds each to import.
FEW_NAMES = {"integrations"}
DOORS = [
    pytest.param(wing, marks=[pytest.mark.slow] if wing in FEW_NAMES else [])
    for wing in ["", *MAY_IMPORT]
]


@pytest.mark.parametrize("wing", DOORS)
def test_every_name_on_a_door_is_there(wing: str) -> None:
    """A stub is only text: what it promises must be found when it is asked for."""
    door = importlib.import_module(f"wwopt.{wing}".rstrip("."))
    stub = ast.parse((PACKAGE / wing / "__init__.pyi").read_text(encoding="utf-8"))
    names = [a.name for node in stub.body if isinstance(node, ast.ImportFrom) for a in node.names]
    assert (len(names) >= 5 or wing in FEW_NAMES) and names == list(dict.fromkeys(names))
    assert set(names) <= set(dir(door))
    for name in names:
        assert getattr(door, name) is not None
