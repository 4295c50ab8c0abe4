"""A learning curve with the study itself: `wwopt tune --fractions`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import wwopt.recommendation
from wwopt.recommendation.measures import choose_measure, find_best, to_loss, value_of_probe
from wwopt.recommendation.probe_records import find_probes
from wwopt.recommendation.probes import PARTS, Probe
from wwopt.study.guides import tracked_score
from wwopt.tracking.store import folder_uri
from wwopt.tracking.tracked_studies import read_study

if TYPE_CHECKING:
    from wwopt.study.spec import StudySpec


def probe_fractions(
    spec: "StudySpec",
    *,
    out: str | Path = "wwopt-runs",
    tracking: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> int:
    """Train the best configuration on an eighth, a quarter and a half of the data: .875 trainings.

    Each is a probe of its own, no trial: the search does not see it, and `wwopt recommend` counts
    it. Those that were run before are not run again.

    Args:
        spec: the study, tuned.
        out: folder that it was tuned into.
        tracking: MLflow's URI, instead of the folder's database.
        seed: of the probes.
        progress: show a bar.

    Returns:
        How many gave no value; they do not cost the rest.

    Raises:
        StudyError: if no trial is complete.
        TrackingError: if the tracking store cannot be read or written.
    """
    tracked = read_study(tracking or folder_uri(out), spec.name)
    measure = choose_measure(tracked, None, stated=spec.metric)
    best = find_best(tracked, measure)
    results = wwopt.recommendation.run_probes(
        replace(spec, objective=tracked_score(tracked) or spec.objective),
        tracked,
        best,
        [Probe("data", part) for part in PARTS],
        lambda result: to_loss(value_of_probe(result, measure), measure),
        known=find_probes(tracked, best, seed=seed),
        seed=seed,
        progress=progress,
    )
    return sum(result.status != "ok" for result in results.values())
