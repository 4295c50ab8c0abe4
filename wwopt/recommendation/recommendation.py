"""Add data, or tune on? From a study's trials and probes to a recommendation.

The actions, what they would bring and how sure that is come from `gains`, the verdict from
`decisions`; here is what they are fed with. With a validation metric gains are in its units.
Without one they are in units of the study's score, which is weaker evidence: it says whether the
weights look better trained, not whether the network is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import wwopt.recommendation
import wwopt.study
from wwopt.recommendation.decisions import Amounts, Decision, Prices, decide
from wwopt.recommendation.evidence import Evidence
from wwopt.recommendation.gains import Action, Gains, estimate_gains
from wwopt.recommendation.label_noise import LabelNoise, judge_labels
from wwopt.recommendation.measures import (
    SCORE,
    choose_measure,
    find_best,
    guess_again,
    to_loss,
    value_of_probe,
    value_of_trial,
)
from wwopt.recommendation.probe_plans import (
    Budget,
    Paid,
    ProbePlan,
    Question,
    check_budget,
    list_missing,
    plan_missing,
    read_budget,
    sum_paid,
)
from wwopt.recommendation.probe_records import find_probes
from wwopt.recommendation.probes import Probe, ProbeResult, find_kinds, need_probes
from wwopt.recommendation.turning_points import Turn, find_turns
from wwopt.study.errors import StudyError
from wwopt.study.guides import tracked_score
from wwopt.tracking.artifacts import read_settings
from wwopt.tracking.store import folder_uri
from wwopt.tracking.tracked_studies import TrackedStudy, read_study
from wwopt.tracking.tracked_trials import TrackedTrial
from wwopt.tracking.validation_metrics import Metric, read_metric

if TYPE_CHECKING:
    from wwopt.study.spec import StudySpec


@dataclass(frozen=True)
class Recommendation:
    """What to do next, and everything that it rests on."""

    study: str
    trial: int  # the best one, whose configuration is judged
    measure: Metric  # that gains are in units of; `SCORE` without a validation metric
    now: float  # the metric of the best configuration as it is, retrained where probes did so
    noise: float  # of one training by its seed, in the metric's units; NaN where unknown
    decision: Decision
    gains: Gains
    trials: tuple[float, ...]  # finished trials as losses, in their order
    amounts: Amounts
    prices: Prices | None
    paid: Paid  # for the probes so far
    plan: ProbePlan  # of those that are missing, or that would make surer
    turns: tuple[Turn, ...]  # what would change the verdict
    failed: tuple[str, ...]  # probes that failed, and why
    labels: LabelNoise | None
    enough: Mapping[Action, float | None]  # multiple of today's whose next doubling does not pay
    rate: float = 1.0  # factor on the best configuration's learning rates that probes found best

    @property
    def verdict(self) -> str:
        """data, tune, bigger, longer, stop or probe."""
        return self.decision.verdict

    @property
    def curve_enough(self) -> float | None:
        """Multiple of today's data whose next doubling does not pay; None where not known."""
        return self.enough.get("data")

    @property
    def metric(self) -> str:
        """The name of what gains are in units of; "score" without a validation metric."""
        return self.measure.name

    @property
    def better(self) -> str:
        """Which way the metric is better: "lower" or "higher"."""
        return self.measure.better

    @property
    def validated(self) -> bool:
        """Whether a validation metric was seen."""
        return self.measure != SCORE


def recommend(
    study: "str | StudySpec | TrackedStudy",
    *,
    prices: Prices | None = None,
    probe: bool = False,
    trainings: float | None = None,
    minutes: float | None = None,
    spend: float | None = None,
    announce: Callable[[ProbePlan], object] | None = None,
    spec: "StudySpec | None" = None,
    out: str | Path = "wwopt-runs",
    tracking: str | None = None,
    metric: str | Metric | None = None,
    examples: int | None = None,
    validation_examples: int | None = None,
    more_trials: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Recommendation:
    """Recommend to add data, keep tuning, take a bigger model, train longer, stop, or probe.

    Args:
        study: a tuned study: its file, its `StudySpec`, or as read from MLflow.
        prices: of examples, trials and GPU hours, with what the metric is worth; None to compare
            what doublings bring.
        probe: run the probes that are missing, each an MLflow run, before judging. Without a limit
            they end as soon as the verdict stands; a limit is used in full, as more evidence makes
            more verdicts right (docs/recommendation.md).
        trainings: full ones that all probes may take as long as, those of before among them; 5
            where nothing else limits them. Each of the three limits implies `probe`.
        minutes: that probes may take now.
        spend: money that probes may cost now, at the price of a GPU hour.
        announce: called with what these are and cost, before the first is run.
        spec: how the study trains, where `study` is not it; only probes need it.
        out: folder that the study was tuned into.
        tracking: MLflow's URI, instead of the folder's database.
        metric: validation metric; by default the study's `metric`, or the only one it logged, or
            none.
        examples: training examples that there are today.
        validation_examples: behind the metric, where it is an error or an accuracy: the choice of
            the examples then widens the intervals.
        more_trials: of the action "tune"; by default as many as there were, at most 100.
        seed: of probes and draws.
        progress: show a bar while probes run.

    Raises:
        StudyError: if the study cannot be loaded, has no complete trial, or probes need its file.
        TrackingError: if the tracking store cannot be read.
        ValueError: if examples have a price and their number is not given, no trial is asked
            for, or the budget is too small for any verdict.
    """
    if more_trials is not None and more_trials < 1:
        raise ValueError(f"more trials must be at least 1, got {more_trials}")
    if prices is not None:  # what cannot be priced is refused before anything is trained
        Amounts(examples, 1, 0.0).cost("data", prices)
    budget = read_budget(trainings, minutes, spend, prices=prices)
    if isinstance(study, str):
        spec = spec or wwopt.study.load_study(study)
    elif not isinstance(study, TrackedStudy):
        spec = study
    tracked = study if isinstance(study, TrackedStudy) else _read(spec, out, tracking)
    stated = read_metric(read_settings(tracked)) if spec is None else spec.metric
    measure = choose_measure(tracked, metric, stated=stated)
    best = find_best(tracked, measure)
    results = find_probes(tracked, best, seed=seed)
    finished = [t for t in tracked.trials if t.state in ("COMPLETE", "PRUNED", "FAIL")]
    question = Question(
        ("data", "epochs") if spec is None else find_kinds(spec),
        2 if spec is None else spec.conditions.epochs,
        len(finished),
        best.duration,
    )
    more = min(max(len(finished), 1), 100) if more_trials is None else more_trials
    amounts = Amounts(examples, more, best.duration / 3600.0)

    def judge(found: Mapping[Probe, ProbeResult], measure: Metric) -> tuple[Gains, Decision]:
        evidence = _gather(finished, found, measure, validation_examples)
        gains = estimate_gains(evidence, more_trials=more, seed=seed)
        return gains, decide(gains, amounts, prices, validated=measure != SCORE)

    if probe or budget is not None:
        if spec is None:
            raise StudyError(
                "probes train networks: name the study's file (wwopt recommend study.py --probe)"
            )
        check_budget(question, results, budget or Budget())
        needed = need_probes(question.kinds, epochs=question.epochs, trials=question.trials)

        def stands(found: Mapping[Probe, ProbeResult]) -> bool:
            return all(p in found for p in needed) and judge(found, measure)[1].verdict != "probe"

        if budget is not None or not stands(results):
            # Probes beside trials: under the score that the trials have, its version included.
            spec = replace(spec, objective=tracked_score(tracked) or spec.objective)
            if announce is not None:
                announce(plan_missing(question, results, budget=budget or Budget()))
            results = wwopt.recommendation.run_probes(  # with torch, which reading does not need
                spec,
                tracked,
                best,
                list_missing(question, results, budget or Budget()),
                lambda result: to_loss(value_of_probe(result, measure), measure),
                known=results,
                budget=budget or Budget(),
                # Whoever sets a limit pays for certainty: more evidence makes more verdicts right.
                enough=stands if budget is None else None,
                seed=seed,
                progress=progress,
            )
    if measure not in (SCORE, stated, metric):  # probes may have gone beyond what the trials showed
        measure = guess_again(measure, tracked, results.values())
    gains, decision = judge(results, measure)
    return Recommendation(
        study=tracked.name,
        trial=best.number,
        measure=measure,
        now=measure.to_metric(gains.now),
        noise=gains.noise,
        decision=decision,
        gains=gains,
        trials=_list_losses(finished, measure),
        amounts=amounts,
        prices=prices,
        paid=sum_paid(results.values()),
        plan=plan_missing(question, results),
        turns=find_turns(decision, gains, amounts, prices),
        failed=tuple(f"{p.name}: {r.status}" for p, r in results.items() if r.status != "ok"),
        labels=judge_labels(_train_loss(best, results), gains.now / measure.top)
        if measure.is_share
        else None,
        enough={
            action: curve.enough(
                gains.noise if prices is None else amounts.cost(action, prices) / prices.worth
            )
            for action, curve in gains.curves.items()
            if action in gains.draws  # an ill-behaved curve says nothing of what is enough
        },
        rate=_gather(finished, results, measure, None).best_rate,
    )


def _gather(
    finished: Sequence[TrackedTrial],
    results: Mapping[Probe, ProbeResult],
    measure: Metric,
    validation_examples: int | None,
) -> Evidence:
    behind = None
    if measure.counts_errors and validation_examples is not None:
        # In per cent, a mistake in n examples is as much as one in n/100 is as a share.
        behind = validation_examples / measure.top
    return Evidence(
        _list_losses(finished, measure),
        {p: to_loss(value_of_probe(result, measure), measure) for p, result in results.items()},
        errors=measure.counts_errors,
        most=measure.top or 1.0,
        validation=behind,
        courses={
            p: tuple(to_loss(v, measure) for v in result.course.get(measure.name, ()))
            for p, result in results.items()
        },
    )


def _list_losses(finished: Sequence[TrackedTrial], measure: Metric) -> tuple[float, ...]:
    return tuple(to_loss(value_of_trial(trial, measure), measure) for trial in finished)


def _read(spec: "StudySpec | None", out: str | Path, tracking: str | None) -> TrackedStudy:
    return read_study(tracking or folder_uri(out), None if spec is None else spec.name)


def _train_loss(best: TrackedTrial, results: Mapping[Probe, ProbeResult]) -> float:
    """At the end of training: the mean of the configuration's retrainings, else its trial's."""
    again = [
        result.metrics["train_loss"]
        for probe, result in results.items()
        if (probe.kind, probe.factor, probe.lr_factor) == ("data", 1.0, 1.0)
        and "train_loss" in result.metrics
    ]
    return math.fsum(again) / len(again) if again else best.metrics.get("train/loss", math.nan)
