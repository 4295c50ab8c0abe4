"""The walls: which wing may import which, and what importing wwopt must not drag in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.paths import ROOT

PACKAGE = ROOT / "wwopt"

# Wing → the wings that it may import, the lowest first. A change of this table is a decision.
MAY_IMPORT = {
    "weights": "",
    "tracking": "",
    "spectra": "weights",
    "metrics": "weights spectra",
    "gate": "weights spectra metrics",
    "selection": "weights spectra metrics tracking",
    "study": "metrics tracking",
    "recommendation": "metrics study tracking",
    "report": "metrics recommendation tracking",
    "tuning": "metrics study tracking report",
}
EVERYBODY_MAY = {"plain_data", "wording"}


def find_arrows(path: Path) -> set[str]:
    """The parts of wwopt, wings or files of its own, that a file imports, wherever in it."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            module = ".".join([*home, *filter(None, [node.module])])
            imported |= {f"{module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in imported if name.startswith("wwopt.")}


@pytest.mark.parametrize("wing", [wing for wing in MAY_IMPORT if (PACKAGE / wing).is_dir()])
def test_a_wing_imports_only_what_its_row_allows(wing: str) -> None:
    allowed = {wing, *MAY_IMPORT[wing].split(), *EVERYBODY_MAY}
    for path in sorted((PACKAGE / wing).rglob("*.py")):
        assert find_arrows(path) <= allowed, path


HEAVY = ("mlflow", "matplotlib", "optuna", "plotly", "scipy", "torch")


@pytest.mark.parametrize("code", ["import wwopt", "import wwopt.cli"])
def test_importing_wwopt_stays_light(code: str) -> None:
    code = f"import sys; {code}; print([m for m in {HEAVY} if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
