"""Norms, ranks and entropies of one layer's spectrum.

Definitions are WeightWatcher's (Martin & Mahoney 2021, JMLR 22:165); the names too. Ranks count
eigenvalues of a Gram matrix, λ > λmax·N·eps: the rule for singular values, σ > σmax·N·eps, would
count the Gram matrix's rounding and report rank 96 for a matrix of rank 40.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Norms:
    """Fields carry WeightWatcher's column names."""

    norm: float  # Σλ
    log_norm: float  # of λ/unit
    spectral_norm: float  # λmax
    log_spectral_norm: float  # of λ/unit
    stable_rank: float  # Σλ/λmax
    alpha_weighted: float  # alpha · log10 λmax, "alpha-hat"; of λ/unit
    log_alpha_norm: float  # log10 Σ λ^alpha, of λ/unit
    entropy: float  # -Σ p ln p / ln(rank), p = λ/Σλ; in [0, 1]
    matrix_rank: int
    rank_loss: int
    weak_rank_loss: int  # λ/unit below 1e-6
    detX_num: int  # noqa: N815 - WeightWatcher's name


def compute_norms(
    eigenvalues: NDArray[np.float64], *, N: int, alpha: float, unit: float = 1.0
) -> Norms:
    """Compute everything that follows from the eigenvalues and alpha.

    Args:
        eigenvalues: shape (n,), ascending, not negative, the largest positive.
        N: larger dimension of the matrix.
        alpha: of the power-law fit; NaN leaves what needs it NaN.
        unit: of the published statistics, which are no plain multiple of λ: they are of λ/unit.
    """
    n = eigenvalues.size
    norm, top = float(eigenvalues.sum()), float(eigenvalues[-1])
    rank = int(np.count_nonzero(eigenvalues > top * (N * np.finfo(np.float64).eps)))
    share = eigenvalues / norm
    share = share[share > 0.0]
    return Norms(
        norm=norm,
        log_norm=math.log10(norm / unit),
        spectral_norm=top,
        log_spectral_norm=math.log10(top / unit),
        stable_rank=norm / top,
        alpha_weighted=alpha * math.log10(top / unit),
        log_alpha_norm=_log_alpha_norm(eigenvalues / unit, alpha),
        entropy=float(-(share * np.log(share)).sum() / math.log(rank)) if rank > 1 else 0.0,
        matrix_rank=rank,
        rank_loss=n - rank,
        weak_rank_loss=int(np.count_nonzero(eigenvalues / unit < 1e-6)),
        detX_num=count_detx(eigenvalues),
    )


def _log_alpha_norm(eigenvalues: NDArray[np.float64], alpha: float) -> float:
    if not math.isfinite(alpha):
        return math.nan
    # Through the largest term: alpha = 30 on λ = 1e12 overflows otherwise.
    relative = eigenvalues / eigenvalues[-1]
    return alpha * math.log10(eigenvalues[-1]) + math.log10(float((relative**alpha).sum()))


def count_detx(eigenvalues: NDArray[np.float64]) -> int:
    """Eigenvalues, from the top, up to the one at which their product falls below 1.

    They are rescaled to mean 1 first; sums of logs, since a plain product overflows beyond 2,048.
    """
    n = eigenvalues.size
    if n < 2 or not eigenvalues[0] < eigenvalues[-1]:
        return 0
    with np.errstate(divide="ignore"):
        logs = np.log(eigenvalues[::-1] / (eigenvalues.sum() / n))
    below = np.flatnonzero(np.cumsum(logs)[: n - 1] < 0.0)
    return int(below[0]) + 1 if below.size else n
