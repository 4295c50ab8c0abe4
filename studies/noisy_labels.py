"""Do networks that were given wrong labels show it, and do clean ones not?

    python studies/noisy_labels.py zoos/*                   # 20 s

The arguments are folders of `objective_vs_test_error.py make`; MLPs and CNNs on MNIST images count,
those that get more than half of the validation images right at the end of training. The question is
that of `wwopt recommend`, which compares the training loss with the validation error. Tables
(Markdown): how many look noisy, by zoo and loss; how well the loss and the spectral sign of
memorised labels, the cutoff of the first layer's tail, separate noisy zoos from clean ones; and
what becomes of the limit where it was chosen on the other kind of network.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import pandas as pd
from scipy import stats

from harness.markdown_tables import format_markdown
from harness.zoos.label_noise import (
    LOSSES,
    Networks,
    UnknownTaskError,
    choose_limit,
    clean_ones,
    count_noisy,
    measure_area,
    noisy_ones,
    read_networks,
    share_shown,
)

SHOWN_BY = "noisy ones, clean ones that show it"


def tabulate_shares(zoos: Sequence[Networks]) -> pd.DataFrame:
    """How many look noisy, by zoo, and together; with 95 % intervals of the shares together."""
    rows = {}
    for zoo in zoos:
        counts = {
            words: f"{some} of {zoo.error.size}" for words, some in count_noisy([zoo]).items()
        }
        rows[f"{zoo.name}, {zoo.wrong:.0%} wrong"] = counts
    for name, members in (("noisy", noisy_ones(zoos)), ("clean", clean_ones(zoos))):
        networks = sum(zoo.error.size for zoo in members)
        rows[f"**all {name}**"] = {
            words: f"{some} of {networks}: {_share_interval(some, networks)}"
            for words, some in count_noisy(members).items()
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _share_interval(some: int, networks: int) -> str:
    """Jeffreys' interval (Brown, Cai & DasGupta 2001, Statistical Science 16:101)."""
    low, high = stats.beta.ppf([0.025, 0.975], some + 0.5, networks - some + 0.5)
    return f"{some / networks:.0%} [{low:.0%}, {high:.0%}]"


def tabulate_separation(zoos: Sequence[Networks]) -> pd.DataFrame:
    """Area under the curve where zoos differ in their labels alone, with bootstrap intervals."""
    rows = {}
    for noisy in noisy_ones(zoos):
        for clean in filter(noisy.differs_in_noise_alone, clean_ones(zoos)):
            areas = {
                f"loss {words}": measure_area(noisy.losses[key], clean.losses[key])
                for key, words in LOSSES.items()
            }
            areas["tail's cutoff"] = measure_area(noisy.cutoff, clean.cutoff)
            rows[f"{noisy.name} against {clean.name}"] = areas
    return pd.DataFrame.from_dict(rows, orient="index")


def tabulate_transfer(zoos: Sequence[Networks]) -> pd.DataFrame:
    """Slope and offset of the limit, chosen on one kind of network and judged on the other.

    Chosen where the share of noisy networks that show it exceeds that of clean ones most; of such
    limits, the one nearest to their middle.
    """
    rows = {}
    for kind, other in (("mlp", "cnn"), ("cnn", "mlp")):
        chosen_on = [zoo for zoo in zoos if zoo.kind == kind]
        judged_on = [zoo for zoo in zoos if zoo.kind == other]
        for key, words in LOSSES.items():
            slope, offset = choose_limit(chosen_on, key)
            rows[f"{kind} → {other}, loss {words}"] = {
                "limit": f"{offset:.2f} - {slope:.2f} ln(1 - error)",
                f"where chosen: {SHOWN_BY}": _tell(share_shown(chosen_on, key, slope, offset)),
                f"where judged: {SHOWN_BY}": _tell(share_shown(judged_on, key, slope, offset)),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def _tell(shares: tuple[float, float]) -> str:
    return f"{shares[0]:.0%}, {shares[1]:.0%}"


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def main(folders: Sequence[Path]) -> None:
    """Judge `wwopt recommend`'s word on labels on the zoos in FOLDERS."""
    try:
        zoos = [zoo for folder in folders if (zoo := read_networks(folder)) is not None]
    except UnknownTaskError as error:
        raise click.ClickException(str(error)) from error
    kinds = {(zoo.kind, zoo.task.noise > 0.0) for zoo in zoos}
    if len(kinds) < 4:
        raise click.ClickException(
            "noisy and clean zoos of MLPs and of CNNs are needed, got "
            f"{', '.join(zoo.name for zoo in zoos) or 'none'}; "
            "make mnist-mlp-noise, mnist-mlp-seeds, mnist-cnn-noise and mnist-cnn first"
        )
    for table in (tabulate_shares(zoos), tabulate_separation(zoos), tabulate_transfer(zoos)):
        click.echo(format_markdown(table) + "\n")


if __name__ == "__main__":
    main()
