"""Layer tables as our own `to_frame`, WeightWatcher and its older versions write them.

    read_layer_table(frame) -> rows of `LayerMetrics` fields, what was skipped and why

Columns are found by name, in any case and with or without underscores; unknown ones are ignored.
What a table does not say is NaN, and 0 for counts. Aliases are only those whose meaning is sure:
`softrank`, for one, has meant two things and is left alone. Old tables give the Frobenius norm as
`norm` where newer ones give Σλ; do not mix the two in one ranking by `log_norm`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

UNNAMED = "layer "  # before the number of a layer whose table tells no name
SUCCESS, FAILED = "ok", "no power law"  # the statuses of `layer_metrics`

COUNTS = ("N", "M", "num_slices", "num_evals")
# Our field → names of it elsewhere, as `_key` spells them.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "num_slices": ("rf", "slicecount"),
    "spectral_norm": ("lambdamax", "spectralnorm"),
    "log_norm": ("lognorm",),
    "log_spectral_norm": ("logspectralnorm",),
    "alpha_weighted": ("alphaweighted", "alphahat"),
    "log_alpha_norm": ("logalphanorm", "logpnorm"),
    "mp_softrank": ("mpsoftrank", "softrankmp"),
    "num_spikes": ("numspikes", "numofspikes"),
}
NAMES = ("longname", "layername", "name")  # the first that a table has
KINDS = {"dense": "linear", "unknown": "", "notset": "", "nan": "", "none": ""}
# What a failed fit leaves behind, beside the alpha of -1.
FITTED = ("alpha", "sigma", "D", "xmin", "num_pl_spikes", "alpha_weighted", "log_alpha_norm")


def read_layer_table(
    frame: pd.DataFrame, *, numbers: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Read a table with a row a layer, or a row a slice of a layer.

    Slices of one layer become one row, their mean, as WeightWatcher's own rows of "LEVEL.LAYER"
    are. A failed fit (alpha of -1, or none) is NaN under the status "no power law".

    Args:
        frame: the table; its index is read where it has a name.
        numbers: the fields to look for that are numbers, beside the counts.

    Returns:
        Keyword arguments of `LayerMetrics`, a row each; and layer → why it is no row.

    Raises:
        ValueError: if the table has no row or no column that is known.
    """
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    if frame.empty:
        raise ValueError("the table has no rows")
    if "source" in frame and frame["source"].nunique() > 1:  # of `wwopt analyze A B --csv`
        raise ValueError(
            f"the table holds {frame['source'].nunique()} models; pass the rows of one 'source'"
        )
    table = pd.DataFrame(index=frame.index)
    for name in (*COUNTS, *numbers):
        column = _find(frame, name, *ALIASES.get(name, ()))
        if column is not None:
            values = pd.to_numeric(column, errors="coerce").astype(float)
            table[name] = values.where(np.isfinite(values))
    found = [name for name in numbers if name in table and table[name].notna().any()]
    if not found:
        known = ", ".join(map(str, frame.columns[:12]))
        raise ValueError(
            f"the table has none of the columns alpha, alpha_weighted, log_norm, "
            f"log_spectral_norm, …; its columns are {known}"
        )
    _derive(table)
    for name, default in (("kind", ""), ("status", ""), ("method", "exact")):
        column = _find(frame, "layertype" if name == "kind" else name)
        texts = pd.Series(default, frame.index) if column is None else column.astype(str)
        table[name] = texts.str.strip().replace({"nan": "", "None": ""})
    table["kind"] = [_kind(text) for text in table["kind"]]
    table["name"], identity = _names(frame)
    skipped = _find_skipped(frame, table)
    table = _merge_slices(table.assign(identity=identity), frame)
    rows = []
    taken: set[str] = set()
    for row in table.to_dict(orient="records"):
        if row["name"] in skipped:
            continue
        while row["name"] in taken:
            row["name"] += "'"
        taken.add(row["name"])
        rows.append(_finish({str(k): v for k, v in row.items()}))
    return rows, skipped


def _key(name: object) -> str:
    return re.sub(r"[\s_\-]", "", str(name)).lower()


def _find(frame: pd.DataFrame, *names: str) -> "pd.Series[Any] | None":
    """The column of the first name that the frame has: as it is spelt, then in any spelling."""
    for name in names:
        if name in frame.columns:
            return frame.loc[:, frame.columns == name].iloc[:, 0]
    for name in names:
        # "lambda" means many things; only our own spelling is the rate of a cutoff.
        same = [column for column in frame if _key(column) == _key(name) and name != "Lambda"]
        if same:
            return frame.loc[:, frame.columns == same[0]].iloc[:, 0]
    return None


def _derive(table: pd.DataFrame) -> None:
    """Forget what failed fits left, and fill in columns that follow from others."""
    if "alpha" in table:
        failed = ~(table["alpha"] > 0.0)
        for name in FITTED:
            if name in table:
                table[name] = table[name].where(~failed)
    for name, source in (("log_norm", "norm"), ("log_spectral_norm", "spectral_norm")):
        if name not in table and source in table:
            table[name] = np.log10(table[source].where(table[source] > 0.0))
    if "alpha_weighted" not in table and {"alpha", "log_spectral_norm"} <= set(table):
        table["alpha_weighted"] = table["alpha"] * table["log_spectral_norm"]


def _kind(text: str) -> str:
    """Our name of a layer type: of "LAYER_TYPE.DENSE", "<LAYER_TYPE.DENSE: 2>" and "dense"."""
    word = re.sub(r".*LAYER_TYPE\.", "", text)
    word = re.sub(r"\W.*", "", word).lower()
    return KINDS.get(word, word)


def _names(frame: pd.DataFrame) -> "tuple[pd.Series[str], pd.Series[str]]":
    """Names of the layers, and what tells two layers apart."""
    column = _find(frame, *NAMES)
    number = _find(frame, "layer_id")
    own = pd.Series([f"{i}" for i in range(len(frame))], frame.index)
    ids = own if number is None else number.astype(str)
    unnamed = UNNAMED + ids
    if column is None:
        return unnamed, ids
    # "Conv2d" on every row is a class and no name.
    pairs = pd.DataFrame({"name": column, "id": ids}).drop_duplicates()
    if number is not None and pairs["name"].duplicated().mean() > 0.5:
        return unnamed, ids
    missing = column.isna() | (column.astype(str).str.strip() == "")
    names = column.astype(str).where(~missing, unnamed)
    return names, names if number is None else ids


def _find_skipped(frame: pd.DataFrame, table: pd.DataFrame) -> dict[str, str]:
    spectrum = _find(frame, "has_esd")
    without = np.zeros(len(frame), bool) if spectrum is None else _is_false(spectrum)
    skipped = dict.fromkeys(table.loc[without, "name"], "no spectrum in the table")
    is_norm = table["kind"].str.contains("norm")
    return skipped | dict.fromkeys(table.loc[is_norm, "name"], "vector")


def _is_false(column: "pd.Series[Any]") -> np.ndarray[Any, np.dtype[np.bool_]]:
    return column.astype(str).str.strip().str.lower().isin(("false", "0", "0.0")).to_numpy()


def _merge_slices(table: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """One row a layer: its own, with the slices' shape and number, or the mean of its slices."""
    level = _find(frame, "level")
    if level is not None:
        words = level.astype(str).str.upper()
        layers = table[words.str.contains("LAYER")].copy()
        slices = table[words.str.contains("SLICE")]
        if not layers.empty:
            of = slices.groupby("identity", sort=False)
            for name in {"N", "M"} & set(table):
                layers[name] = layers["identity"].map(of[name].first()).fillna(layers[name])
            layers["num_slices"] = layers["identity"].map(of.size()).fillna(1.0)
            return layers
        table = slices if not slices.empty else table
    is_slice = level is not None or _find(frame, "slice", "slice_id") is not None
    if not is_slice or not table["identity"].duplicated().any():
        return table
    groups = table.groupby("identity", sort=False)
    how = {name: "first" if table[name].dtype != float else "mean" for name in table}
    merged = groups.agg(how)
    merged["num_slices"] = groups.size().astype(float)
    if "num_evals" in table:
        merged["num_evals"] = groups["num_evals"].sum()
    return merged


def _finish(row: dict[str, Any]) -> dict[str, Any]:
    """Counts as integers, N the larger, and a status of ours."""
    del row["identity"]
    counts = {name: row.get(name, math.nan) for name in COUNTS}
    given = {name: 0 if math.isnan(v) else round(v) for name, v in counts.items()}
    N, M = max(given["N"], given["M"]), min(given["N"], given["M"])
    slices = given["num_slices"] or (given["num_evals"] // M if M else 0) or 1
    row |= {"N": N, "M": M, "num_slices": slices, "num_evals": given["num_evals"] or M * slices}
    status = row["status"]
    if status in ("", "success", SUCCESS):
        lost = "alpha" in row and math.isnan(row["alpha"])
        row["status"] = FAILED if lost else SUCCESS
    elif status == "failed":
        row["status"] = FAILED
    return row
