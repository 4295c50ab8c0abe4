"""Data as JSON knows it, which has no NaN, no infinity and no numbers of numpy."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def make_plain(value: Any) -> Any:
    """Data as JSON knows it: what is not finite becomes None, numpy's numbers Python's."""
    if isinstance(value, Mapping):
        return {str(key): make_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [make_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
