"""Which probes are missing, what they would settle, and what they would cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wwopt.recommendation.probes import Probe, ProbeResult, find_kinds, plan_probes
from wwopt.tracking.tracked_trials import TrackedTrial

if TYPE_CHECKING:
    from wwopt.study.spec import StudySpec


@dataclass(frozen=True)
class ProbePlan:
    """Probes that were not run yet, and what they would cost."""

    probes: tuple[Probe, ...]
    trainings: float  # as many trainings of the best configuration take as long
    seconds: float  # at the best trial's own duration; NaN where that is not known
    reason: str  # what they would settle; "" where nothing is missing


def plan_missing(
    spec: "StudySpec | None",
    best: TrackedTrial,
    results: Mapping[Probe, ProbeResult],
    *,
    doubt: str | None = None,
) -> ProbePlan:
    """What probes were not run, and what they would cost.

    Args:
        spec: how the study trains; None: what only its file knows is left out.
        best: whose configuration is probed.
        results: of the probes so far.
        doubt: the action whose gain is most in doubt, once a decision was made.
    """
    kinds = ("data", "epochs") if spec is None else find_kinds(spec)
    missing = tuple(
        probe for probe in plan_probes(kinds) if probe not in results or results[probe].raised
    )
    trainings = sum(probe.cost for probe in missing)
    if missing:
        reason = "the learning curve, the noise between seeds, and what " + " and ".join(
            ["longer training", *(["a bigger model"] if len(kinds) > 2 else [])]
        )
        reason += " would bring"
    elif doubt == "tune":
        reason = "what further tuning brings is what is most in doubt: run more trials"
    elif doubt is not None:
        reason = f"what {doubt} brings is most in doubt: train it under more seeds"
    else:
        reason = ""
    return ProbePlan(missing, trainings, trainings * best.duration, reason)
