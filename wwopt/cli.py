"""The command line: `wwopt COMMAND`. Each command is a file in `wwopt.commands`.

They resolve files and names and hand plain values down. Exit status: 0 fine, 1 a finding or a
partial result, 2 could not do it.
"""

from importlib import import_module

import click

# Each is the function of that name in the module of that name. A command is imported when it is
# asked for: torch alone takes a second.
COMMANDS = ("tune", "analyze", "check", "rank", "compare", "recommend", "report", "export")


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


@click.group(cls=Commands, context_settings={"auto_envvar_prefix": "WWOPT", "show_default": True})
@click.version_option(package_name="wwopt")
def main() -> None:
    """Tune, pick and judge neural networks without test data, from their weights' spectra."""
