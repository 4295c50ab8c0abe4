"""The recorded study's report."""

import pytest

from wwopt.report.page import render_report
from wwopt.tracking.tracked_studies import TrackedStudy


@pytest.fixture(scope="module")
def text(tracked: TrackedStudy) -> str:
    return render_report(tracked, recommendation="More data.\n\nNot more tuning.")
