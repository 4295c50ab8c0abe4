"""What cheap shuffles cost in accuracy: `python benchmarks/error_shuffles.py`, half a minute.

How much the scores of one layer's shuffles depend on each other where they share one product
(`wwopt/spectra/shuffled_grams.py`), and how often Lanczos' method takes a smaller eigenvalue for
the largest (`wwopt/spectra/lanczos.py`). Results: docs/speed.md.
"""

import argparse
import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries below are loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy import linalg  # noqa: E402

from wwopt.spectra.lanczos import top_eigenvalues  # noqa: E402
from wwopt.spectra.marchenko_pastur import trap_z  # noqa: E402
from wwopt.spectra.shuffled_grams import shuffled_grams  # noqa: E402
from wwopt.spectra.spectrum import TOP_ACCURACY  # noqa: E402

KINDS = ("Gaussian", "Student t, 5", "Student t, 3", "95 % zeros")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=400, help="seeds for each correlation")
    parser.add_argument("--layers", type=int, default=4_000, help="Gaussian layers of 150 columns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| entries | shape | correlation of two scores | deviation: one score, mean of three |")
    print("|---|---|---|---|")
    for shape in ((256, 256), (1536, 384)):
        for kind in KINDS:
            found = draw_scores(draw(kind, shape), options.repeats)
            correlation = np.corrcoef(found.T)[np.triu_indices(3, 1)].mean()
            spread = found.std(), found.mean(axis=1).std()
            print(
                f"| {kind} | {shape[0]} x {shape[1]} | {correlation:.2f} "
                f"| {spread[0]:.2f}, {spread[1]:.2f} |",
                flush=True,
            )
    for accuracy in (0.01, TOP_ACCURACY):
        errors = np.array([miss(seed, accuracy) for seed in range(options.layers)])
        missed = int(np.count_nonzero(errors > 0.05))
        print(
            f"tolerance {accuracy}: {missed} of {errors.size} largest eigenvalues off by .05 "
            f"Tracy-Widom units or more, at most {errors.max():.3f}",
            flush=True,
        )


def draw(kind: str, shape: tuple[int, int]) -> torch.Tensor:
    rng = np.random.default_rng(0)
    if kind.startswith("Student"):
        values = rng.standard_t(int(kind[-1]), size=shape)
    else:
        values = rng.normal(size=shape)
    if kind == "95 % zeros":
        values = values * (rng.random(shape) < 0.05)
    return torch.from_numpy((values - values.mean()) / values.std(ddof=1)).float()[None]


def draw_scores(weights: torch.Tensor, repeats: int) -> np.ndarray:
    """Scores of three shuffles of one layer, shape (repeats, 3)."""
    _, N, M = weights.shape
    found = np.empty((repeats, 3))
    for seed in range(repeats):
        for index, gram in shuffled_grams(weights, seed=seed, count=3):
            top = top_eigenvalues(gram, 1, tolerance=1e-5 * N)[0]
            found[seed, index] = trap_z(float(top), N, M, 1.0)
    return found


def miss(seed: int, accuracy: float, N: int = 6_000, M: int = 150) -> float:
    """How far below the largest eigenvalue of a Gaussian layer the found one is, in its units."""
    rng = np.random.default_rng(seed)
    # The Gram matrix of an N x M Gaussian matrix, by Bartlett's triangle (1933).
    triangle = np.tril(rng.standard_normal((M, M)), -1)
    triangle += np.diag(np.sqrt(rng.chisquare(N - np.arange(M))))
    gram = (triangle @ triangle.T).astype(np.float32)
    zero = trap_z(0.0, N, M, 1.0)
    unit = 1.0 / (trap_z(1.0, N, M, 1.0) - zero)
    found = top_eigenvalues(gram, 8, tolerance=accuracy * unit, level=(3.0 - zero) * unit)[0]
    exact = linalg.eigvalsh(gram, subset_by_index=[M - 1, M - 1])[0]
    return float((exact - found) / unit)


if __name__ == "__main__":
    main()
