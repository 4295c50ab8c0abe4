"""A few bad trials squeeze no axis, and a name on one is no tag of plotly's."""

from wwopt.metrics.objective import TERMS
from wwopt.report.figure_style import TERM_COLOURS, axis_top, plain_text


def test_penalised_trials_do_not_squeeze_the_axis() -> None:
    assert axis_top([0.0, 1.0, 2.0, 3.0]) == 3.0
    assert axis_top([0.0, 1.0, 2.0, 3.0, 1000.0]) == 3.0 + 3.0 * 2.0
    assert axis_top([]) == 1.0
    assert axis_top([2.0, 2.0]) == 2.0


def test_a_name_on_an_axis_is_no_tag_of_plotlys() -> None:
    assert plain_text("<b>lr</b> & a'", 40) == "&lt;b&gt;lr&lt;/b&gt; &amp; a'"
    assert plain_text("<" + "x" * 40, 5) == "&lt;x…xx"  # shortened as it is read


def test_every_term_of_the_objective_has_a_colour_of_its_own() -> None:
    assert len(set(TERM_COLOURS)) == len(TERM_COLOURS) >= len(TERMS)
