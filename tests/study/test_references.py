"""Study files and references: what loads, and what is said of what does not.

What is said is one line, of the type that `errors` has for a study.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.studies.quick_studies import TINY_STUDY

from wwopt.study.errors import StudyError
from wwopt.study.references import load_study, reference_of


def test_a_file_and_an_attribute_are_references(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TINY_STUDY + "other = study\n")
    assert load_study(str(tmp_path / "mine.py")).name == "tiny"
    assert load_study(f"{tmp_path / 'mine.py'}:other").name == "tiny"


def test_a_loaded_study_knows_its_own_reference(study_file: str) -> None:
    assert reference_of(load_study(study_file)) == f"{study_file}:study"


def test_a_study_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "wwopt_test_neighbour.py").write_text(TINY_STUDY)
    (tmp_path / "mine.py").write_text("from wwopt_test_neighbour import study\n")
    assert load_study(str(tmp_path / "mine.py")).name == "tiny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no attribute 'study'"),
        ("study = 3", "study is a int, not a StudySpec"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named .* \\(line 1\\)"),
        ("\n\n1/0", "ZeroDivisionError: division by zero \\(line 3\\)"),
        ("def f(:", "SyntaxError: .* \\(line 1\\)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_file_without_a_study_is_refused_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(StudyError, match=message) as caught:
        load_study(str(tmp_path / "mine.py"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nofile.py", "study file nofile.py does not exist"),
        ("digits", "'digits' is no study: name a file"),
        ("no.such.module:study", "ModuleNotFoundError"),
    ],
)
def test_a_reference_to_nothing_is_refused(reference: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        load_study(reference)


def test_a_study_in_main_cannot_be_referred_to() -> None:
    code = TINY_STUDY + "from wwopt.study import reference_of\nreference_of(study)\n"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "defined in __main__" in result.stderr
