"""The walls: which module may import which, and what importing wwopt must not drag in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wwopt

PACKAGE = Path(__file__).parents[1] / "wwopt"

# Module → the modules of ours that it may import. `study` is split by idea (what a study is, how it
# is referred to, where Optuna keeps it, how its trials run, how it is tuned); so is `weights`, by
# where tensors come from.
READING = {
    "stored_tensors": set(),
    "base_deltas": {"stored_tensors"},
    "adapter_settings": set(),
    "adapters": {"adapter_settings", "stored_tensors", "base_deltas"},
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
        "adapter_settings",
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
    "element_moments": {"gram_matrices"},
    "lanczos": set(),
    "shuffles": {"gram_matrices"},
    "shuffled_grams": {"gram_matrices", "shuffles"},
    "large_layers": {"lanczos"},
    # The scale on which a shuffle's largest eigenvalue is wanted is that of its law.
    "spectrum": {
        "element_moments",
        "weights",
        "gram_matrices",
        "lanczos",
        "shuffles",
        "shuffled_grams",
        "large_layers",
        "marchenko_pastur",
    },
    "parallel": {"weights"},
    "traps": {"spectrum", "marchenko_pastur"},
    "norms": set(),
    "truncated_power_law": set(),
    "layer_tables": set(),
    "model_metrics": {"layer_tables", "spectrum"},
    "layer_metrics": {
        "model_metrics",
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
    "model_layers": set(),
    "layer_ties": set(),
    "layer_hyperparameters": {"model_layers"},
    "layer_space": {"layer_hyperparameters", "layer_ties", "model_layers"},
    # What a sampler sees of a study, and the choice among samplers.
    "trials_view": set(),
    "sampling": {"trial_constraints", "trials_view"},
    "refinement": {"layer_space", "trial_constraints", "trials_view"},
    "strata": {"layer_space", "trial_constraints", "trials_view"},
    "tracking": set(),
    "tracked_trials": {"tracking"},
    "tracked_studies": {"tracked_trials", "tracking"},
    # After a study: its trials side by side, what mattered, and one page that says it all.
    "comparison": {"tracked_studies", "tracking"},
    "trial_pairs": {"comparison", "tracked_studies", "tracking"},
    "rank_correlation": set(),
    "importance": {"comparison", "rank_correlation", "tracked_studies", "tracking"},
    "comparison_text": {"comparison", "importance", "tracked_studies", "tracking", "trial_pairs"},
    "other_choices": {"rank_correlation", "tracked_studies", "tracking"},
    "study_warnings": {
        "comparison",
        "comparison_text",
        "importance",
        "other_choices",
        "rank_correlation",
        "tracked_studies",
    },
    "report_data": {
        "importance",
        "other_choices",
        "study_warnings",
        "tracked_studies",
        "tracking",
    },
    "figure_style": {"comparison_text"},
    "report_figures": {
        "comparison",
        "comparison_text",
        "figure_style",
        "report_data",
        "tracked_studies",
        "tracking",
    },
    "report_layer_figures": {
        "comparison",
        "figure_style",
        "report_data",
        "tracked_studies",
        "tracking",
    },
    "report": {
        "comparison",
        "comparison_text",
        "figure_style",
        "other_choices",
        "report_data",
        "report_figures",
        "report_layer_figures",
        "report_recommendation",
        "tracked_studies",
        "tracking",
    },
    "study_explanation": {
        "layer_metrics",
        "plots",
        "report",
        "report_recommendation",
        "tracked_studies",
        "tracking",
    },
    "dashboard_notes": {"trial_summary"},
    "plain_data": set(),
    "export": {"comparison", "plain_data", "tracked_studies", "tracking"},
    "learning_curves": set(),
    "tuning_curves": set(),
    "probes": {
        "advice",
        "layer_hyperparameters",
        "layer_metrics",
        "layer_space",
        "objective",
        "recorder",
        "study",
    },
    "probe_runs": {
        "comparison",
        "layer_hyperparameters",
        "plain_data",
        "probes",
        "study",
        "tracked_studies",
        "tracking",
    },
    "evidence": {"probes"},
    "action_gains": {"evidence", "learning_curves", "probes", "tuning_curves"},
    "decisions": {"action_gains", "probes"},
    "layer_findings": {"layer_metrics", "probes"},
    "recommendation": {
        "action_gains",
        "decisions",
        "evidence",
        "layer_findings",
        "other_choices",
        "probe_runs",
        "probes",
        "study",
        "tracked_studies",
    },
    "recommendation_phrases": {"action_gains", "decisions", "recommendation"},
    "recommendation_text": {"plain_data", "recommendation", "recommendation_phrases"},
    "recommendation_plot": {"layer_plot", "recommendation", "recommendation_phrases"},
    "report_recommendation": {
        "comparison_text",
        "figure_style",
        "layer_findings",
        "recommendation",
        "recommendation_phrases",
        "recommendation_plot",
        "tracked_studies",
    },
    "trial_summary": {"layer_metrics", "objective"},
    "convergence": {"layer_metrics"},
    "lr_factors": {"convergence", "layer_metrics"},
    "advice": {"convergence", "layer_metrics", "lr_factors"},
    # What a network must not do, as Optuna's constraints; and of which score a study's values are.
    "guards": {"layer_metrics"},
    "trial_constraints": {"guards"},
    "score_version": {"objective"},
    "trial_log": {"layer_metrics", "objective", "tracking", "trial_summary"},
    # A trial: its conditions, what its steps do, and the block around them.
    "conditions": set(),
    "trial_recorder": {
        "advice",
        "guards",
        "layer_metrics",
        "objective",
        "tracking",
        "trial_constraints",
        "trial_log",
        "trial_summary",
    },
    "recorder": {
        "conditions",
        "guards",
        "objective",
        "score_version",
        "tracking",
        "trial_recorder",
    },
    "study_spec": {
        "guards",
        "layer_hyperparameters",
        "layer_metrics",
        "layer_space",
        "objective",
        "recorder",
        "refinement",
        "sampling",
        "score_version",
        "strata",
        "tracking",
    },
    "study": {"study_spec"},
    "trials": {"study", "tracking", "trial_constraints"},
    "study_storage": {"objective", "score_version", "study", "tracking", "trials"},
    "tuning": {
        "dashboard_notes",
        "recorder",
        "strata",
        "study",
        "study_explanation",
        "study_spec",
        "study_storage",
        "tracking",
        "trial_constraints",
        "trials",
    },
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
    "alpha_axes": {"layer_metrics", "layer_plot"},
    "model_plot": {"alpha_axes", "layer_metrics", "description", "layer_plot"},
    "plots": {"layer_metrics", "layer_plot", "model_plot"},
    # The gate in five: what changed, what is too much, which layers, what the past says, in words.
    "layer_changes": {"layer_metrics", "marchenko_pastur", "spectrum", "weights"},
    "layer_damage": {"layer_changes", "layer_metrics"},
    "gate": {"layer_changes", "layer_damage", "layer_metrics", "base_deltas", "weights"},
    "gate_history": {"gate", "layer_damage", "base_deltas"},
    "gate_report": {"gate", "gate_history", "layer_damage"},
    # Selection: who asks, which question it is, by which score, how sure, in what order.
    "candidates": {
        "checkpoint_files",
        "layer_metrics",
        "module_tensors",
        "stored_tensors",
    },
    "candidate_scores": {"layer_metrics", "objective"},
    "candidate_warnings": {"description", "layer_metrics"},
    "model_families": {"base_deltas", "candidates", "layer_metrics", "layer_tables"},
    "score_intervals": {"candidate_scores", "layer_metrics", "objective", "traps"},
    "rankings": {"layer_metrics"},
    "ranking_report": {"model_families", "rankings"},
    "ranking_plot": {
        "alpha_axes",
        "description",
        "layer_metrics",
        "layer_plot",
        "model_families",
        "rankings",
    },
    "tracked_candidates": {
        "candidates",
        "tracked_studies",
        "tracked_trials",
        "tracking",
    },
    "selection": {
        "candidate_scores",
        "candidate_warnings",
        "candidates",
        "description",
        "layer_metrics",
        "model_families",
        "objective",
        "parallel",
        "rankings",
        "score_intervals",
    },
    "cli": {"commands"},
}


def imports_of(path: Path) -> set[str]:
    """What a module imports, or all files of a package."""
    package = path.with_suffix("")
    files = sorted(package.glob("*.py")) if package.is_dir() else [path]
    names: set[str] = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def modules() -> list[str]:
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"commands"}
    return sorted(files | packages)


def commands() -> list[str]:
    return sorted(f"commands/{path.stem}" for path in (PACKAGE / "commands").glob("*.py"))


def test_the_table_names_every_module() -> None:
    assert modules() == sorted(ALLOWED)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_the_table_allows(module: str) -> None:
    found = {
        name.split(".")[1] for name in imports_of(PACKAGE / f"{module}.py") if "wwopt." in name
    }
    assert found - {module} <= ALLOWED[module]


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


HEAVY = ("mlflow", "matplotlib", "optuna", "plotly", "scipy", "torch")


@pytest.mark.parametrize(
    "code", ["import wwopt", "import wwopt.cli", "import wwopt.comparison_text"]
)
def test_importing_wwopt_stays_light(code: str) -> None:
    code = f"import sys; {code}; print([m for m in {HEAVY} if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_type_checkers_see_the_public_names_where_they_are() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    shown = {
        alias.name: str(node.module).removeprefix("wwopt.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert shown == wwopt._HOMES
    assert wwopt.__all__ == sorted(shown) and set(shown) <= set(dir(wwopt))
    for name, home in shown.items():
        assert getattr(wwopt, name).__module__.startswith("wwopt."), (name, home)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wwopt.nothing
