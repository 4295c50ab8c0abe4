"""The command line: `wwopt COMMAND`. Each command is a file in `wwopt.commands`.

They resolve files and names and hand plain values down. Exit status: 0 fine, 1 a finding or a
partial result, 2 could not do it.
"""

import click

from wwopt.commands.analyze import analyze
from wwopt.commands.check import check
from wwopt.commands.tune import tune


@click.group(context_settings={"auto_envvar_prefix": "WWOPT", "show_default": True})
@click.version_option(package_name="wwopt")
def main() -> None:
    """Tune, pick and judge neural networks without test data, from their weights' spectra."""


for command in (tune, analyze, check):
    main.add_command(command)
