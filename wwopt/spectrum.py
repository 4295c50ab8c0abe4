"""The empirical spectral density (ESD) of one layer, and of its seeded shuffles.

`LayerSpectrum` is everything that the metrics are computed from; it needs no weights, so a zoo's or
another tool's records can be judged too. `compute_spectrum` makes one from a weight matrix.

Eigenvalues are those of the smaller Gram matrix, λ = σ², from a float64 symmetric solver: twice as
fast as singular values, at the price of a rounding floor at about N·eps·λmax.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wwopt.weights import WeightMatrix

NUM_TOPS = 8  # largest eigenvalues kept of every shuffle: enough to count the traps of a layer


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerSpectrum:
    """What the spectral metrics of one layer are computed from."""

    name: str
    shape: tuple[int, int]  # (N, M) of a slice, N >= M
    num_slices: int  # kernel positions of a convolution, 1 for a plain matrix
    eigenvalues: NDArray[np.float64]  # (M * num_slices,), ascending, slices pooled, not halved
    element_mean: float
    element_variance: float  # ddof = 1
    shuffled_eigenvalues: NDArray[np.float64] | None = None  # (M * num_slices,): first shuffle
    shuffled_tops: NDArray[np.float64] | None = None  # (shuffles, k): largest of every shuffle
    kurtosis: float | None = None  # fourth standardised moment, 3 for a Gaussian
    max_abs: float | None = None  # largest |w|
    kind: str = "linear"  # kind of layer, as in WeightMatrix; "conv2d" has halved columns
    rank_bound: int | None = None  # a low-rank delta cannot have more eigenvalues than this
    tied: tuple[str, ...] = ()  # other names of the same weights

    def __post_init__(self) -> None:
        N, M = self.shape
        if not (N >= M >= 1 and self.num_slices >= 1):
            raise ValueError(
                f"{self.name}: shape must be (N, M) with N >= M >= 1 and at least one slice, "
                f"got {self.shape} with {self.num_slices} slices"
            )
        expected = (M * self.num_slices,)
        for field in ("eigenvalues", "shuffled_eigenvalues"):
            values = getattr(self, field)
            if values is None:
                continue
            if np.shape(values) != expected:
                raise ValueError(
                    f"{self.name}: {field} must hold M * num_slices = {expected[0]} values, "
                    f"got shape {np.shape(values)}"
                )
            ordered = np.sort(np.asarray(values, dtype=np.float64))
            if ordered[0] < -1e-4 * ordered[-1]:
                raise ValueError(
                    f"{self.name}: {field} are those of a Gram matrix, which has no negative "
                    f"ones, got {ordered[0]:g}; pass squared singular values"
                )
            # Rounding of a solver may leave zeros slightly negative.
            object.__setattr__(self, field, np.maximum(ordered, 0.0))
        if self.shuffled_tops is not None:
            tops = np.atleast_2d(np.asarray(self.shuffled_tops, dtype=np.float64))
            object.__setattr__(self, "shuffled_tops", -np.sort(-tops, axis=1))


def compute_spectrum(
    matrix: WeightMatrix,
    *,
    seed: int = 0,
    shuffles: int = 3,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> LayerSpectrum:
    """Eigenvalues, element moments and shuffles of one layer.

    A shuffle permutes the entries of the whole layer, all slices together, after the layer's mean
    was subtracted: a mean shift is no trap (it is reported as the mean spike). The permutation
    depends on (seed, index of the shuffle, number of entries) alone.

    Args:
        matrix: the layer; its weights are read here and released on return.
        seed: of the shuffles.
        shuffles: how many; 0 leaves traps unknown.
        device: where to compute; None means where the weights lie.
        dtype: of the computation. float32 is faster on most GPUs and moves alpha by about 1e-4.

    Returns:
        The spectrum; its eigenvalues are NaN where a weight or a sum of squares is not finite.
    """
    with torch.no_grad():
        weights = matrix.read().detach().to(device=device, dtype=dtype)
        moments = _element_moments(weights)
        if not all(np.isfinite(value) for value in moments.values()):
            count = matrix.shape[1] * matrix.num_slices
            eigenvalues, shuffled = np.full(count, np.nan), []
        else:
            eigenvalues = _gram_eigenvalues(weights)
            centred = weights - moments["element_mean"]
            shuffled = [_gram_eigenvalues(w) for w in _shuffle(centred, seed, shuffles)]
    return LayerSpectrum(
        name=matrix.name,
        shape=matrix.shape,
        num_slices=matrix.num_slices,
        eigenvalues=eigenvalues,
        shuffled_eigenvalues=shuffled[0] if shuffled else None,
        shuffled_tops=np.stack([e[: -NUM_TOPS - 1 : -1] for e in shuffled]) if shuffled else None,
        kind=matrix.kind,
        rank_bound=matrix.rank_bound,
        tied=matrix.tied,
        **moments,
    )


def _element_moments(weights: torch.Tensor) -> dict[str, float]:
    """Mean, variance (ddof = 1), kurtosis and largest |w| over all entries of the layer."""
    mean = weights.mean()
    deviation = weights - mean
    largest = float(deviation.abs().max())
    # The mean of a constant layer may be off by rounding.
    if largest <= 16.0 * torch.finfo(weights.dtype).eps * abs(float(mean)):
        deviation, largest = torch.zeros_like(deviation), 0.0
    # In units of the largest: fourth powers of float32 leave its range from 1e10 and 1e-10 on.
    squares = (deviation / largest if largest > 0 else deviation).square()
    second, fourth = float(squares.mean()), float(squares.square().mean())
    n = weights.numel()
    return {
        "element_mean": float(mean),
        "element_variance": second * largest * largest * n / max(n - 1, 1),
        # A constant layer has no fourth moment to speak of: call it Gaussian rather than NaN.
        "kurtosis": fourth / (second * second) if second > 0 else 3.0,
        "max_abs": float(weights.abs().max()),
    }


def _gram_eigenvalues(weights: torch.Tensor) -> NDArray[np.float64]:
    """Ascending eigenvalues of the smaller Gram matrix of each slice, pooled."""
    rows, columns = weights.shape[-2:]
    gram = weights.mT @ weights if rows >= columns else weights @ weights.mT
    if not torch.isfinite(gram).all():  # the solver would raise
        return np.full(gram.shape[0] * gram.shape[1], np.nan)
    # Rounding leaves eigenvalues of a rank-deficient Gram matrix slightly below zero.
    eigenvalues = torch.linalg.eigvalsh(gram).clamp_min(0.0).flatten()
    return np.sort(eigenvalues.cpu().numpy().astype(np.float64))


def _shuffle(weights: torch.Tensor, seed: int, shuffles: int) -> Iterator[torch.Tensor]:
    for index in range(shuffles):
        entropy = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
        # Drawn on the CPU: the same numbers whatever the device.
        generator = torch.Generator().manual_seed(int(entropy >> np.uint64(1)))
        order = torch.randperm(weights.numel(), generator=generator).to(weights.device)
        yield weights.flatten()[order].reshape(weights.shape)
