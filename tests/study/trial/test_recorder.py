"""The recorder: when it analyses and reports, and what it refuses whenever it sees it."""

import contextlib
import math
from pathlib import Path

import optuna
import pytest
import torch
from fixtures.studies.recordings import model, rank_one, study

import wwopt
from wwopt.metrics.objective import SpectralObjective
from wwopt.study.trial.recording import record
from wwopt.tracking.tracked_studies import find_runs

PENALTY = SpectralObjective().penalty


@pytest.mark.parametrize(
    ("epochs", "every", "analysed"),
    [
        (8, None, [4, 6, 8]),
        (5, None, [3, 4, 5]),
        (1, None, [1]),
        (None, None, []),
        (6, 2, [2, 4, 6]),
        (5, 2, [2, 4, 5]),
        (None, 3, [3, 6]),
    ],
)
def test_when_it_analyses(epochs: int | None, every: int | None, analysed: list[int]) -> None:
    net = model()
    with record(study().ask(), epochs=epochs, every=every) as recorder:
        advice = [recorder.step(net) for _ in range(epochs or 7)]
    assert [i for i, a in enumerate(advice, start=1) if a.value is not None] == analysed


def test_nothing_is_reported_before_half_way_or_without_a_length() -> None:
    net = model()
    known, unknown = study(), study()
    with record(known.ask(), epochs=8, every=1) as recorder:
        for _ in range(8):
            recorder.step(net)
    assert sorted(known.trials[0].intermediate_values) == [4, 5, 6, 7, 8]
    with record(unknown.ask(), every=1) as recorder:
        for _ in range(8):
            recorder.step(net)
    assert unknown.trials[0].intermediate_values == {}


@pytest.mark.parametrize(
    ("length", "options", "steps", "analysed"),
    [
        (16, {}, [0, 5, 10, 15, 16], [0, 10, 15, 16]),  # 8 falls due at 10, 12 at 15
        (100, {}, [30, 90, 95], [90]),
        (16, {"every": 4}, [3, 5, 7, 9, 16], [5, 9, 16]),
    ],
)
def test_steps_may_be_left_out_and_their_number_be_told_late(
    length: int, options: dict[str, int], steps: list[int], analysed: list[int]
) -> None:
    net = model()
    with record(study().ask(), **options) as recorder:
        recorder.expect(length)
        seen = [step for step in steps if recorder.step(net, step=step).metrics is not None]
        assert seen == analysed
        with pytest.raises(ValueError, match="has at least 1 step, got 0"):
            recorder.expect(0)


def test_a_step_that_goes_back_is_refused_and_changes_nothing() -> None:
    with record(study().ask(), epochs=8) as recorder:
        recorder.step(model(), step=5)
        with pytest.raises(ValueError, match="step 3 comes after step 5: steps of a trial only"):
            recorder.step(model(), step=3)
        recorder.step(model(1))
        assert recorder._step == 6


def test_a_trial_that_has_ended_takes_no_step() -> None:
    with record(study().ask(), epochs=1) as recorder:
        recorder.step(model())
    with pytest.raises(RuntimeError, match="the trial has ended"):
        recorder.step(model())


def test_weights_that_change_after_the_last_step_are_the_ones_that_are_judged() -> None:
    net, other = model(0), model(1)
    with record(study().ask(), epochs=2) as recorder:
        recorder.step(net, train_loss=1.0)
        recorder.step(net, train_loss=0.5)
        net.load_state_dict(other.state_dict())
        recorder.go_back(1)
    objective = SpectralObjective("validation-free")
    assert recorder.value == objective(wwopt.analyze(other), train_loss=1.0).value


def test_the_best_network_is_judged_and_put_back_if_asked(tmp_path: Path) -> None:
    """Of steps 1 to 8, with losses that are lowest at 2 (too early to count) and then at 5."""
    uri, s, net = f"sqlite:///{tmp_path / 'mlflow.db'}", study(), model()
    losses = [1.0, 0.1, 0.8, 0.7, 0.3, 0.6, 0.5, 0.4]
    weights = []
    with record(s.ask(), epochs=8, every=1, judge="best", tracking=uri) as recorder:
        for number, loss in enumerate(losses):
            with torch.no_grad():
                net[0].weight.add_(0.01 * number)
            weights.append(net[0].weight.detach().clone())
            recorder.step(net, train_loss=loss)
    assert torch.equal(net[0].weight, weights[4])
    assert (
        recorder.value
        == s.trials[0].intermediate_values[5]
        == min(s.trials[0].intermediate_values.values())
    )
    assert s.trials[0].user_attrs["judged_step"] == 5
    assert s.trials[0].user_attrs["metrics"]["train_loss"] == 0.3
    (found,) = find_runs(uri, run_id=s.trials[0].user_attrs["mlflow_run_id"])
    assert found.value == pytest.approx(recorder.value)
    with (
        pytest.raises(ValueError, match="judge must be 'last' or 'best'"),
        record(
            s.ask(),
            judge="first",  # type: ignore[arg-type]
        ),
    ):
        pytest.fail("the block must not start")


def test_the_value_is_the_objective_of_the_last_model() -> None:
    with record(study().ask(), epochs=4) as recorder:
        for seed in range(4):
            recorder.step(model(seed))
        with pytest.raises(RuntimeError, match="known after the `with` block"):
            _ = recorder.value
    expected = SpectralObjective()(wwopt.analyze(model(3))).value
    assert recorder.value == pytest.approx(expected, rel=1e-12)


def test_a_loop_that_ends_early_is_judged_by_its_last_model() -> None:
    with record(study().ask(), epochs=10) as recorder:
        for seed in range(3):
            recorder.step(model(seed))
    assert recorder.value == pytest.approx(SpectralObjective()(wwopt.analyze(model(2))).value)


def test_a_loss_that_is_not_finite_prunes_by_name_and_keeps_no_better_value() -> None:
    def objective(trial: optuna.Trial) -> float:
        with record(trial, epochs=4, every=1) as recorder:
            for loss in (1.0, 0.5, math.nan, 0.1):
                recorder.step(model(), train_loss=loss)
        return recorder.value

    s = study()
    s.optimize(objective, n_trials=1)
    trial = s.trials[0]
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert 2 in trial.intermediate_values and trial.intermediate_values[2] < PENALTY
    assert trial.value == PENALTY
    assert trial.user_attrs["status"] == "training loss is nan"
    assert trial.user_attrs["ending"] == "refused"


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        (rank_one, "broken: 0 collapsed"),
        (lambda: model(scale=math.nan), "broken: 0 not finite"),
        (lambda: model(scale=0.0), "broken: 0 zero"),
    ],
)
@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_broken_layer_prunes_by_name_whenever_it_is_seen(broken, status: str, at: int) -> None:
    def objective(trial: optuna.Trial) -> float:
        with record(trial, epochs=4, every=1) as recorder:
            for epoch in range(1, 5):
                recorder.step(broken() if epoch == at else model())
        return recorder.value

    s = study()
    s.optimize(objective, n_trials=1)
    assert s.trials[0].state == optuna.trial.TrialState.PRUNED
    assert s.trials[0].value == PENALTY
    assert s.trials[0].user_attrs["status"] == status
    assert s.trials[0].user_attrs["ending"] == "refused"


def test_a_network_broken_only_after_the_last_analysis_is_not_rewarded() -> None:
    def objective(trial: optuna.Trial) -> float:
        net = model()
        with record(trial, epochs=10) as recorder:
            for _ in range(6):  # stops early; analysed and reported at 5
                recorder.step(net)
            recorder.step(rank_one())
        return recorder.value

    s = study()
    s.optimize(objective, n_trials=1)
    assert s.trials[0].value == PENALTY


def test_the_pruner_is_asked_from_half_way_on_but_not_at_the_end() -> None:
    asked: list[int] = []

    class Watch(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            assert trial.last_step is not None
            asked.append(trial.last_step)
            return False

    with record(study(Watch()).ask(), epochs=8) as recorder:
        for _ in range(8):
            recorder.step(model())
    assert asked == [4, 6]


def test_a_study_of_two_objectives_can_neither_report_nor_break() -> None:
    s = optuna.create_study(directions=["minimize", "minimize"])

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        with record(trial, epochs=2) as recorder:
            recorder.step(model())
            recorder.step(rank_one() if trial.number else model())
        return recorder.value, 1.0

    s.optimize(objective, n_trials=2)
    assert [t.state.name for t in s.trials] == ["COMPLETE", "PRUNED"]


def test_step_0_shows_the_start_and_is_neither_reported_nor_refused() -> None:
    s = study()
    with record(s.ask(), epochs=2, every=1) as recorder:
        assert recorder.step(model(scale=0.0), step=0, train_loss=2.0).value == PENALTY
        recorder.step(model(), train_loss=1.0)
        recorder.step(model(), train_loss=1.95)
    assert sorted(s.trials[0].intermediate_values) == [1, 2]
    constraints = s.trials[0].constraints
    assert constraints["guards/train_loss"] == pytest.approx(1.95 / 2.0 - 0.95)

    s = study()
    with record(s.ask(), epochs=1) as recorder:
        recorder.step(model(), step=0)
        recorder.step(model(scale=100.0))
    grown = s.trials[0].constraints
    assert grown["guards/lambda_max"] == pytest.approx(math.log(100.0**2 / 2000.0))
    assert grown["guards/train_loss"] == 0.0  # no loss was given


def test_a_trial_that_was_pruned_stays_pruned_though_a_framework_swallows_it(
    tmp_path: Path,
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def objective(trial: optuna.Trial) -> float:
        with record(trial, epochs=4, tracking=uri) as recorder:
            for loss in (1.0, math.nan, 0.5, 0.4):
                with contextlib.suppress(optuna.TrialPruned):
                    recorder.step(model(), train_loss=loss)
        return recorder.value

    s = study()
    s.optimize(objective, n_trials=1)
    assert s.trials[0].state == optuna.trial.TrialState.PRUNED
    assert s.trials[0].value == PENALTY
    (found,) = find_runs(uri, run_id=s.trials[0].user_attrs["mlflow_run_id"])
    assert found.state == "PRUNED" and found.status == "training loss is nan"


def test_a_number_of_a_step_that_goes_back_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="step 2 comes after step 3"),
        record(study().ask(), epochs=4) as recorder,
    ):
        recorder.step(model(), step=3)
        recorder.step(model(), step=3)  # again is no way back
        recorder.step(model(), step=2)


def test_metrics_stand_for_a_model_that_is_elsewhere() -> None:
    with record(study().ask(), epochs=2) as shown:
        shown.step(model())
        shown.step(model(1))
    with record(study().ask(), epochs=2) as told:
        told.step(wwopt.analyze(model()))
        told.step(wwopt.analyze(model(1)))
    assert told.value == shown.value and told.size == 0 < shown.size
