"""The command line: what a command cannot do is one line and a status, never a traceback."""

from collections.abc import Iterator
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

import wwopt
from wwopt.cli import COMMANDS, Commands, main


@pytest.fixture
def failing() -> Iterator[click.Group]:
    """A group whose command `fail` raises what its context holds."""

    @click.command()
    @click.pass_obj
    def fail(error: BaseException) -> None:
        raise error

    class Failing(Commands):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return fail

    yield Failing("group")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("no such layer"), 2, "wwopt: no such layer"),
        (wwopt.StudyError("no study"), 2, "wwopt: no study"),
        (wwopt.TrackingError("no store"), 2, "wwopt: no store"),
        (KeyError("has no trial 99"), 2, "wwopt: has no trial 99"),  # without its quotes
        (FileNotFoundError(2, "not there", "x.pt"), 2, "wwopt: [Errno 2] not there: 'x.pt'"),
        (OSError(), 2, "wwopt: OSError"),
        (click.ClickException("no device"), 2, "wwopt: no device"),
        (KeyboardInterrupt(), 130, "wwopt: interrupted"),
    ],
)
def test_what_a_command_raises_is_one_line_and_a_status(
    failing: click.Group, error: BaseException, status: int, said: str
) -> None:
    result = CliRunner().invoke(failing, ["fail"], obj=error)
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", f"{said}\n")


def test_a_fault_of_our_own_is_not_hidden(failing: click.Group) -> None:
    fault = TypeError("a bug")
    assert CliRunner().invoke(failing, ["fail"], obj=fault).exception is fault


def test_wrong_usage_is_clicks_own_to_say() -> None:
    for arguments in (["nonsense"], ["analyze"], ["check", "one"], ["tune", "--trials", "x", "a"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2 and result.stderr.startswith("Usage: ")


def test_help_lists_the_commands_in_the_order_in_which_they_are_met() -> None:
    text = CliRunner().invoke(main, ["--help"]).stdout
    listed = [line.split()[0] for line in text.partition("Commands:\n")[2].splitlines()]
    assert tuple(listed) == COMMANDS


def test_an_option_can_be_given_in_the_environment() -> None:
    result = CliRunner().invoke(main, ["compare"], env={"WWOPT_COMPARE_OUT": "/nowhere/at/all"})
    assert result.exit_code == 2
    assert "/nowhere/at/all holds no mlflow.db" in result.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert version("wwopt") in CliRunner().invoke(main, ["--version"]).stdout
