"""A layer's eigenvalues as a curve, thinned out to what a picture or a reader needs."""

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 512  # of a curve; shorter ones stay whole


def thin(curve: NDArray[np.floating]) -> NDArray[np.float32]:
    """Choose the points of a curve that show it.

    Of more than `MAX_POINTS`, half are chosen evenly by rank (the bulk) and half evenly in the
    logarithm of the rank from the largest eigenvalue on (the tail).

    Args:
        curve: (2, k), eigenvalues in ascending order and shares, as
            `wwopt.tracking.read_spectra` gives them.
    """
    size = curve.shape[1]
    if size > MAX_POINTS:
        even = np.linspace(1, size, MAX_POINTS // 2)
        logarithmic = np.geomspace(1, size, MAX_POINTS // 2)
        ranks = np.unique(np.rint(np.concatenate([even, logarithmic])).astype(np.int64))
        curve = curve[:, size - ranks[::-1]]  # rank 1 is the largest
    return curve.astype(np.float32)
