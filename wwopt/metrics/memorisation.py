"""Whether a training memorises its labels, told by the fall of its training loss alone.

Networks learn what generalises first, and memorise the rest later (Arpit et al. 2017, "A closer
look at memorization in deep networks"; Liu et al. 2020, "Early-learning regularization"). The
training loss shows the two phases on a logarithmic time axis: what generalises falls by less from
octave to octave (an octave doubles the steps), while memorising goes on at its own pace and makes
later octaves as large as those before, or larger. So the sign is

    max of  fall(octave j) / fall(octave k)   over i < k < j with fall(octave i) >= fall(octave k):

the fall had slowed, and then did not. Above 1 the training memorises: none of 158 random MLPs on
MNIST did with right labels, 29 of 160 with a fifth of them wrong (docs/guards.md, which has the
command). A rate that decays makes the last octaves fall less, and is no cause of the sign.

It means this only where training sees its examples several times. A transformer that sees each
once learns by leaps, and has larger ratios without having memorised anything. And it is silent
where labels are memorised so fast that the fall never slows.
"""

import math
from collections.abc import Mapping
from itertools import pairwise

STEPS = 8  # with fewer there are no three octaves
# Of the whole fall: a smaller octave has ended, and its noise is no scale for another.
LEAST = 0.02


def octave_ratio(losses: Mapping[int, float]) -> float:
    """The sign in the module's docstring; 0 where the fall never slowed, NaN where it is unknown.

    Args:
        losses: number of the step, from 1 on → training loss of that step, a mean over it.

    Returns:
        The ratio, negative where the loss did nothing but rise since. NaN with fewer than eight
        steps, fewer than four of them logged, and losses that are not finite.
    """
    steps = sorted(step for step in losses if step > 0)
    if not steps or steps[-1] < STEPS or not all(math.isfinite(losses[step]) for step in steps):
        return math.nan
    ends = [steps[-1]]
    while ends[-1] > 1:
        ends.append(max(ends[-1] // 2, 1))
    means = [_mean_before(losses, steps, end) for end in reversed(ends)]
    known = [mean for mean in means if not math.isnan(mean)]
    falls = [before - after for before, after in pairwise(known)]
    if len(falls) < 3:
        return math.nan
    height = max(known) - min(known)
    if height == 0.0:
        return 0.0
    slowed = [
        max(falls[k + 1 :]) / max(fall, LEAST * height)
        for k, fall in enumerate(falls[1:-1], start=1)
        if max(falls[:k]) >= fall - 1e-9 * height  # equal, but for rounding
    ]
    return max(slowed, default=0.0)


def _mean_before(losses: Mapping[int, float], steps: list[int], end: int) -> float:
    """Mean loss of the last eighth of the octave that ends there; NaN where none was logged."""
    near = [losses[step] for step in steps if end - max(end // 8, 1) < step <= end]
    return math.fsum(near) / len(near) if near else math.nan
