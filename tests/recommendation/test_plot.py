"""The picture's fans start at what was measured, and show what may come."""

from pathlib import Path
from typing import Any

import pytest
from fixtures.studies.probed_study import TRIALS

from wwopt.recommendation.fans import best_so_far, fan_of_curve
from wwopt.recommendation.phrases import say_verdict
from wwopt.recommendation.plot import plot_recommendation
from wwopt.recommendation.recommendation import Recommendation


def test_the_pictures_fans_start_at_what_was_measured(
    judged: Recommendation, tmp_path: Path
) -> None:
    fan = fan_of_curve(judged, "data")
    assert fan is not None
    shares, (low, middle, high) = fan
    assert shares[-1] == pytest.approx(4.0)
    assert (low <= middle).all() and (middle <= high).all()
    assert middle[-1] > middle[0]  # accuracy rises with the data
    places, best = best_so_far(judged)
    assert len(places) == TRIALS and (best[1:] >= best[:-1]).all()
    figure: Any = plot_recommendation(judged)
    figure.savefig(tmp_path / "a.png")
    assert say_verdict(judged)[:20] in figure.get_suptitle()
    assert [ax.get_xlabel() for ax in figure.axes] == ["training data", "epochs", "trials"]
