"""What a recommendation says, phrase by phrase, for a terminal, a report and a picture."""

import math
from collections.abc import Mapping

from wwopt.recommendation.decisions import ENOUGH, ActionOutlook, Prices
from wwopt.recommendation.gains import ACTIONS
from wwopt.recommendation.probe_plans import ProbePlan
from wwopt.recommendation.recommendation import Recommendation

ADVICE = {
    "data": "add data: twice today's",
    "tune": "keep tuning",
    "bigger": "take a bigger model: twice the width or depth",
    "longer": "train longer: twice the epochs",
    "stop": "stop: nothing is expected to pay",
}
LABELS = {
    "data": "data ×2",
    "tune": "more trials",
    "bigger": "bigger ×2",
    "longer": "epochs ×2",
    "stop": "stop",
}


def say_verdict(r: Recommendation) -> str:
    """The verdict in one phrase; without enough evidence, what to run and what it costs."""
    if r.verdict != "probe":
        words = ADVICE[r.verdict]
        if r.verdict == "tune":
            words += f", {r.amounts.more_trials} more trials"
        words += f" ({r.decision.confidence:.0%} sure)"
        unknown = [LABELS[name] for name in r.gains.missing]
        if unknown:
            words += f"; but nothing is known of {', '.join(unknown)}, which may be better"
        return words
    if r.plan.probes:
        return f"not enough evidence: run {say_plan(r.plan, r.prices)}"
    doubt = r.plan.reason or f"{LABELS[r.decision.best]} leads, but not surely"
    return f"not enough evidence: {doubt}"


def say_plan(plan: ProbePlan, prices: Prices | None) -> str:
    """What probes cost."""
    count = len(plan.probes)
    words = f"{count} probe{'s' * (count != 1)}, about {plan.trainings:.3g} full trainings"
    if math.isfinite(plan.seconds):
        words += f", {say_duration(plan.seconds)}"
    if prices is not None and prices.gpu_hour and math.isfinite(plan.seconds):
        words += f", {plan.seconds / 3600.0 * prices.gpu_hour:.3g} in GPU hours"
    return words


def say_unrun(r: Recommendation) -> str:
    """What runs the probes that were not run; and which these are, unless the verdict tells it."""
    plan = "" if r.verdict == "probe" else f"Not run yet: {say_plan(r.plan, r.prices)}. "
    words = f"{plan}`wwopt recommend STUDY.py --probe` runs these probes"
    if "bigger" in r.gains.missing and all(p.kind in ("data", "epochs") for p in r.plan.probes):
        words += ", and those of a bigger model where the study can make one"  # its file knows
    return f"{words}."


def say_duration(seconds: float) -> str:
    """As "40 seconds", "3 minutes" or "2.5 hours"."""
    if seconds < 90.0:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400.0 else f"{seconds / 3600:.1f} hours"


def say_basis(r: Recommendation) -> str:
    """What gains are measured in, and from where."""
    noise = f"; another seed moves it by {_size(r, r.noise)}" if math.isfinite(r.noise) else ""
    words = f"Gains are in {_unit(r)}: {r.now:.4g} now, {r.better} is better{noise}."
    if not r.validated:
        words += (
            " No validation metric was logged, so they are in units of the score, which is weaker"
            " evidence: it says whether the weights look better trained, not"
            " whether the network is."
        )
    if r.prices is None:
        words += " Without prices, doublings are compared."
    return words


def tabulate_actions(r: Recommendation) -> list[tuple[str, ...]]:
    """A head and a row an action: gain, interval, cost, net value, probability of being best."""
    priced = r.prices is not None
    money = ("cost", "net value") if priced else ()
    table: list[tuple[str, ...]] = [("action", "gain", "80 % interval", *money, "P(best)")]
    for name, o in order_outlooks(r).items():
        if o.missing:
            table.append((LABELS[name], "–", "–", *("–" for _ in money), "–"))
            continue
        interval = f"{say_gain(r, o.low)} to {say_gain(r, o.high)}"
        costs = (say_money(o.cost or 0.0), say_money(o.net, sign="+")) if priced else ()
        label = f"{r.amounts.more_trials} more trials" if name == "tune" else LABELS[name]
        table.append((label, say_gain(r, o.gain), interval, *costs, f"{o.probability:.0%}"))
    return table


def say_money(amount: float, *, sign: str = "") -> str:
    """An amount without decimals that do not matter."""
    return format(amount, f"{sign},.0f" if abs(amount) >= 100.0 else f"{sign}.3g")


def order_outlooks(r: Recommendation) -> Mapping[str, ActionOutlook]:
    """The actions in a fixed order, to stop last."""
    known = r.decision.outlooks
    return {name: known[name] for name in (*ACTIONS, "stop") if name in known}


def say_gain(r: Recommendation, gain: float) -> str:
    """A gain in the metric's own direction and units: an error that falls by 1 % is "-1"."""
    sign = -1.0 if r.measure.lower_is_better else 1.0
    value = sign * gain * (100.0 if is_told_in_points(r) else 1.0)
    return "0" if value == 0.0 else f"{value:+.2g}"


def is_told_in_points(r: Recommendation) -> bool:
    """Whether the metric is a share of examples from 0 to 1, told in points."""
    return r.measure.is_share and r.measure.top == 1.0


def tell_reasons(r: Recommendation) -> tuple[str, ...]:
    """The three facts that decided: the actions, the learning curve, the trials."""
    return (_tell_actions(r), _tell_curve(r), _tell_trials(r))


def _tell_actions(r: Recommendation) -> str:
    known = [n for n, o in r.decision.outlooks.items() if not o.missing]
    ranked = sorted(known, key=lambda n: -r.decision.outlooks[n].net)
    if len(ranked) < 2:
        return "no action's gain is known yet"
    first, second = ranked[:2]
    unit = "in money" if r.prices is not None else "less the noise"
    net = [r.decision.outlooks[n].net for n in (first, second)]
    told = [
        say_money(v, sign="+")
        if r.prices is not None
        else f"{v * (100 if is_told_in_points(r) else 1):+.2g}"
        for v in net
    ]
    gain = "" if first == "stop" else f" (gain {say_gain(r, r.decision.outlooks[first].gain)})"
    sure = r.decision.confidence
    below = f", below the {ENOUGH:.0%} that a verdict needs" if sure < ENOUGH else ""
    return (
        f"{LABELS[first]}{gain} leads {LABELS[second]}, {told[0]} against {told[1]} {unit}; "
        f"the chance that nothing beats it by more than the noise is {sure:.0%}{below}"
    )


def _tell_curve(r: Recommendation) -> str:
    curve = r.gains.curve
    if curve is None:
        return f"nothing is known of more data: {r.gains.missing.get('data', 'no probes')}"
    before, after = (float(r.measure.to_metric(v)) for v in curve.means[-2:])
    step = float(curve.means[-2] - curve.means[-1])
    words = (
        f"from {curve.shares[-2]:g} to {curve.shares[-1]:g} of the data {r.metric} went from "
        f"{before:.4g} to {after:.4g} ({say_gain(r, step)})"
    )
    if curve.ill_behaved:
        return f"{words}, and the learning curve is not to be extrapolated"
    if r.curve_enough is None:
        return f"{words}; doublings still pay as far as can be foreseen"
    less = "the noise" if r.prices is None else "it costs"
    return (
        f"{words}; from {r.curve_enough:.2g} of today's data on a doubling brings less than {less}"
    )


def _tell_trials(r: Recommendation) -> str:
    rate = "" if r.rate == 1.0 else f"; of the probes, {r.rate:.3g} times its learning rate is best"
    return _tell_history(r) + rate


def _tell_history(r: Recommendation) -> str:
    finite = [v for v in r.trials if math.isfinite(v)]
    if len(finite) < 2:
        return f"{len(finite)} trial was finished: nothing is known of more"
    half = len(finite) // 2
    fell = min(finite[:half]) - min(finite)
    if fell <= 0.0:
        return f"the last {len(finite) - half} of {len(finite)} trials did not improve on the best"
    small = " (less than the noise)" if fell < r.noise else ""
    return (
        f"the last {len(finite) - half} of {len(finite)} trials improved the best by "
        f"{say_gain(r, fell)}{small}"
    )


def _unit(r: Recommendation) -> str:
    if not r.validated:
        return "units of the score"
    return f"points of {r.metric}" if is_told_in_points(r) else r.metric


def _size(r: Recommendation, value: float) -> str:
    if not is_told_in_points(r):
        return f"{value:.2g}"
    points = f"{100 * value:.2g}"
    return f"{points} point" if points == "1" else f"{points} points"
