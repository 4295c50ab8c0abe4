"""Errors that a command expects end it in one line, without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def failing_in_one_line() -> Iterator[None]:
    """End the command with `wwopt: …` and exit status 2 where the block cannot do it."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("wwopt: interrupted", err=True)
        sys.exit(130)
    except (ValueError, OSError, KeyError) as error:
        # A KeyError's text is the repr of its message.
        message = error.args[0] if isinstance(error, KeyError) else error
        click.echo(f"wwopt: {message}", err=True)
        sys.exit(2)
