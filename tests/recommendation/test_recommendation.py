"""The whole recommendation on a real store, `probe_plans` too: the law of its metric is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import wwopt
from wwopt.recommendation.decisions import Prices
from wwopt.recommendation.probes import Probe, need_probes, plan_probes
from wwopt.recommendation.recommendation import Recommendation, recommend
from wwopt.study import LastNetwork
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters

BEST_RATE = 0.1
EPOCHS = 4


@dataclass(frozen=True)
class Law:
    """Of the error: a floor and a fall with the data, times what size, epochs and rate do to it."""

    floor: float = 0.02
    fall: float = 0.06
    data: float = 1.0  # exponents
    width: float = 0.0
    epochs: float = 0.0
    rate: float = 0.2  # relative loss at a rate that is e times too high or too low
    noise: float = 0.01

    def error(self, hp: LayerHyperparameters, conditions: wwopt.Conditions) -> float:
        known = self.floor + self.fall * conditions.fraction**-self.data
        known *= conditions.width**-self.width * (conditions.epochs / EPOCHS) ** -self.epochs
        known *= 1.0 + self.rate * abs(math.log(hp.lr["0"] / BEST_RATE))
        return known * (1.0 + self.noise * float(torch.randn(())))


def make_network(width: float = 1.0) -> nn.Sequential:
    size = round(64 * width)
    return nn.Sequential(nn.Linear(size, size), nn.Linear(size, size))


def make_space(conditions: wwopt.Conditions) -> wwopt.LayerSpace:
    return wwopt.LayerSpace.from_model(
        make_network(conditions.width), lr=(0.05, 0.2), dropout=None, momentum=None, tie="global"
    )


def make_spec(
    name: str, law: Law, *, follows: bool = False, metrics: bool = True, fails: str = ""
) -> wwopt.StudySpec:
    """A study of that law; its space follows the width only where asked."""

    def train(hp: LayerHyperparameters, conditions: wwopt.Conditions, recorder: Any) -> None:
        if fails == "epochs" and conditions.epochs != EPOCHS:
            raise RuntimeError("out of memory")
        again = isinstance(recorder, LastNetwork)
        if fails == "again" and again and conditions.fraction == 1.0:
            raise RuntimeError("the disk is full")
        network = make_network(conditions.width)
        if not metrics:
            recorder.step(network, train_loss=0.1)
            return
        error = law.error(hp, conditions)
        shown = {"error": error, "accuracy": 1.0 - error, "percent_accuracy": 100.0 - 100.0 * error}
        recorder.step(network, train_loss=0.1, val_loss=3.0 * error, **shown)

    fixed = make_space(wwopt.Conditions(seed=0, epochs=EPOCHS))
    return wwopt.StudySpec(
        name,
        train,
        make_space if follows else fixed,
        conditions=wwopt.Conditions(seed=0, epochs=EPOCHS),
        metric="error" if metrics else None,
    )


Tuned = Callable[..., tuple[wwopt.StudySpec, Path]]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """Return a function: name, law → the study's spec, tuned, and its folder; one store for all."""
    out = tmp_path_factory.mktemp("recommended")
    known: dict[str, wwopt.StudySpec] = {}

    def make(name: str, law: Law, *, trials: int = 8, **options: Any) -> tuple[Any, Path]:
        if name not in known:
            known[name] = make_spec(name, law, **options)
            wwopt.tune(
                known[name], trials=trials, out=out, progress=False, explain=False, max_weights=0
            )
        return known[name], out

    return make


def ask(study: tuple[wwopt.StudySpec, Path], **options: Any) -> Recommendation:
    spec, out = study
    return recommend(spec, out=out, progress=False, **options)


@pytest.fixture(scope="module")
def data_pays(tuned: Tuned) -> tuple[wwopt.StudySpec, Path]:
    """A study that more data helps most, probed."""
    study = tuned("data pays", Law())
    ask(study, probe=True)
    return study


@pytest.fixture(scope="module")
def nothing_pays(tuned: Tuned) -> tuple[wwopt.StudySpec, Path]:
    study = tuned("nothing pays", Law(floor=0.1, data=0.0, rate=0.05), trials=6)
    ask(study, probe=True)
    return study


def test_where_data_pay_the_verdict_is_data(data_pays: tuple[wwopt.StudySpec, Path]) -> None:
    found = ask(data_pays)
    assert found.verdict == found.decision.best == "data"
    assert found.metric == "error" and found.better == "lower" and found.validated
    outlook = found.decision.outlooks["data"]
    true = found.now * 0.03 / 0.08  # .02 + .06/x: the next doubling takes .03 of .08
    assert outlook.low <= true <= outlook.high
    assert 0.0 < outlook.low < outlook.gain < outlook.high < found.now
    assert found.decision.confidence > 0.7 and outlook.probability > 0.5
    assert not found.failed and found.paid.trainings <= 5.0
    assert found.paid.probes >= len(need_probes(("data", "epochs"))) and found.turns
    assert found.curve_enough is None or found.curve_enough > 1.0


def test_it_finds_the_best_trial_and_what_it_is_worth_retrained(
    data_pays: tuple[wwopt.StudySpec, Path],
) -> None:
    found = ask(data_pays)
    study = wwopt.read_study(f"sqlite:///{data_pays[1] / 'mlflow.db'}", "data pays")
    errors = [trial.metrics["metrics/error"] for trial in study.trials]
    assert found.trials == pytest.approx(errors) and len(errors) == 8
    assert errors[found.trial] == min(errors)
    assert found.now == pytest.approx(errors[found.trial], rel=0.1)
    assert found.amounts.more_trials == 8
    assert found.amounts.hours == pytest.approx(study[found.trial].duration / 3600.0)


def test_what_is_not_asked_of_the_study_file_is_the_same_from_the_store(
    data_pays: tuple[wwopt.StudySpec, Path],
) -> None:
    study = wwopt.read_study(f"sqlite:///{data_pays[1] / 'mlflow.db'}", "data pays")
    one, other = ask(data_pays), recommend(study, metric="error")
    assert other.decision == one.decision
    with pytest.raises(wwopt.StudyError, match="probes train networks: name the study's file"):
        recommend(study, metric="error", probe=True)


def test_the_same_seed_gives_the_same_recommendation(
    data_pays: tuple[wwopt.StudySpec, Path],
) -> None:
    one, again, other = (ask(data_pays, seed=seed) for seed in (0, 0, 1))
    assert one.decision == again.decision
    assert one.verdict == "data"
    assert other.verdict == "probe"  # the probes of a seed are its own, and these were not run


@pytest.mark.parametrize("metric", ["accuracy", "percent_accuracy", "val_loss"])
def test_the_verdict_does_not_depend_on_how_the_metric_is_told(
    data_pays: tuple[wwopt.StudySpec, Path], metric: str
) -> None:
    error, other = ask(data_pays), ask(data_pays, metric=metric)
    assert other.metric == metric and other.trial == error.trial
    assert other.better == ("lower" if metric == "val_loss" else "higher")
    assert other.verdict == error.verdict
    if metric != "val_loss":  # a loss may have a floor of its own, so it is judged otherwise
        unit = 100.0 if metric == "percent_accuracy" else 1.0
        assert other.now == pytest.approx(unit * (1.0 - error.now))
        assert other.noise == pytest.approx(unit * error.noise)
        for name, outlook in error.decision.outlooks.items():
            gain = other.decision.outlooks[name].gain
            # Medians of 4,000 draws, which rounding turns into others.
            assert gain == pytest.approx(unit * outlook.gain, nan_ok=True, rel=0.03, abs=1e-9)
        assert other.decision.confidence == pytest.approx(error.decision.confidence, abs=0.02)
        assert (other.labels is None) == (error.labels is None)


def test_few_validation_examples_count_the_same_in_per_cent(
    data_pays: tuple[wwopt.StudySpec, Path],
) -> None:
    one, other = (
        ask(data_pays, metric=metric, validation_examples=200)
        for metric in ("accuracy", "percent_accuracy")
    )
    unsure = one.decision.outlooks["data"]
    sure = ask(data_pays, metric="accuracy").decision.outlooks["data"]
    assert unsure.high - unsure.low > sure.high - sure.low
    told = other.decision.outlooks["data"]
    assert told.high - told.low == pytest.approx(100.0 * (unsure.high - unsure.low), rel=0.01)


def test_where_nothing_pays_its_price_the_verdict_is_to_stop(
    nothing_pays: tuple[wwopt.StudySpec, Path],
) -> None:
    dear = Prices(worth=1000.0, example=1.0, trial=50.0)
    found = ask(nothing_pays, prices=dear, examples=10_000)
    assert found.verdict == "stop"
    assert found.decision.outlooks["stop"].net == 0.0
    for action in ("data", "tune", "longer"):
        assert found.decision.outlooks[action].net < 0.0
    assert found.decision.outlooks["data"].cost == found.amounts.cost("data", dear)
    assert found.curve_enough == pytest.approx(0.125)  # as far as the least share shows
    assert {turn.price for turn in found.turns} <= {"example", "trial", "gpu_hour"}


def test_a_curve_that_is_flat_promises_less_than_one_that_falls(
    data_pays: tuple[wwopt.StudySpec, Path], nothing_pays: tuple[wwopt.StudySpec, Path]
) -> None:
    falls, flat = (ask(study).decision.outlooks["data"] for study in (data_pays, nothing_pays))
    assert flat.gain / 0.1 < 0.5 * falls.gain / 0.08
    assert ask(nothing_pays).verdict != "data"


def test_prices_turn_the_verdict_away_from_data(data_pays: tuple[wwopt.StudySpec, Path]) -> None:
    cheap, dear = (
        ask(data_pays, prices=Prices(worth=1e6, example=price), examples=10_000)
        for price in (0.1, 1e3)
    )
    assert cheap.verdict == "data" and dear.verdict != "data"
    assert dear.decision.outlooks["data"].net < 0.0 < cheap.decision.outlooks["data"].net


def test_where_training_is_too_short_the_verdict_is_to_train_longer(tuned: Tuned) -> None:
    study = tuned("too short", Law(floor=0.12, fall=0.001, epochs=1.0), trials=4)
    found = ask(study, trainings=5.0)
    assert found.verdict == "longer"
    outlook = found.decision.outlooks["longer"]
    assert outlook.low < 0.5 * found.now < outlook.high


@pytest.mark.slow
def test_where_the_model_is_too_small_the_verdict_is_a_bigger_one(tuned: Tuned) -> None:
    study = tuned("too small", Law(floor=0.12, fall=0.001, width=1.0), trials=4, follows=True)
    found = ask(study, probe=True)
    assert found.decision.best == "bigger"
    outlook = found.decision.outlooks["bigger"]
    assert outlook.low < 0.5 * found.now < outlook.high
    assert found.enough["bigger"] is None or found.enough["bigger"] > 1.0


def test_without_probes_it_says_what_is_missing_and_what_it_would_cost(tuned: Tuned) -> None:
    study = tuned("unprobed", Law(), trials=4)
    found = ask(study)
    assert set(found.gains.missing) == {"data", "bigger", "longer"}
    assert math.isnan(found.decision.outlooks["data"].gain)
    planned = plan_probes(("data", "epochs"))
    assert found.plan.probes == planned and found.paid.probes == 0
    assert found.plan.trainings == pytest.approx(math.fsum(probe.cost for probe in planned))
    assert found.plan.seconds == pytest.approx(found.plan.trainings * 3600.0 * found.amounts.hours)
    assert "more data" in found.plan.reason and found.curve_enough is None


def test_too_few_trials_are_said_to_be_missing(tuned: Tuned) -> None:
    found = ask(tuned("two trials", Law(), trials=2))
    assert found.verdict == "probe"
    assert found.decision.outlooks["tune"].missing == "2 finished trials; 3 are needed"
    assert found.decision.doubtful == "data" and found.plan.probes


def test_probes_that_failed_are_told_with_their_reason(tuned: Tuned) -> None:
    found = ask(tuned("fails longer", Law(), trials=3, fails="epochs"), probe=True)
    assert found.failed == ("epochs ×0.5, lr ×1, seed 0: raised RuntimeError: out of memory",)
    assert found.gains.missing["longer"] == "the probes of epochs failed"
    assert math.isfinite(found.decision.outlooks["data"].gain)


@pytest.mark.slow
def test_where_no_training_can_be_repeated_the_trials_still_speak(tuned: Tuned) -> None:
    found = ask(tuned("fails again", Law(), trials=4, fails="again"), probe=True)
    assert len(found.failed) >= 2 and found.now == min(found.trials)
    assert math.isfinite(found.decision.outlooks["tune"].gain)


@pytest.fixture(scope="module")
def unvalidated(tuned: Tuned) -> tuple[wwopt.StudySpec, Path]:
    return tuned("no metric", Law(), trials=3, metrics=False)


def test_without_a_metric_gains_are_in_the_scores_units_and_it_says_so(
    unvalidated: tuple[wwopt.StudySpec, Path],
) -> None:
    found = ask(unvalidated, probe=True)
    assert found.metric == "score" and not found.validated and found.better == "lower"
    study = wwopt.read_study(f"sqlite:///{unvalidated[1] / 'mlflow.db'}", "no metric")
    assert study.best is not None and found.trial == study.best.number
    assert found.trials == pytest.approx([trial.value for trial in study.trials])
    assert found.labels is None
    assert found.verdict == "probe"  # the score alone gives none, whatever leads


def test_a_metric_that_was_not_logged_is_refused(
    unvalidated: tuple[wwopt.StudySpec, Path], data_pays: tuple[wwopt.StudySpec, Path]
) -> None:
    with pytest.raises(wwopt.StudyError, match=r"logged no metric 'error' .* it has none"):
        ask(unvalidated, metric="error")
    with pytest.raises(wwopt.StudyError, match="it has accuracy, error, percent_accuracy"):
        ask(data_pays, metric="speed")


def test_of_several_metrics_one_must_be_named(data_pays: tuple[wwopt.StudySpec, Path]) -> None:
    study = wwopt.read_study(f"sqlite:///{data_pays[1] / 'mlflow.db'}", "data pays")
    assert recommend(study).metric == "error"  # which the study's file named
    with pytest.raises(wwopt.StudyError, match="say which one counts with --metric"):
        recommend(replace(study, params={}, run_id=None))


def test_a_study_without_complete_trials_is_refused(tuned: Tuned) -> None:
    _, out = tuned("data pays", Law())
    study = wwopt.read_study(f"sqlite:///{out / 'mlflow.db'}", "data pays")
    empty = replace(study, trials=tuple(replace(t, state="FAIL") for t in study.trials))
    with pytest.raises(wwopt.StudyError, match="run `wwopt tune` first"):
        recommend(empty)


def test_what_cannot_be_priced_is_refused_before_anything_is_trained(tuned: Tuned) -> None:
    study = tuned("unprobed", Law(), trials=4)
    with pytest.raises(ValueError, match="say how many training examples there are today"):
        ask(study, prices=Prices(worth=1.0, example=0.1), probe=True)
    assert len(ask(study).plan.probes) == len(plan_probes(("data", "epochs")))
    with pytest.raises(ValueError, match=r"1 trainings are too few .* it takes 5 probes, 2.38"):
        ask(study, trainings=1.0)
    with pytest.raises(ValueError, match="minutes are too few for any verdict: it takes 5 probes"):
        ask(study, minutes=1e-9)
    with pytest.raises(ValueError, match="say what a GPU hour costs"):
        ask(study, spend=3.0)
    with pytest.raises(ValueError, match="trainings must be positive and finite, got -1"):
        ask(study, trainings=-1.0)
    assert ask(study).paid.probes == 0  # nothing was trained
    with pytest.raises(ValueError, match="more trials must be at least 1, got 0"):
        ask(study, more_trials=0)


def test_probing_again_trains_nothing(data_pays: tuple[wwopt.StudySpec, Path]) -> None:
    one = ask(data_pays)
    again = ask(data_pays, probe=True)
    assert again.decision == one.decision
    assert again.paid == one.paid and Probe("data", 1.0) not in again.plan.probes
    more = ask(data_pays, trainings=again.paid.trainings + 1.0)  # though the verdict stands
    assert again.paid.trainings < more.paid.trainings <= again.paid.trainings + 1.0


def test_money_buys_as_many_gpu_hours_as_it_is_worth(tuned: Tuned) -> None:
    study = tuned("unprobed", Law(), trials=4)
    hours = ask(study).amounts.hours
    prices = Prices(worth=1.0, gpu_hour=1.0 / hours)  # a training costs 1
    seen: list[float] = []
    found = ask(study, prices=prices, spend=4.0, announce=lambda plan: seen.append(plan.trainings))
    assert 2.0 < found.paid.trainings <= seen[0] <= 4.0 and found.paid.probes > 0
