"""Add data, or tune on? From a study's trials and probes to a recommendation.

The actions, what they would bring and how sure that is come from `gains`, the verdict from
`decisions`; here is what they are fed with. With a validation metric gains are in its units.
Without one they are in units of the study's score, which is weaker evidence: it says whether the
weights look better trained, not whether the network is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wwopt.recommendation.decisions import Amounts, Decision, Prices, decide
from wwopt.recommendation.evidence import Evidence
from wwopt.recommendation.gains import Gains, estimate_gains
from wwopt.recommendation.layer_findings import Finding, find_in_layers, judge_labels
from wwopt.recommendation.probe_runs import find_probes, run_probes
from wwopt.recommendation.probes import Probe, ProbeResult, find_kinds, plan_probes
from wwopt.study.references import load_study
from wwopt.study.spec import StudyError, StudySpec
from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.store import folder_uri
from wwopt.tracking.tracked_studies import TrackedStudy, read_study
from wwopt.tracking.tracked_trials import TrackedTrial
from wwopt.tracking.validation_metrics import find_validation_metrics

SCORE = "score"  # the study's objective, where there is no validation metric


@dataclass(frozen=True)
class ProbePlan:
    """Probes that were not run yet, and what they would cost."""

    probes: tuple[Probe, ...]
    trainings: float  # as many trainings of the best configuration take as long
    seconds: float  # at the best trial's own duration; NaN where that is not known
    reason: str  # what they would settle; "" where nothing is missing


@dataclass(frozen=True)
class Recommendation:
    """What to do next, and everything that it rests on."""

    study: str
    trial: int  # the best one, whose configuration is judged
    metric: str  # that gains are in units of; "score" without a validation metric
    better: str  # "lower" or "higher"
    now: float  # the metric of the best configuration as it is, retrained where probes did so
    noise: float  # of one training by its seed, in the metric's units; NaN where unknown
    decision: Decision
    gains: Gains
    trials: tuple[float, ...]  # finished trials as losses, in their order
    amounts: Amounts
    prices: Prices | None
    plan: ProbePlan
    failed: tuple[str, ...]  # probes that failed, and why
    layers: tuple[Finding, ...]
    labels: Finding | None
    curve_enough: float | None  # multiple of today's data whose next doubling does not pay
    rate: float = 1.0  # factor on the best configuration's learning rates that probes found best

    @property
    def verdict(self) -> str:
        """data, tune, bigger, longer, stop or probe."""
        return self.decision.verdict

    @property
    def validated(self) -> bool:
        """Whether a validation metric was seen."""
        return self.metric != SCORE


def recommend(
    study: str | StudySpec | TrackedStudy,
    *,
    prices: Prices | None = None,
    probe: bool = False,
    spec: StudySpec | None = None,
    out: str | Path = "wwopt-runs",
    tracking: str | None = None,
    metric: str | None = None,
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
        probe: run the probes that are missing, each an MLflow run, before judging.
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
        ValueError: if examples have a price and their number is not given, or no trial is asked
            for.
    """
    if more_trials is not None and more_trials < 1:
        raise ValueError(f"more trials must be at least 1, got {more_trials}")
    if prices is not None:  # what cannot be priced is refused before anything is trained
        Amounts(examples, 1, 0.0).cost("data", prices)
    if isinstance(study, str):
        spec = spec or load_study(study)
    elif isinstance(study, StudySpec):
        spec = study
    tracked = study if isinstance(study, TrackedStudy) else _read(spec, out, tracking)
    metric = metric or (spec.metric if spec else tracked.params.get("metric"))
    name, sign = _choose_metric(tracked, metric)
    best = find_best(tracked, name, sign)
    if probe:
        if spec is None:
            raise StudyError(
                "probes train networks: name the study's file (wwopt recommend study.py --probe)"
            )
        run_probes(
            spec,
            tracked,
            best,
            plan_probes(find_kinds(spec)),
            lambda result: _loss(_metric_of(result, name), sign, 0.0),
            seed=seed,
            progress=progress,
        )
    results = find_probes(tracked, best, seed=seed)
    top = _top(tracked, results, name)
    losses = {p: _loss(_metric_of(result, name), sign, top) for p, result in results.items()}
    is_error = (sign == -1.0 and top > 0.0) or ("err" in (name or "").lower() and top == 1.0)
    finished = [t for t in tracked.trials if t.state in ("COMPLETE", "PRUNED", "FAIL")]
    trials = tuple(_loss(_value(trial, name), sign, top) for trial in finished)
    behind = None
    if is_error and validation_examples is not None:
        # In per cent, a mistake in n examples is as much as one in n/100 is as a share.
        behind = validation_examples / top
    evidence = Evidence(trials, losses, errors=is_error, validation=behind)
    more = min(max(len(trials), 1), 100) if more_trials is None else more_trials
    gains = estimate_gains(evidence, more_trials=more, seed=seed)
    amounts = Amounts(examples, more, best.duration / 3600.0)
    decision = decide(gains, amounts, prices)
    is_wrong = is_error and any(part in (name or "").lower() for part in ("acc", "err", "correct"))
    behaves = "data" in gains.draws  # an ill-behaved curve says nothing of what is enough
    worth_it = gains.noise
    if prices is not None:
        worth_it = amounts.cost("data", prices) / prices.worth
    return Recommendation(
        study=tracked.name,
        trial=best.number,
        metric=name or SCORE,
        better="higher" if sign == -1.0 else "lower",
        now=gains.now if sign != -1.0 else top - gains.now,
        noise=gains.noise,
        decision=decision,
        gains=gains,
        trials=trials,
        amounts=amounts,
        prices=prices,
        plan=plan_missing(spec, best, results, decision),
        failed=tuple(f"{p.name}: {r.status}" for p, r in results.items() if r.status != "ok"),
        layers=find_in_layers(read_layer_table(best), tuple(results.values())),
        labels=judge_labels(_train_loss(best, results), gains.now / top) if is_wrong else None,
        curve_enough=gains.curve.enough(worth_it) if gains.curve and behaves else None,
        rate=evidence.best_rate,
    )


def find_best(study: TrackedStudy, metric: str | None, sign: float | None) -> TrackedTrial:
    """The complete trial that is best by the metric, or by the score without one.

    Raises:
        StudyError: if no trial is complete.
    """
    judged = [t for t in study.judged if not t.violated and math.isfinite(_value(t, metric))]
    if not judged:
        states = ", ".join(sorted({trial.state.lower() for trial in study.trials})) or "none"
        raise StudyError(
            f"study {study.name!r} has no complete trial that violates no guard and has "
            f"{metric or 'a score'} (trials: {states}); run `wwopt tune` first"
        )
    return min(judged, key=lambda trial: (sign or 1.0) * _value(trial, metric))


def plan_missing(
    spec: StudySpec | None,
    best: TrackedTrial,
    results: Mapping[Probe, ProbeResult],
    decision: Decision,
) -> ProbePlan:
    """What probes were not run, and what they would cost."""
    kinds = ("data", "epochs") if spec is None else find_kinds(spec)
    missing = tuple(
        probe for probe in plan_probes(kinds) if probe not in results or results[probe].raised
    )
    trainings = sum(probe.cost for probe in missing)
    doubt = decision.doubtful
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


def _read(spec: StudySpec | None, out: str | Path, tracking: str | None) -> TrackedStudy:
    return read_study(tracking or folder_uri(out), None if spec is None else spec.name)


def _choose_metric(study: TrackedStudy, wanted: str | None) -> tuple[str | None, float | None]:
    """The validation metric's name, and +1 where lower is better, -1 where higher is."""
    if not study.judged:
        return None, None  # no trial, no metric; `find_best` says so
    signs = {
        key.removeprefix("metrics/"): sign
        for key, sign in find_validation_metrics(study.judged).items()
    }
    if wanted is not None:
        if wanted not in signs:
            known = ", ".join(signs) or "none"
            raise StudyError(
                f"study {study.name!r} logged no metric {wanted!r} whose name tells whether lower "
                f"is better; it has {known}"
            )
        return wanted, signs[wanted]
    if len(signs) > 1:
        raise StudyError(
            f"study {study.name!r} logged {', '.join(signs)}: say which one counts with --metric"
        )
    return next(iter(signs.items()), (None, None))


def _value(trial: TrackedTrial, metric: str | None) -> float:
    if trial.state != "COMPLETE":
        return math.inf  # a pruned or failed trial was not trained to its end
    return trial.value if metric is None else trial.metrics.get(f"metrics/{metric}", math.nan)


def _metric_of(result: ProbeResult, metric: str | None) -> float:
    if result.status != "ok":
        return math.inf
    return result.score if metric is None else result.metrics.get(metric, math.nan)


def _top(study: TrackedStudy, results: Mapping[Probe, ProbeResult], metric: str | None) -> float:
    """What a metric that is better high can reach: 1, or 100 for per cent; 0 where neither."""
    values = [_value(trial, metric) for trial in study.judged]
    values += [_metric_of(result, metric) for result in results.values()]
    highest = max((v for v in values if math.isfinite(v)), default=0.0)
    return 1.0 if highest <= 1.0 else 100.0 if highest <= 100.0 else 0.0


def _train_loss(best: TrackedTrial, results: Mapping[Probe, ProbeResult]) -> float:
    """At the end of training: the mean of the configuration's retrainings, else its trial's."""
    again = [
        result.metrics["train_loss"]
        for probe, result in results.items()
        if (probe.kind, probe.factor, probe.lr_factor) == ("data", 1.0, 1.0)
        and "train_loss" in result.metrics
    ]
    return math.fsum(again) / len(again) if again else best.metrics.get("train/loss", math.nan)


def _loss(value: float, sign: float | None, top: float) -> float:
    """A value as a loss: what is missing to the top where higher is better."""
    if math.isinf(value) or math.isnan(value):
        return math.inf
    return top - value if sign == -1.0 else value
