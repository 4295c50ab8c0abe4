"""The README's commands and examples are the ones that run."""

import re
from pathlib import Path

import optuna
import pytest
from fixtures.paths import ROOT

TEXT = (ROOT / "README.md").read_text()


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    study = namespace["study"]
    assert isinstance(study, optuna.Study)
    assert len(study.trials) == 3
    assert study.best_trial.user_attrs["alpha"]["0"] > 1.0
    assert (tmp_path / "mlflow.db").exists()


def test_it_can_be_read_at_one_sitting() -> None:
    """What is added replaces something; what it loses moves to docs."""
    assert len(TEXT.splitlines()) < 200
    assert len(re.findall(r"!\[[^]]*\]\(", TEXT)) == 1


def test_continuous_integration_calls_the_readmes_test_command() -> None:
    commands = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    tests = [c.strip() for c in commands if "pytest" in c]
    assert len(tests) == 1
    assert tests[0] in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!https?:)[^)#]+)\)", TEXT))))
def test_links_to_files_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
