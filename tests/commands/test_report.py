"""`wwopt report` end to end: it writes the page, or one line that says why not."""

from pathlib import Path

from click.testing import CliRunner
from fixtures.readers.pages import Page
from fixtures.studies.recorded_study import Recorded

from wwopt.cli import main


def test_the_command_writes_the_page(recorded: Recorded, tmp_path: Path) -> None:
    folder = str(Path(recorded[1].removeprefix("sqlite:///")).parent)
    file = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["report", folder, "-o", str(file)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert "study härte/1, 14 trials" in result.stdout
    assert "history" in Page(file.read_text("utf-8")).ids
    nowhere = str(tmp_path / "none" / "page.html")
    result = CliRunner().invoke(main, ["report", folder, "-o", nowhere])
    assert result.exit_code == 2 and result.stderr.startswith("wwopt: ")
