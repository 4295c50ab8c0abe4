"""The command line: `wwopt COMMAND`. Each command is a file in `wwopt.commands`.

They resolve files and names and hand plain values down. Exit status: 0 fine, 1 a finding or a
partial result, 2 could not do it, 130 interrupted.
"""

import signal
from importlib import import_module
from typing import Any

import click

from wwopt.commands.interrupts import hear_interrupts

# Each is the function of that name in the module of that name. A command is imported when it is
# asked for, and imports what it works with when it runs: torch alone takes a second, and help is
# asked for more often than anything else.
COMMANDS = (
    "tune",
    "worker",
    "ask",
    "tell",
    "analyze",
    "check",
    "watch",
    "rank",
    "tree",
    "compress",
    "compare",
    "recommend",
    "report",
    "export",
)


class Commands(click.Group):
    """The commands, in the order in which a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, from the file of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"wwopt.commands.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what it cannot do is said in one line, without a traceback.

        Our own errors are ValueErrors whose message says what happened and the way out; a
        KeyError's message is its first argument. Any error after an interrupt is taken for it:
        compiled code that calls Python code, torch's among it, passes on some other error where a
        KeyboardInterrupt was raised.
        """
        with hear_interrupts(ctx) as heard:
            try:
                return super().invoke(ctx)
            except (click.UsageError, BrokenPipeError, click.exceptions.Exit):
                raise  # click says them itself
            except KeyboardInterrupt:
                heard.append(signal.SIGINT)
                reason = ""
            except click.ClickException as error:
                reason = error.format_message()
            except KeyError as error:
                reason = str(error.args[0])
            except (ValueError, OSError) as error:
                reason = str(error) or type(error).__name__
            except Exception as error:
                if not heard:
                    raise
                reason = str(error)
        click.echo("wwopt: interrupted" if heard else f"wwopt: {reason}", err=True)
        ctx.exit(130 if heard else 2)


@click.group(cls=Commands, context_settings={"auto_envvar_prefix": "WWOPT", "show_default": True})
@click.version_option(package_name="wwopt")
def main() -> None:
    """Tune, pick and judge neural networks without test data, from their weights' spectra."""
