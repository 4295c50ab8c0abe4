"""The argument STUDY is a file, a folder, a name or nothing; what it names not is one line."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from fixtures.studies.recorded_study import Recorded

from wwopt import TrackingError
from wwopt.cli import main
from wwopt.commands.study_argument import find_study
from wwopt.tracking.tracked_studies import TrackedStudy


def test_the_argument_names_a_file_a_folder_a_study_or_nothing(
    recorded: Recorded, tracked: TrackedStudy, tmp_path: Path
) -> None:
    uri = recorded[1]
    folder = Path(uri.removeprefix("sqlite:///")).parent
    file = tmp_path / "study.py"
    file.write_text(
        "import torch, wwopt\n"
        "space = wwopt.LayerSpace.from_model(torch.nn.Sequential(torch.nn.Linear(64, 64)), "
        "lr=(0.1, 1.0), dropout=None, momentum=None)\n"
        "study = wwopt.StudySpec('härte/1', lambda hp, conditions, recorder: None, space)\n"
    )
    elsewhere = tmp_path / "elsewhere"
    for study, out, server in (
        (str(file), folder, None),
        (f"{file}:study", elsewhere, uri),
        (str(folder), elsewhere, None),
        ("härte/1", folder, None),
        ("härte/1", elsewhere, uri),
        (None, folder, None),
    ):
        assert find_study(study, out=out, tracking_uri=server) == tracked
    with pytest.raises(TrackingError, match=r"holds no mlflow.db: `wwopt tune` makes it"):
        find_study(None, out=elsewhere, tracking_uri=None)
    assert not elsewhere.exists()


@pytest.mark.parametrize("command", ["compare", "report", "export"])
def test_commands_say_in_one_line_what_they_cannot_do(command: str, tmp_path: Path) -> None:
    for arguments in (["--out", str(tmp_path)], ["nope.py"]):
        result = CliRunner().invoke(main, [command, *arguments])
        assert result.exit_code == 2
        assert result.stderr.startswith("wwopt: ") and result.stderr.count("\n") == 1
        assert result.stdout == ""
