"""Data as JSON knows it."""

import json
import math

import numpy as np

from wwopt.plain_data import make_plain


def test_what_json_does_not_know_becomes_what_it_knows() -> None:
    data = {
        "nan": math.nan,
        "inf": [math.inf, -math.inf, 1.5],
        "numpy": {"int": np.int64(3), "float": np.float32(0.5), "nan": np.float64("nan")},
        "flag": np.True_,
        2: ("a", None),
    }
    plain = make_plain(data)
    assert plain == {
        "nan": None,
        "inf": [None, None, 1.5],
        "numpy": {"int": 3, "float": 0.5, "nan": None},
        "flag": True,
        "2": ["a", None],
    }
    json.dumps(plain, allow_nan=False)


def test_what_is_not_finite_becomes_null() -> None:
    values = {"a": [1.0, float("nan")], "b": (float("inf"), "x", None, 3)}
    assert make_plain(values) == {"a": [1.0, None], "b": [None, "x", None, 3]}
