"""Commands that run trials share where a study lies, and hand its data on."""

import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from wwopt.cli import main
from wwopt.commands.study_options import study_options


def test_a_command_gets_the_places_and_study_files_get_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WWOPT_DATA", "elsewhere")
    monkeypatch.chdir(tmp_path)
    heard: dict[str, Any] = {}

    @click.command()
    @study_options
    def listen(**options: Any) -> None:
        heard.update(options)

    assert CliRunner().invoke(listen, ["--data", "images"]).exit_code == 0
    assert heard == {"out": Path("wwopt-runs"), "storage": None, "tracking_uri": None}
    assert os.environ["WWOPT_DATA"] == str(tmp_path / "images")


@pytest.mark.parametrize("command", ["tune", "worker", "ask", "tell"])
def test_every_command_that_runs_trials_has_them(command: str) -> None:
    said = " ".join(CliRunner().invoke(main, [command, "--help"]).stdout.split())
    for option in ("--out PATH", "--storage TEXT", "--tracking-uri TEXT", "--data PATH"):
        assert option in said
