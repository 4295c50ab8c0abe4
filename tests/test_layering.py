"""The walls: which module may import which, and what importing wwopt must not drag in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wwopt"

# Module → the modules of ours that it may import. `study` is split in three (what a study is, how
# its trials run, how it is tuned), and `weights` by where tensors come from: each file one idea.
READING = {
    "stored_tensors": set(),
    "base_deltas": {"stored_tensors"},
    "adapters": {"stored_tensors", "base_deltas"},
    "effective_weights": {"stored_tensors"},
    "matrix_layouts": {"stored_tensors"},
    "module_tensors": {"stored_tensors"},
    "safetensors_files": {"stored_tensors"},
    "pickled_checkpoints": {"stored_tensors"},
    "distributed_checkpoints": {"stored_tensors"},
    "checkpoint_files": {
        "stored_tensors",
        "safetensors_files",
        "pickled_checkpoints",
        "distributed_checkpoints",
    },
    "weights": {
        "stored_tensors",
        "adapters",
        "base_deltas",
        "checkpoint_files",
        "effective_weights",
        "matrix_layouts",
        "module_tensors",
    },
}
ALLOWED = READING | {
    "power_law": set(),
    "marchenko_pastur": {"power_law"},
    "gram_matrices": set(),
    "shuffles": set(),
    "large_layers": {"shuffles"},
    "spectrum": {"weights", "gram_matrices", "shuffles", "large_layers"},
    "parallel": {"weights"},
    "traps": {"spectrum", "marchenko_pastur"},
    "norms": set(),
    "truncated_power_law": set(),
    "layer_metrics": {
        "weights",
        "power_law",
        "truncated_power_law",
        "marchenko_pastur",
        "norms",
        "parallel",
        "spectrum",
        "traps",
    },
    "objective": {"layer_metrics"},
    "layer_space": set(),
    "tracking": {"layer_metrics"},
    "trial_summary": {"layer_metrics", "objective"},
    "recorder": {"layer_metrics", "objective", "tracking", "trial_summary"},
    "study": {"layer_metrics", "layer_space", "objective", "recorder", "tracking"},
    "trials": {"study", "tracking"},
    "tuning": {"objective", "layer_space", "recorder", "tracking", "study", "trials"},
    "random_bulk": {"layer_metrics", "marchenko_pastur"},
    "broken_power_law": set(),
    "spectral_shape": {
        "layer_metrics",
        "power_law",
        "truncated_power_law",
        "broken_power_law",
        "random_bulk",
        "spectrum",
    },
    "description": {"layer_metrics", "random_bulk", "spectral_shape"},
    "layer_plot": {
        "layer_metrics",
        "marchenko_pastur",
        "traps",
        "random_bulk",
        "broken_power_law",
        "spectral_shape",
        "description",
    },
    "model_plot": {"layer_metrics", "description", "layer_plot"},
    "plots": {"layer_metrics", "layer_plot", "model_plot"},
    # The gate in five: what changed, what is too much, which layers, what the past says, in words.
    "layer_changes": {"layer_metrics", "marchenko_pastur", "spectrum", "weights"},
    "layer_damage": {"layer_changes", "layer_metrics"},
    "gate": {"layer_changes", "layer_damage", "layer_metrics", "base_deltas", "weights"},
    "gate_history": {"gate", "layer_damage", "base_deltas"},
    "gate_report": {"gate", "gate_history", "layer_damage"},
    "cli": {"commands"},
}


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def commands() -> list[str]:
    return sorted(f"commands/{path.stem}" for path in (PACKAGE / "commands").glob("*.py"))


def test_the_table_names_every_module() -> None:
    assert modules() == sorted(ALLOWED)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_the_table_allows(module: str) -> None:
    found = {
        name.split(".")[1] for name in imports_of(PACKAGE / f"{module}.py") if "wwopt." in name
    }
    assert found <= ALLOWED[module]


@pytest.mark.parametrize("module", [m for m in modules() if m not in ("cli", "__init__")])
def test_only_the_command_line_imports_commands(module: str) -> None:
    assert not {n for n in imports_of(PACKAGE / f"{module}.py") if n.startswith("wwopt.commands")}


@pytest.mark.parametrize("module", [m for m in modules() + commands() if m != "tracking"])
def test_only_tracking_imports_mlflow(module: str) -> None:
    roots = {name.split(".")[0] for name in imports_of(PACKAGE / f"{module}.py")}
    assert "mlflow" not in roots


def test_the_table_has_no_cycle() -> None:
    order: list[str] = []
    left = {module: needs - {"commands"} for module, needs in ALLOWED.items()}
    while left:
        free = [module for module, needs in left.items() if needs <= set(order)]
        assert free, f"a cycle among {sorted(left)}"
        order += free
        left = {module: needs for module, needs in left.items() if module not in free}


def test_importing_wwopt_stays_light() -> None:
    code = "import sys, wwopt; print([m for m in ('mlflow', 'matplotlib') if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
