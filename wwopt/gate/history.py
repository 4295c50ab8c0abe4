"""The past of the gate: one line per check, and whether this check is unlike the past ones.

A model that is retrained every week can pass the gate every week and still do, one week, what it
never did before. Each line of the history holds how far every layer moved ("change") and where it
stood afterwards ("level"); a new check is compared with the lines that passed. One that broke or
drifted is written down as not passed: what is unusual does not become usual by itself, but by
somebody who sets its "passed" to true.

The distance is robust: (x − median)/s, with s the mean absolute deviation from the median, scaled
to a Gaussian's standard deviation. That is not the median absolute deviation, because histories
are short: from five Gaussian values that one puts 1 of 4,000 new ones beyond 96 s, which would
find nothing. Ours follows Student's t with n - 1 degrees of freedom, times √(1 + 1/n), within a
tenth (simulated for Gaussian values, n from 5 to 50, down to 1 in 10,000). Those of weekly
retrainings have heavier tails, so that no more than 8 degrees are counted, however long the past
(chosen on one half of the histories of studies/calibrate_drift.py, judged on the other). The KS
distance moves in steps: rounding to them is part of its s, step²/12 of its variance.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from wwopt.gate.checks import GateResult, LayerCheck
from wwopt.gate.damage import moved
from wwopt.gate.thresholds import FACTORS
from wwopt.weights.tensor_names import bare_name
from wwopt.wording import first_line

MIN_PAST = 5  # checks; t with fewer than 4 degrees of freedom finds nothing
FALSE_ALARM = 0.01  # chance of calling a check a drift that is not: one in two years of weeks
MOST_FREEDOM = 8  # degrees; Gaussian values would have n - 1
NEGLIGIBLE = 0.05  # of the gate's threshold; less may be unlike the past, and is nothing
Z_MAX = 1e6  # where all past values are equal; JSON knows no infinity
QUANTITIES = ("scale", "ks", "hill", "spectral_norm", "stable_rank", "kurtosis", "noise")

Values = dict[str, dict[str, float]]  # layer → "change/ks", "level/hill", ... → value


class HistoryError(ValueError):
    """A history that cannot be read or written: which line, why, and the way out."""


@dataclass(frozen=True)
class PastCheck:
    """One line of a history."""

    time: str  # ISO 8601, UTC
    passed: bool
    layers: Values


@dataclass(frozen=True)
class Drift:
    """One layer's quantity outside of what it was in the past."""

    layer: str
    quantity: str  # "change/ks", "level/hill", ...; factors as logarithms
    value: float
    median: float  # of the past
    z: float  # robust distance from the past
    limit: float  # of z
    past: int  # checks that were compared

    @property
    def words(self) -> str:
        """In words, factors as factors."""
        kind, _, name = self.quantity.partition("/")
        factor = name in FACTORS
        value, median = (math.exp(x) if factor else x for x in (self.value, self.median))
        if kind == "change":
            what = f"factor on {name}" if factor and name != "scale" else name
        else:
            what = {"scale": "norm of the weights", "hill": "averaged Hill - 1"}.get(name, name)
        return (
            f"{what.replace('_', ' ')} {value:.3g}, usually {median:.3g} "
            f"(z {self.z:+.0f}, {self.past} checks)"
        )


def values_of(layer: LayerCheck) -> dict[str, float]:
    """How far a layer moved and where it stands; only what is known, factors as logarithms."""
    after = layer.after
    found: dict[str, float] = {}
    if layer.before is not None:
        changes = moved(layer.before, layer.change)
        found |= {f"change/{name}": value for name, value in changes.items()}
    if after is not None:
        # Of the norm that a layer table has: histories of all versions are in one unit.
        levels = {"scale": math.sqrt(after.norm / after.unit)} if after.norm > 0.0 else {}
        levels |= {"hill": after.hill - 1.0, "stable_rank": after.stable_rank}
        levels |= {"kurtosis": after.kurtosis}
        found |= {f"level/{n}": math.log(v) if v > 0.0 else math.nan for n, v in levels.items()}
    kept = (q for q in found if q.partition("/")[2] in QUANTITIES and math.isfinite(found[q]))
    return {quantity: found[quantity] for quantity in kept}


def find_drift(
    result: GateResult, past: Sequence[PastCheck], *, false_alarm: float = FALSE_ALARM
) -> list[Drift]:
    """Compare a check with the past ones that passed; most unlike first.

    Args:
        result: of the new check.
        past: of the same model, in any order; a check that is there twice counts once.
        false_alarm: chance of any drift in a check of a model that goes on as it did, split over
            all layers and quantities (Bonferroni).
    """
    good = {json.dumps(check.layers, sort_keys=True): check for check in past if check.passed}
    samples = []
    for layer in result.layers:
        for quantity, value in values_of(layer).items():
            known = [c.layers.get(bare_name(layer.name), {}).get(quantity) for c in good.values()]
            sample = np.array([x for x in known if x is not None], dtype=np.float64)
            if sample.size >= MIN_PAST:
                samples.append((layer, quantity, value, sample))
    found = []
    for layer, quantity, value, sample in samples:
        n = sample.size
        freedom = min(n - 1, MOST_FREEDOM)
        quantile = stats.t.isf(false_alarm / (2.0 * len(samples)), freedom)
        limit = float(quantile) * math.sqrt(1.0 + 1.0 / n)
        median = float(np.median(sample))
        # √(π/2) makes it a Gaussian's standard deviation, n/(n - 1) corrects for the median.
        s = float(np.abs(sample - median).mean()) * math.sqrt(math.pi / 2.0) * n / (n - 1)
        distance = value - median
        least = NEGLIGIBLE * result.thresholds.allowed(quantity.partition("/")[2])
        if quantity == "change/ks" and layer.after is not None:
            # It moves in steps of 1/n, and is mostly zero: the first step is no news.
            step = 1.0 / max(layer.after.num_evals, 1)
            least = max(least, 1.25 * step)
            s = math.hypot(s, step / math.sqrt(12.0))
        if abs(distance) > max(limit * s, least):
            z = math.copysign(min(abs(distance) / max(s, 1e-300), Z_MAX), distance)
            found.append(Drift(layer.name, quantity, value, median, z, limit, n))
    return sorted(found, key=lambda drift: -abs(drift.z) / drift.limit)


def read_history(path: str | os.PathLike[str]) -> list[PastCheck]:
    """Read the checks of a history, oldest first; a file that is not there holds none.

    Raises:
        HistoryError: if the file cannot be read, or a line of it is damaged.
    """
    file = Path(path)
    if not file.exists():
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"cannot read the history {file}: {error}") from error
    numbered = enumerate(lines, start=1)
    return [_parse(line, file, number) for number, line in numbered if line.strip()]


def append_check(
    path: str | os.PathLike[str],
    result: GateResult,
    drifts: Sequence[Drift] = (),
    *,
    before: str = "",
    after: str = "",
) -> None:
    """Add a check to a history as one line.

    Args:
        path: the history; made if it is not there.
        result: of the check.
        drifts: what of it is unlike the past.
        before: what the sides were called, for a reader.
        after: the same of the other side.

    Raises:
        HistoryError: if the file cannot be written.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "before": before,
        "after": after,
        "passed": result.passed and not drifts,
        "broken": result.broken,
        "drift": {f"{drift.layer} {drift.quantity}": drift.words for drift in drifts},
        "layers": {bare_name(layer.name): values_of(layer) for layer in result.layers},
    }
    data = json.dumps(line, allow_nan=False).encode() + b"\n"
    try:
        # One write at the end of the file: two checks at a time do not mix their lines.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # edited by hand
                data = b"\n" + data
            if os.write(descriptor, data) != len(data):
                raise OSError("the disk is full")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HistoryError(f"cannot write the history {path}: {error}") from error


def _parse(line: str, file: Path, number: int) -> PastCheck:
    try:
        found: Any = json.loads(line)
        layers = {
            str(layer): {str(quantity): float(value) for quantity, value in values.items()}
            for layer, values in found["layers"].items()
        }
        return PastCheck(str(found["time"]), found["passed"] is True, layers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = first_line(error, named=True)
        raise HistoryError(
            f"line {number} of the history {file} is damaged ({reason}); remove it to go on"
        ) from error
