"""Every grid is found by the values alone, and no other weights lie on one."""

from collections.abc import Callable

import pytest
import torch

from wwopt.metrics.base.rounding_grids import find_grid


def weights(rows: int = 96, columns: int = 128) -> torch.Tensor:
    """With an outlier, beside which most are near zero."""
    drawn = 0.05 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    drawn[0, 0] = 1.0
    return drawn


def steps(bits: int, size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def edit(w: torch.Tensor) -> torch.Tensor:
        groups = w.reshape(-1, size)
        step = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        return ((groups / step).round() * step).reshape(w.shape)

    return edit


def asymmetric(w: torch.Tensor) -> torch.Tensor:
    low, high = w.amin(1, keepdim=True), w.amax(1, keepdim=True)
    step = (high - low) / 15.0
    return ((w - low) / step).round() * step + low


GRIDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bfloat16": lambda w: w.bfloat16().float(),
    "float16": lambda w: w.half().float(),
    "float8_e4m3fn": lambda w: w.to(torch.float8_e4m3fn).float(),
    "float8_e5m2, scaled": lambda w: (w / 0.037).to(torch.float8_e5m2).float() * 0.037,
    "255 values per tensor": steps(8, 96 * 128),
    "255 values per row": steps(8, 128),
    "15 values per row": steps(4, 128),
    "15 values per 32 weights": steps(4, 32),
    "255 values per column": lambda w: steps(8, 96)(w.T.contiguous()).T,
    "16 values per row": asymmetric,
    "3 values per row": steps(2, 128),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_found_and_the_rounding_repeated(name: str) -> None:
    w, rounded = weights(), GRIDS[name](weights())
    grid = find_grid(rounded)
    assert grid is not None and grid.name == name
    away = (grid.project(w) - rounded).square().sum() / (w - rounded).square().sum()
    assert away < 0.01
    lost = float((w - rounded).square().sum())
    assert grid.steps.numel() == w.numel()
    if "3 values" not in name:  # where most are rounded to zero
        assert lost / grid.energy == pytest.approx(1.0, rel=0.6)


@pytest.mark.parametrize("bits", [4, 8])
def test_integers_that_were_stored_as_bfloat16_are_integers(bits: int) -> None:
    for w in (weights(), torch.rand(64, 64, generator=torch.Generator().manual_seed(3)) - 0.5):
        rounded = steps(bits, 32)(w).bfloat16().float()
        grid = find_grid(rounded)
        assert grid is not None and grid.name.endswith("values per 32 weights")
        moved = (w - rounded).reshape(-1).abs() / grid.steps.reshape(-1)
        assert float((moved <= 0.75).float().mean()) > 0.995


def test_the_step_is_the_largest_that_fits() -> None:
    """Four bits whose ends no weight reaches; a format whose small numbers are evenly spaced."""
    w = weights(32, 64)
    step = (w.amax(1, keepdim=True) - w.amin(1, keepdim=True)) / 13.7
    grid = find_grid((w / step).round() * step)
    assert grid is not None and int(grid.name.split()[0]) <= 16 and "per row" in grid.name
    small = find_grid((0.3 * w).to(torch.float8_e4m3fn).float())
    assert small is not None and small.name == "float8_e4m3fn"


def test_other_weights_lie_on_none() -> None:
    w = weights()
    heavy = torch.randn(64, 96, generator=torch.Generator().manual_seed(1)).pow(3)
    pruned = torch.where(w.abs() > 0.08, w, 0.0)
    for plain in (w, heavy, pruned, torch.zeros(20, 30)):
        assert find_grid(plain) is None


def test_single_precision_is_a_grid_of_double() -> None:
    drawn = torch.randn(20, 30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert find_grid(drawn) is None
    grid = find_grid(drawn.float().double())
    assert grid is not None and grid.name == "float32"
