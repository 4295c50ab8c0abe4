"""The options of commands that analyse checkpoints: which model, which layers, how and where."""

from collections.abc import Callable
from typing import Any

import click


def analysis_options(*, seed_of: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options --layers, --key, --seed, --shuffles, --quick and --device.

    The command gets `layers` as a list of names and patterns, or None for all layers.

    Args:
        seed_of: what the seed is of, for the help.
    """
    options: tuple[Any, ...] = (
        click.option(
            "--layers",
            callback=_split_names,
            help="Only layers of these names or patterns, separated by commas.",
        ),
        click.option(
            "--key",
            metavar="NAME",
            help="Model in a training checkpoint that holds several: a dotted path such as ema.",
        ),
        click.option("--seed", default=0, help=f"Seed of {seed_of}."),
        click.option(
            "--shuffles", default=3, help="Shuffles of every layer; 0 leaves traps unknown."
        ),
        click.option(
            "--quick",
            is_flag=True,
            help="Estimate layers from 1,536 columns on, in a fraction of the time.",
        ),
        click.option("--device", show_default="where the weights lie", help="As torch names it."),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _split_names(_: click.Context, __: click.Parameter, given: str | None) -> list[str] | None:
    return [name.strip() for name in given.split(",")] if given else None
