"""How good is a method that chooses among networks, and how many labelled examples is it worth?

Tau is Kendall's, with the test error; regret is what the chosen network lacks, in points of test
accuracy; ties are broken at random in both. They are means over the architectures, inside each of
them. A method's worth in labelled examples is the size of a validation set that does as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from harness.markdown_tables import format_markdown
from harness.score_statistics import Array, find_bounds, resample

Results = dict[str, tuple[float, float]]  # method → tau, regret

SAMPLES = 400  # of networks with replacement, for the intervals
SHOWN = (100, 300, 1000)  # sizes of validation sets that the table has


@dataclass(frozen=True)
class Networks:
    """The networks of one architecture that did not diverge."""

    name: str
    error: Array  # (networks,): share of the test images that are told wrong
    scores: dict[str, Array]  # method → (networks,), lower is better
    validation: dict[int, Array]  # size → (draws, networks): error on validation sets
    diverged: int  # networks that are left out


def judge(found: Sequence[Networks], rows: Sequence[NDArray[np.int64]]) -> Results:
    """Tau and regret of every method on the given rows of each architecture's networks."""
    results: dict[str, list[Array]] = {}
    for networks, chosen in zip(found, rows, strict=True):
        error = networks.error[chosen]
        methods = {name: values[None] for name, values in networks.scores.items()}
        methods |= {f"validation {size}": draws for size, draws in networks.validation.items()}
        methods["random"] = np.zeros((1, len(networks.error)))
        for name, draws in methods.items():
            pair = np.array([_tau(draws[:, chosen], error), _regret(draws[:, chosen], error)])
            results.setdefault(name, []).append(pair)
    means = {name: np.mean(pairs, axis=0) for name, pairs in results.items()}
    return {name: (float(mean[0]), float(mean[1])) for name, mean in means.items()}


def _tau(scores: Array, error: Array) -> float:
    """Mean over the rows of scores of Kendall's tau, as expected when ties are broken at random.

    Tau-b would leave ties out: one labelled example parts networks into right and wrong alone, and
    would have a tau-b of up to .7.
    """
    pairs = np.triu_indices(len(error), 1)
    one, other = (np.sign(v[:, pairs[0]] - v[:, pairs[1]]) for v in (scores, error[None]))
    return float(np.mean((one * other).sum(axis=1) / max(np.abs(other).sum(), 1.0)))


def _regret(scores: Array, error: Array) -> float:
    first = scores <= scores.min(axis=1, keepdims=True)
    chosen = (first * error).sum(axis=1) / first.sum(axis=1)
    return 100.0 * float(chosen.mean() - error.min())


def worth(results: Results, method: str, column: int) -> float:
    """Size of the validation set that has the method's tau (column 0) or regret (1).

    Interpolated in log(1 + size), from no example on, which is a random choice, after the curve was
    made monotone. Where no set reaches the method, it is the smallest of the best.
    """
    sizes = [0, *sorted(int(n.split()[1]) for n in results if n.startswith("validation"))]
    sign = 1.0 if column == 0 else -1.0
    curve = [sign * results[f"validation {n}" if n else "random"][column] for n in sizes]
    # The smallest set of several that do equally well.
    values, first = np.unique(np.maximum.accumulate(curve), return_index=True)
    at = np.interp(sign * results[method][column], values, np.log1p(sizes)[first])
    return float(np.expm1(at))


def report(found: Sequence[Networks], methods: dict[str, str], *, seed: int) -> str:
    """The table, and what the data-free choice is worth, with 95 % bootstrap intervals."""
    everything = [np.arange(len(networks.error)) for networks in found]
    results = judge(found, everything)
    samples = _resample(found, everything, seed=seed)
    sizes = [size for size in SHOWN if f"validation {size}" in results]
    shown = methods | {f"validation {n}": f"validation on {n:,} examples" for n in sizes}
    rows = []
    for method, words in shown.items():
        row = {"method": words}
        for column, (heading, form) in enumerate((("tau", ".2f"), ("regret, points", ".1f"))):
            values = [sample[method][column] for sample in samples]
            row[heading] = _with_interval(results[method][column], values, form)
        rows.append(row)
    counts = ", ".join(
        f"{len(n.error)} of {n.name} ({n.diverged} more diverged; best {1.0 - n.error.min():.1%})"
        for n in found
    )
    lines = [f"Networks: {counts}.", "", format_markdown(pd.DataFrame(rows), index=False), ""]
    for networks, rows_of in zip(found, everything, strict=True):
        tau, regret = judge([networks], [rows_of])["wwopt"]
        lines.append(f"wwopt on {networks.name}: tau {tau:.2f}, regret {regret:.1f}.")
    for column, heading in enumerate(("order (tau)", "choice (regret)")):
        value = worth(results, "wwopt", column)
        values = [worth(sample, "wwopt", column) for sample in samples]
        interval = _with_interval(value, values, ".0f")
        lines.append(f"By its {heading}, wwopt is worth {interval} labelled examples.")
    most = max(max(networks.validation) for networks in found)
    return "\n".join([*lines, f"(No validation set was larger than {most:,}.)"])


def _resample(
    found: Sequence[Networks], everything: Sequence[NDArray[np.int64]], *, seed: int
) -> list[Results]:
    """The results of bootstrap samples of the networks, drawn again inside each architecture."""
    with tqdm(total=SAMPLES, desc="bootstrap") as bar:

        def measure(*rows: NDArray[np.int64]) -> Array:
            bar.update()
            return np.array(list(judge(found, rows).values()))  # (methods, 2)

        drawn = resample(everything, measure, resamples=SAMPLES, seed=seed)
    names = list(judge(found, everything))
    return [
        {
            name: (float(tau), float(regret))
            for name, (tau, regret) in zip(names, sample, strict=True)
        }
        for sample in np.moveaxis(drawn, -1, 0)
    ]


def _with_interval(value: float, values: Sequence[float], form: str) -> str:
    if all(math.isclose(value, other, abs_tol=1e-12) for other in values):
        return f"{value:{form}}"
    # Not "-0.0".
    shown = [round(v, 6) + 0.0 for v in (value, *find_bounds(np.array(values)))]
    return "{} [{}, {}]".format(*(format(v, form) for v in shown))
