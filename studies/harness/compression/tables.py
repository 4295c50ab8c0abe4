"""Tables of what the rules lost: means over networks, paired with uniform, with intervals."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from harness.compression.judging import Loss
from harness.score_statistics import Array, bootstrap_interval, mean_interval

RESAMPLES = 4000


def tabulate(losses: Sequence[Loss], budget: str, baseline: tuple[str, str]) -> pd.DataFrame:
    """One row a rule and rounding, over the networks on which every one meets the budget.

    Args:
        losses: of all networks.
        budget: whose rows are wanted.
        baseline: rule and rounding that all others are compared with.
    """
    table = pd.DataFrame([asdict(loss) for loss in losses])
    table = table[table["budget"] == budget].assign(
        network=lambda t: t["kind"] + " " + t["seed"].astype(str)
    )
    wide = table.pivot(index="network", columns=["rule", "rounding"])
    wide = wide.dropna()
    base = {key: wide[key][baseline].to_numpy() for key in ("divergence", "refit")}
    rows = []
    for rule, rounding in wide["divergence"].columns:
        values = {
            key: wide[key][rule, rounding].to_numpy(dtype=float)
            for key in ("share", "divergence", "refit", "error")
        }
        row = {"rule": rule, "rounding": rounding, "networks": len(wide)}
        row |= {"of fp32": f"1/{1.0 / values['share'].mean():.1f}"}
        row |= {"points of error": _mean(100.0 * values["error"], ".2f")}
        row |= {"test loss, nats / 1000": _mean(1000.0 * values["refit"], ".1f")}
        row |= {"of baseline's": ratio(values["refit"], base["refit"])}
        row |= {"divergence, of baseline's": geometric(values["divergence"], base["divergence"])}
        rows.append(row)
    return pd.DataFrame(rows)


def _mean(values: Array, form: str) -> str:
    return format(mean_interval(values, resamples=RESAMPLES), form)


def ratio(values: Array, base: Array) -> str:
    """Ratio of the means over networks, with its paired bootstrap interval."""
    found = bootstrap_interval(
        (values, base), _ratio_of_means, resamples=RESAMPLES, seed=0, paired=True
    )
    return f"{found:.2f}"


def _ratio_of_means(values: Array, base: Array) -> float:
    return float(values.mean() / base.mean())


def geometric(values: Array, base: Array) -> str:
    """Geometric mean over networks of a ratio, with its interval."""
    found = mean_interval(np.log(values / base), resamples=RESAMPLES)
    return f"{np.exp(found.value):.2f} [{np.exp(found.low):.2f}, {np.exp(found.high):.2f}]"


def count_wins(
    losses: Sequence[Loss], budget: str, first: tuple[str, str], second: tuple[str, str]
) -> str:
    """On how many networks the first diverges less than the second."""
    by = {(x.kind, x.seed, x.rule, x.rounding): x.divergence for x in losses if x.budget == budget}
    pairs = [
        (by[(*network, *first)], by[(*network, *second)])
        for network in dict.fromkeys((x.kind, x.seed) for x in losses)
        if {(*network, *first), (*network, *second)} <= by.keys()
    ]
    return f"{sum(a < b for a, b in pairs)} of {len(pairs)}"
