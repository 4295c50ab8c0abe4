"""Commands that analyse share their options: a model, layers, a seed, shuffles and a device."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from wwopt.cli import main
from wwopt.commands.analysis_options import analysis_options


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], {"layers": None, "key": None, "seed": 0, "shuffles": 3, "device": None}),
        (["--quick"], {"quick": True}),
        (["--layers", "fc1, h.*.attn"], {"layers": ["fc1", "h.*.attn"]}),
        (["--layers", ""], {"layers": None}),
        (["--key", "model.ema"], {"key": "model.ema"}),
        (["--seed", "7", "--shuffles", "0", "--device", "cpu"], {"seed": 7, "shuffles": 0}),
    ],
)
def test_a_command_gets_what_was_asked_for(arguments: list[str], given: dict[str, Any]) -> None:
    heard: dict[str, Any] = {}

    @click.command()
    @analysis_options(seed_of="something")
    def listen(**options: Any) -> None:
        heard.update(options)

    assert CliRunner().invoke(listen, arguments).exit_code == 0
    assert set(heard) == {"layers", "key", "seed", "shuffles", "quick", "device"}
    assert heard.items() >= given.items()


@pytest.mark.parametrize("command", ["analyze", "check", "rank", "watch"])
def test_every_command_that_analyses_has_them(command: str) -> None:
    said = " ".join(CliRunner().invoke(main, [command, "--help"]).stdout.split())
    for option in (
        "--layers TEXT",
        "--key NAME",
        "--seed INTEGER Seed of",
        "--shuffles INTEGER",
        "--quick",
        "--device",
    ):
        assert option in said
