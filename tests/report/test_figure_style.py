"""A few bad trials squeeze no axis, and a name on one is no tag of plotly's."""

from wwopt.report.figure_style import axis_top


def test_penalised_trials_do_not_squeeze_the_axis() -> None:
    assert axis_top([0.0, 1.0, 2.0, 3.0]) == 3.0
    assert axis_top([0.0, 1.0, 2.0, 3.0, 1000.0]) == 3.0 + 3.0 * 2.0
    assert axis_top([]) == 1.0
    assert axis_top([2.0, 2.0]) == 2.0
