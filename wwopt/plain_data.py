"""Data as JSON knows it, which has no NaN and no infinity."""

import math
from typing import Any


def make_plain(value: Any) -> Any:
    """Data as JSON knows it: what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): make_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [make_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
