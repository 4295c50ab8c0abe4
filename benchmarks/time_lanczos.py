"""Our Lanczos beside scipy's `eigsh`, on shuffled layers: `python benchmarks/time_lanczos.py`.

Both find the largest eigenvalues of the Gram matrices of `wwopt/spectra/shuffled_grams.py` to the
tolerance of `wwopt/spectra/spectrum.py`. A shuffle asks for eight, of which those below the level
of traps may be lower bounds: `eigsh` knows no such level and is asked for eight, or for the largest
alone, which cannot count traps. It multiplies arrays as `@` does, or, as ours, by `ssymv`, which
reads half a matrix. CPU seconds of one thread, median over shuffles and rounds, taking turns;
largest error of the largest eigenvalue against all eigenvalues in float64, in units of the
Tracy-Widom scale. Two minutes; results: `wwopt/spectra/lanczos.py`.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries below are loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from scipy.linalg import blas  # noqa: E402
from scipy.sparse.linalg import LinearOperator, eigsh  # noqa: E402

from wwopt.spectra.lanczos import top_eigenvalues  # noqa: E402
from wwopt.spectra.marchenko_pastur import trap_z  # noqa: E402
from wwopt.spectra.shuffled_grams import shuffled_grams  # noqa: E402
from wwopt.spectra.spectrum import NUM_TOPS, TOP_ACCURACY, TOPS_FROM  # noqa: E402

SHUFFLES = 3  # of a layer
Solver = Callable[[Any], NDArray[np.float64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--rounds", type=int, default=5, help="of every shuffle")
    options = parser.parse_args()
    torch.set_num_threads(1)
    solvers = "ours, CPU ms | `eigsh`, 8 | 8, by `ssymv` | 1, by `ssymv`"
    print(f"| shuffled layer | {solvers} | errors of the four |")
    print("|---|---|---|---|---|---|")
    for side in options.sides:
        for shape in ((side, side), (4 * side, side)):
            for kind in ("Gaussian", "Student t, 3"):
                seconds, errors = compare(kind, *shape, rounds=options.rounds)
                ratios = " | ".join(f"{value / seconds[0]:.2f} x" for value in seconds[1:])
                print(
                    f"| {kind}, {shape[0]} x {shape[1]} | {1e3 * seconds[0]:.2f} | {ratios} "
                    f"| {', '.join(f'{value:.4f}' for value in errors)} |",
                    flush=True,
                )


def compare(
    kind: str, N: int, M: int, *, rounds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median CPU seconds, and largest errors, of the four; each of shape (4,)."""
    zero = trap_z(0.0, N, M, 1.0)
    unit = 1.0 / (trap_z(1.0, N, M, 1.0) - zero)
    solvers = list_solvers(N, M, zero=zero, unit=unit)
    seconds, errors = [], []
    for seed in range(max(1, 2048 // M)):
        entries = draw(kind, N, M, seed)
        for _, gram in shuffled_grams(entries, seed=seed, count=SHUFFLES):
            exact = np.linalg.eigvalsh(gram.astype(np.float64))[-1]
            for _ in range(rounds):
                runs = np.array([run(solver, gram) for solver in solvers])
                seconds.append(runs[:, 0])
            errors.append(np.abs(runs[:, 1] - exact) / unit)
    return np.median(seconds, axis=0), np.max(errors, axis=0)


def list_solvers(N: int, M: int, *, zero: float, unit: float) -> list[Solver]:
    # Relative to the eigenvalue, which in the null is the edge of Marchenko and Pastur's law.
    tolerance = TOP_ACCURACY * unit / (np.sqrt(N) + np.sqrt(M)) ** 2
    start = np.random.default_rng(0).standard_normal(M).astype(np.float32)
    find: dict[str, Any] = {"which": "LA", "tol": tolerance, "v0": start}

    def scipys(gram: Any, count: int, *, half: bool) -> NDArray[np.float64]:
        operator = gram
        if half:
            multiply = partial(blas.ssymv, 1.0, gram.T)
            operator = LinearOperator(gram.shape, matvec=multiply, dtype=np.float32)
        return np.sort(eigsh(operator, k=count, return_eigenvectors=False, **find))[::-1]

    return [
        partial(
            top_eigenvalues,
            count=NUM_TOPS,
            tolerance=TOP_ACCURACY * unit,
            level=(TOPS_FROM - zero) * unit,
        ),
        partial(scipys, count=NUM_TOPS, half=False),
        partial(scipys, count=NUM_TOPS, half=True),
        partial(scipys, count=1, half=True),
    ]


def draw(kind: str, N: int, M: int, seed: int) -> torch.Tensor:
    """One slice of entries with mean 0 and variance 1."""
    rng = np.random.default_rng(seed)
    entries = rng.standard_normal((N, M), dtype=np.float32)
    if kind != "Gaussian":
        entries /= np.sqrt(rng.chisquare(3, size=(N, M)), dtype=np.float32)
    entries -= entries.mean()
    return torch.from_numpy(entries / entries.std())[None]


def run(solver: Solver, gram: Any) -> tuple[float, float]:
    """CPU seconds, and the largest eigenvalue."""
    start = time.process_time()
    found = solver(gram)
    return time.process_time() - start, float(found[0])


if __name__ == "__main__":
    main()
