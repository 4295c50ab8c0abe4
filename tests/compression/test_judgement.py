"""Ever milder plans; the verdicts themselves are tested with `compression`."""

import pytest

from wwopt.compression.errors import CompressionError
from wwopt.compression.judgement import soften
from wwopt.compression.plans import LayerPlan


def test_each_step_is_milder_and_the_last_changes_something() -> None:
    plan = LayerPlan(bits=3, group=8, clip=True, sparsity=0.32, rank=10)
    steps = list(soften(plan, 30))
    for before, after in zip([plan, *steps], steps, strict=False):
        assert (after.bits or 99) >= (before.bits or 99)
        assert after.sparsity <= before.sparsity
        assert (after.rank or 99) > (before.rank or 98)
        assert not after.changes_nothing
    assert [step.bits for step in steps[:6]] == [4, 5, 6, 7, 8, None]
    assert steps[0] == LayerPlan(bits=4, group=8, clip=True, sparsity=0.27, rank=11)
    assert steps[-1].rank is None or steps[-1].rank < 30


def test_of_one_kind_only_that_one() -> None:
    assert [s.bits for s in soften(LayerPlan(bits=5), 10)] == [6, 7, 8]
    found = [s.sparsity for s in soften(LayerPlan(sparsity=0.17), 10)]
    assert found == [0.12, 0.07, 0.02]
    assert [s.rank for s in soften(LayerPlan(rank=6), 10)] == [7, 8, 9]
    assert list(soften(LayerPlan(bits=8), 10)) == []


def test_refuses_a_rank_that_the_layer_does_not_have() -> None:
    with pytest.raises(CompressionError, match="rank must be from 1 to 10"):
        next(soften(LayerPlan(rank=11), 10))
