"""What a report is made of: the trials that stand for others, and the layers in order."""

from wwopt.report.page_data import gather
from wwopt.tracking.tracked_studies import TrackedStudy


def test_the_median_stands_between_the_best_and_the_worst(tracked: TrackedStudy) -> None:
    exemplars = gather(tracked).exemplars
    assert [e.role for e in exemplars] == ["best", "median", "worst"]
    values = sorted(t.value for t in tracked.judged)
    assert exemplars[0].trial.value == values[0] and exemplars[2].trial.value == values[-1]
    below = sum(value < exemplars[1].trial.value for value in values)
    assert abs(below - (len(values) - 1) / 2) <= 0.5
