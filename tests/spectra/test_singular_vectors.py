"""Closed forms, torch's own decomposition, then what rotations must not change."""

import math

import numpy as np
import pytest
import torch

from wwopt.spectra.singular_vectors import (
    find_beyond_noise,
    find_singular_vectors,
    match_vectors,
    principal_angles,
    squared_singular_values,
)


def draw(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
def test_small_matrices_are_decomposed_as_torch_does(shape: tuple[int, int]) -> None:
    matrix = draw(*shape)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = find_singular_vectors(matrix, 5)
    torch.testing.assert_close(found.values, s[:5], rtol=1e-5, atol=0.0)
    for ours, theirs in ((found.left, u[:, :5]), (found.right, vh[:5].T)):
        assert match_vectors(ours, theirs) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(matrix @ found.right, found.left * found.values, rtol=0, atol=1e-4)


def test_leading_vectors_of_a_large_matrix_are_those_of_a_whole_decomposition() -> None:
    """And the same in every run, with torch's generator left where it was."""
    spikes = draw(700, 4) @ torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.5])) @ draw(4, 600, 1)
    matrix = draw(700, 600, 2) + spikes
    state = torch.get_rng_state()
    quick, again = (find_singular_vectors(matrix, 4, whole_side=512) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state()) and torch.equal(quick.left, again.left)
    whole = find_singular_vectors(matrix, 4, whole_side=600)
    torch.testing.assert_close(quick.values, whole.values, rtol=1e-4, atol=0.0)
    assert match_vectors(quick.left, whole.left) > 0.9999


def test_order_and_signs_do_not_count_in_a_match_and_a_plane_has_angles() -> None:
    axes = torch.eye(6)
    assert match_vectors(axes[:, [0, 1]], -axes[:, [1, 0]]) == 1.0
    assert match_vectors(axes[:, :2], axes[:, 2:4]) == 0.0
    turned = torch.stack([axes[0], math.cos(0.3) * axes[1] + math.sin(0.3) * axes[2]], 1)
    angles = principal_angles(axes[:, :2], turned)
    np.testing.assert_allclose(angles, [0.0, math.degrees(0.3)], atol=1e-3)


def test_independent_vectors_overlap_as_little_as_chance_says() -> None:
    drawn = [
        match_vectors(*(torch.linalg.qr(draw(256, 10, seed + i)).Q for i in (0, 1)))
        for seed in range(0, 40, 2)
    ]
    assert np.mean(drawn) == pytest.approx(1.75 / 16.0, rel=0.1)  # CHANCE of the measures


def test_planted_directions_leave_the_noise_and_noise_alone_has_none() -> None:
    noise = draw(300, 200)
    eigenvalues = squared_singular_values(noise)
    none = find_beyond_noise(eigenvalues, N=300, M=200)
    assert (none.directions, none.share) == (0, 0.0)
    assert none.deviation == pytest.approx(1.0, rel=0.02)
    u, v = (torch.linalg.qr(draw(n, 3, 5)).Q for n in (300, 200))
    planted = squared_singular_values(noise + 100.0 * u @ v.T)
    found = find_beyond_noise(planted, N=300, M=200)
    assert found.directions == 3
    # A spike of strength θ stands at (θ² + N)(θ² + M)/θ² (Benaych-Georges & Nadakuditi 2012).
    assert found.share == pytest.approx(3 * 10_300 * 10_200 / 1e4 / (3e4 + 6e4), rel=0.01)
    assert find_beyond_noise(planted, N=300, M=200, least=100.0).directions == 0
    assert find_beyond_noise(np.zeros(5), N=9, M=5).share == 0.0


def test_an_exact_low_rank_has_as_many_directions() -> None:
    product = squared_singular_values((draw(90, 4) @ draw(4, 80)).double())
    found = find_beyond_noise(product, N=90, M=80, least=1e-12)
    assert found.directions == 4 and found.share == pytest.approx(1.0)
