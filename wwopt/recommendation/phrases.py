"""What a recommendation says, phrase by phrase, for a terminal, a report and a picture."""

import math
from collections.abc import Mapping

from wwopt.recommendation.decisions import ENOUGH, ActionOutlook, Prices
from wwopt.recommendation.gains import ACTIONS, Action
from wwopt.recommendation.probe_plans import ProbePlan
from wwopt.recommendation.recommendation import Recommendation
from wwopt.recommendation.turning_points import Turn

# Second doublings are told little better than by a coin before the first was taken: see
# docs/recommendation.md.
ASK_AGAIN = "a rough guess, so ask again after the first"
ADVICE = {
    "data": "add data: twice today's",
    "tune": "keep tuning",
    "bigger": "take a bigger model: twice the width or depth",
    "longer": "train longer: twice the epochs",
    "stop": "stop: nothing is expected to pay",
}
CURVES: Mapping[Action, str] = {
    "data": "the data",
    "bigger": "the size",
    "longer": "the epochs",
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
    if not r.validated:
        return "no verdict: without a validation metric it would be a guess"
    if r.gains.unprobed:
        return f"not enough evidence: run {say_plan(r.plan, r.prices)}"
    return (
        f"not enough evidence: {LABELS[r.decision.best]} leads, but not surely "
        f"({r.decision.confidence:.0%})"
    )


def say_plan(plan: ProbePlan, prices: Prices | None) -> str:
    """What probes cost."""
    return _say_price(len(plan.probes), plan.trainings, plan.seconds, prices, about="about ")


def say_paid(r: Recommendation) -> str:
    """What the verdict has cost so far."""
    if not r.paid.probes:
        return "Paid so far: nothing beside the study's own trials."
    paid = r.paid
    return f"Paid so far: {_say_price(paid.probes, paid.trainings, paid.seconds, r.prices)}."


def _say_price(
    count: int, trainings: float, seconds: float, prices: Prices | None, *, about: str = ""
) -> str:
    full = "full training" + "s" * (round(trainings, 2) != 1.0)
    words = f"{count} probe{'s' * (count != 1)}, {about}{trainings:.3g} {full}"
    if math.isfinite(seconds):
        words += f", {say_duration(seconds)}"
    if prices is not None and prices.gpu_hour and math.isfinite(seconds):
        words += f", {seconds / 3600.0 * prices.gpu_hour:.3g} in GPU hours"
    return words


def say_more(r: Recommendation) -> str:
    """What more certainty costs, or the first of it."""
    if not r.plan.probes:
        return ""
    if r.gains.unprobed:
        command = "`wwopt recommend STUDY.py --probe` runs them"
        words = command if r.verdict == "probe" else f"{say_plan(r.plan, r.prices)}: {command}"
        if "bigger" in r.gains.missing and all(p.kind in ("data", "epochs") for p in r.plan.probes):
            words += ", and those of a bigger model where the study can make one"  # its file knows
        start = "" if r.verdict == "probe" else "Not run yet: "
        return f"{start}{words}, and ends as soon as the verdict stands."
    return (
        f"More certainty: up to {say_plan(r.plan, r.prices)}, with `wwopt recommend STUDY.py "
        f"--trainings {r.plan.total:g}`."
    )


def tell_turns(r: Recommendation) -> tuple[str, ...]:
    """What would change the verdict, a line each."""
    return tuple(_tell_turn(r, turn) for turn in r.turns)


def _tell_turn(r: Recommendation, turn: Turn) -> str:
    names = {"example": "an example", "trial": "a trial", "gpu_hour": "a GPU hour"}
    if turn.price != "lead":
        side = "less" if turn.below else "more"
        return (
            f"{LABELS[turn.verdict]} leads if {names[turn.price]} costs {side} than "
            + say_money(turn.value)
        )
    unit = _size(r, turn.value)
    if turn.below:
        return f"{LABELS[turn.verdict]} pays if it costs less than {unit} of {r.metric} are worth"
    best, rival = LABELS[r.decision.best], LABELS[turn.verdict]
    if turn.verdict == "stop":
        return f"{rival} leads if {best} costs more than {unit} of {r.metric} are worth"
    return f"{rival} leads if {best} costs {unit} of {r.metric} more than it does"


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
            " No validation metric was logged, so they are in units of the score: it says whether"
            " the weights look better trained, not whether the network is, and gives no verdict."
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
    """What decided: the actions, the curves as far as there are any, the trials."""
    curves = [_tell_curve(r, action) for action in CURVES if action in r.gains.curves]
    none = [] if curves else [f"nothing is known of more data: {_why_no_curve(r)}"]
    return (_tell_actions(r), *curves, *none, _tell_trials(r))


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


def _why_no_curve(r: Recommendation) -> str:
    return r.gains.missing.get("data", "no probes")


def _tell_curve(r: Recommendation, action: Action) -> str:
    curve = r.gains.curves[action]
    before, after = (float(r.measure.to_metric(v)) for v in curve.means[-2:])
    step = float(curve.means[-2] - curve.means[-1])
    words = (
        f"from {curve.shares[-2]:.3g} to {curve.shares[-1]:.3g} of {CURVES[action]} {r.metric} "
        f"went from {before:.4g} to {after:.4g} ({say_gain(r, step)})"
    )
    if action not in r.gains.draws:
        return f"{words}, and the curve is not to be extrapolated"
    enough = r.enough.get(action)
    if enough is None:
        reach = 0.5 * float(curve.nodes[-1])
        still = f"doublings still pay up to {reach:.3g} of today's, where the forecast ends"
        return f"{words}; {still}: {ASK_AGAIN}"
    less = "the noise" if r.prices is None else "it costs"
    until = f"from {enough:.2g} of today's on a doubling brings less than {less}"
    return f"{words}; {until}" + (f": {ASK_AGAIN}" if enough > 1.0 else "")


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
