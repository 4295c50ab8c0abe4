"""The options `--max-NAME` of commands that judge layers: one for each threshold of the gate."""

from collections.abc import Callable
from dataclasses import fields

import click

from wwopt.gate.thresholds import Thresholds


def threshold_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of `Thresholds`, under the field's name."""
    for limit in reversed(fields(Thresholds)):
        flag = f"--max-{limit.name.replace('_', '-')}"
        option = click.option(flag, limit.name, default=limit.default, help=limit.metadata["words"])
        command = option(command)
    return command
