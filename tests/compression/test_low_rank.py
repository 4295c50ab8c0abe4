"""Cut to a rank: optimal by Eckart and Young, with numpy as witness; ranks by closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wwopt.compression.errors import CompressionError
from wwopt.compression.low_rank import choose_rank, factorize
from wwopt.metrics.analysis import analyze


def with_spectrum(singular: np.ndarray, rows: int = 60, seed: int = 0) -> torch.Tensor:
    draws = np.random.default_rng(seed)
    n = singular.size
    U, _ = np.linalg.qr(draws.standard_normal((rows, n)))
    V, _ = np.linalg.qr(draws.standard_normal((n, n)))
    return torch.from_numpy(U * singular @ V.T)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 20))
def test_the_error_is_the_singular_values_left_out(
    rows: int, columns: int, rank: int, seed: int
) -> None:
    rank = min(rank, rows, columns)
    W = np.random.default_rng(seed).standard_normal((rows, columns))
    left, right = factorize(torch.from_numpy(W), rank)
    assert left.shape == (rank, rows) and right.shape == (rank, columns)
    error = np.linalg.norm(left.double().numpy().T @ right.double().numpy() - W)
    values = np.linalg.svd(W, compute_uv=False)
    assert error == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), abs=1e-5)


def test_a_stack_is_cut_slice_by_slice() -> None:
    W = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(0))
    left, right = factorize(W, 2)
    for i in range(3):
        alone = factorize(W[i], 2)
        torch.testing.assert_close(left[i].T @ right[i], alone[0].T @ alone[1])


def test_the_share_of_energy_by_hand() -> None:
    W = with_spectrum(np.sqrt([5.0, 3.0, 1.0, 1.0]))
    assert [choose_rank(W, share) for share in (0.5, 0.51, 0.8, 0.81, 1.0)] == [1, 2, 2, 3, 4]


def test_the_ranks_of_the_fitted_spectrum_are_those_that_analyze_reports() -> None:
    singular = np.random.default_rng(1).pareto(1.5, 50) + 0.3
    W = with_spectrum(np.sort(singular)[::-1].copy()).float()
    (layer,) = analyze({"fc.weight": W}, shuffles=0).layers
    assert choose_rank(W, "erg") == layer.detX_num
    assert choose_rank(W, "tail") == layer.num_pl_spikes


def test_where_all_directions_are_equal_none_is_left_out() -> None:
    assert choose_rank(torch.eye(20), "erg") == 20
    assert choose_rank(torch.eye(20), "tail") == 20


def test_says_what_is_out_of_range() -> None:
    W = torch.eye(4)
    with pytest.raises(CompressionError, match="rank must be from 1 to 4, the smaller side, got 5"):
        factorize(W, 5)
    with pytest.raises(CompressionError, match=r"above 0 and at most 1, got 1\.5"):
        choose_rank(W, 1.5)
