"""Error and time of estimated spectra: `python benchmarks/error_large_layers.py`, a minute.

Layers above `max_size` are not decomposed but estimated (`wwopt/spectra/large_layers.py`). Here
three kinds of square layers, random, heavy-tailed and low rank in noise, are both decomposed (in
float32, whose errors are about 1e-6 of the largest eigenvalue) and estimated; one thread, seconds
of CPU time. For the sizes of `--alone` the estimate's time and memory only. Results: docs/speed.md,
with `--sizes 1024 2048 8192 --alone 16384`, which takes about 10 minutes and 3 GB.
"""

import argparse
import os
import resource
import time

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # read when the libraries below are loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from wwopt.metrics.analysis import metrics_from_spectra  # noqa: E402
from wwopt.metrics.model_metrics import LayerMetrics  # noqa: E402
from wwopt.spectra.gram_matrices import multiply_tall, solve_all  # noqa: E402
from wwopt.spectra.large_layers import estimate_spectrum  # noqa: E402
from wwopt.spectra.spectrum import LayerSpectrum  # noqa: E402

KINDS = ("random", "heavy-tailed", "low rank in noise")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", type=int, default=[1024, 2048])
    parser.add_argument("--alone", nargs="*", type=int, default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| layer | CPU s: full, estimated | alpha | hill | λmax | stable rank | entropy | KS |")
    print("|---|---|---|---|---|---|---|---|")
    for size in options.sizes:
        for kind in KINDS:
            compare(kind, size)
    if options.alone:
        print("\n| layer | CPU s, estimated | alpha | peak MB |\n|---|---|---|---|")
    for size in options.alone:
        for kind in KINDS[1:]:
            estimate_alone(kind, size)


def compare(kind: str, size: int) -> None:
    weights = draw(kind, size)
    start = time.process_time()
    full = np.sort(solve_all(multiply_tall(weights)[None]))
    middle = time.process_time()
    estimate = estimate_spectrum(weights)
    end = time.process_time()
    a, b = measure(full), measure(estimate)
    distance = np.abs(
        np.searchsorted(estimate, full, side="right") / size - np.arange(1, size + 1) / size
    ).max()
    print(
        f"| {kind}, {size} | {middle - start:.1f}, {end - middle:.1f} "
        f"| {a.alpha:.3f} ± {a.sigma:.3f} → {b.alpha:.3f} | {a.hill:.3f} → {b.hill:.3f} "
        f"| {b.spectral_norm / a.spectral_norm - 1:+.0e} "
        f"| {b.stable_rank / a.stable_rank - 1:+.0e} "
        f"| {b.entropy - a.entropy:+.4f} | {distance:.4f} |",
        flush=True,
    )


def estimate_alone(kind: str, size: int) -> None:
    weights = draw(kind, size)
    start = time.process_time()
    estimate = estimate_spectrum(weights)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    alpha = measure(estimate).alpha
    print(f"| {kind}, {size} | {seconds:.1f} | {alpha:.3f} | {peak:.0f} |", flush=True)


def draw(kind: str, size: int) -> torch.Tensor:
    """A float32 layer, shape (size, size)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(size, size, generator=generator)
    if kind == "random":
        return noise
    if kind == "heavy-tailed":  # columns of unequal scale
        return noise * torch.rand(size, generator=generator) ** -0.25
    # A power law of size/16 directions, the smallest as large as the noise's largest.
    rank = size // 16
    left = torch.randn(size, rank, generator=generator) / size**0.5
    right = torch.randn(rank, size, generator=generator)
    scale = ((torch.arange(rank) + 1.0) / rank) ** -0.4
    return noise + 2.0 * (left * scale) @ right


def measure(eigenvalues: NDArray[np.float64]) -> LayerMetrics:
    size = eigenvalues.size
    spectrum = LayerSpectrum(
        name="layer",
        shape=(size, size),
        num_slices=1,
        eigenvalues=np.maximum(eigenvalues, 0.0),
        element_mean=0.0,
        element_variance=1.0,
    )
    return metrics_from_spectra([spectrum]).layers[0]


if __name__ == "__main__":
    main()
