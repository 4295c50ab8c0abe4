"""The options of thresholds have the gate's names, defaults and words."""

from dataclasses import fields

import click
from click.testing import CliRunner

from wwopt.commands.threshold_options import threshold_options
from wwopt.gate.thresholds import Thresholds


def test_a_command_gets_an_option_for_each_threshold() -> None:
    @click.command()
    @threshold_options
    def judge(**thresholds: float) -> None:
        click.echo(Thresholds(**thresholds) == Thresholds(max_abs=3.0))

    result = CliRunner().invoke(judge, ["--max-max-abs", "3"])
    assert result.output == "True\n"
    help_text = " ".join(CliRunner().invoke(judge, ["--help"]).output.split())
    for limit in fields(Thresholds):
        assert limit.metadata["words"] in help_text
