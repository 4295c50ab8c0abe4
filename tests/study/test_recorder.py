"""The recorder: when it acts, what it refuses, what it leaves in Optuna and MLflow."""

import contextlib
import math
from pathlib import Path

import optuna
import pytest
import torch
from matplotlib import pyplot as plt
from mlflow import MlflowClient
from torch import nn

import wwopt
from wwopt.metrics.objective import SpectralObjective
from wwopt.study.constraints import find_best, is_feasible
from wwopt.study.recording import record
from wwopt.tracking import STUDY_TAG, TRIAL_TAG
from wwopt.tracking.artifacts import read_layer_table
from wwopt.tracking.tracked_studies import find_runs
from wwopt.tuning.trials_view import ViewingSampler

PENALTY = SpectralObjective().penalty


def model(seed: int = 0, scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 80), nn.ReLU(), nn.Linear(80, 10))
    with torch.no_grad():
        net[0].weight.mul_(scale)
    return net


def rank_one() -> nn.Sequential:
    net = model()
    with torch.no_grad():
        net[0].weight.copy_(torch.outer(torch.rand(80), torch.rand(64)))
    return net


def study(pruner: optuna.pruners.BasePruner | None = None) -> optuna.Study:
    return optuna.create_study(pruner=pruner or optuna.pruners.NopPruner())


def runs_of(uri: str, name: str) -> list:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return client.search_runs([experiment.experiment_id])


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


def test_terms_alphas_and_layers_are_left_in_the_trial() -> None:
    s = study()
    with record(s.ask(), epochs=2) as recorder:
        recorder.step(model(), train_loss=1.0)
        recorder.step(model(), train_loss=0.5, held_out=0.9)
    attributes = s.trials[0].user_attrs
    assert attributes["status"] == "ok"
    assert sum(attributes["terms"].values()) == pytest.approx(recorder.value)
    assert attributes["alpha"]["0"] == pytest.approx(wwopt.analyze(model())["0"].alpha)
    assert attributes["layers"]["2"]["status"] == "too few eigenvalues"
    assert attributes["metrics"] == {"held_out": 0.9, "train_loss": 0.5}


def test_optunas_own_plots_work_on_what_is_left() -> None:
    s = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        scale = trial.suggest_float("scale", 0.5, 2.0)
        with record(trial, epochs=1) as recorder:
            recorder.step(model(trial.number, scale))
        return recorder.value

    s.optimize(objective, n_trials=3)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        axes = optuna.visualization.matplotlib.plot_slice(
            s, target=lambda t: t.user_attrs["alpha"]["0"], target_name="alpha of layer 0"
        )
    assert len(axes.collections[0].get_offsets()) == 3
    plt.close(axes.figure)  # Optuna leaves it open


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


def test_a_block_without_a_step_fails() -> None:
    with pytest.raises(ValueError, match="step\\(model\\) was never called"), record(study().ask()):
        pass


def test_a_model_whose_layers_are_all_small_fails_with_the_reason() -> None:
    small = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10))
    with (
        pytest.raises(ValueError, match="no countable layer"),
        record(study().ask(), epochs=1) as recorder,
    ):
        recorder.step(small)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"every": 0}])
def test_an_impossible_length_is_refused(options: dict[str, int]) -> None:
    with (
        pytest.raises(ValueError, match="must be at least 1, got 0"),
        record(study().ask(), **options),
    ):
        pass


def test_mlflow_holds_a_child_run_per_trial_with_its_state(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    s = optuna.create_study(
        study_name="states",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
    )

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("hyperparameters", {"lr/0": 0.1 * (trial.number + 1)})
        with record(trial, epochs=2, tracking=uri) as recorder:
            recorder.step(model(), train_loss=1.0)
            if trial.number == 2:
                raise RuntimeError("out of luck")
            recorder.step(rank_one() if trial.number == 1 else model(), train_loss=0.5)
        return recorder.value

    s.optimize(objective, n_trials=3, catch=(RuntimeError,))
    runs = runs_of(uri, "states")
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = {r.data.tags[TRIAL_TAG]: r for r in runs if TRIAL_TAG in r.data.tags}
    assert len(parents) == 1 and sorted(children) == ["0", "1", "2"]
    expected = {"0": ("FINISHED", "COMPLETE"), "1": ("KILLED", "PRUNED"), "2": ("FAILED", "FAIL")}
    for number, (status, state) in expected.items():
        run, trial = children[number], s.trials[int(number)]
        assert (run.info.status, run.data.tags["optuna.state"], trial.state.name) == (
            status,
            state,
            state,
        )
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert run.data.tags[STUDY_TAG] == s.user_attrs["wwopt.study"]
        assert trial.user_attrs["mlflow_run_id"] == run.info.run_id
        assert float(run.data.params["lr/0"]) == pytest.approx(0.1 * (int(number) + 1))
    assert children["2"].data.tags["wwopt.error"] == "RuntimeError: out of luck"
    assert children["1"].data.tags["wwopt.status"] == "broken: 0 collapsed"

    client = MlflowClient(uri)
    losses = client.get_metric_history(children["0"].info.run_id, "train/loss")
    assert [(m.step, m.value) for m in losses] == [(1, 1.0), (2, 0.5)]
    values = client.get_metric_history(children["0"].info.run_id, "objective/value")
    assert [m.step for m in values] == [1, 2]  # analysed at ½ and the end
    assert values[-1].value == pytest.approx(s.trials[0].value)
    names = {a.path for a in client.list_artifacts(children["0"].info.run_id)}
    assert "layers.json" in names
    assert {a.path for a in client.list_artifacts(children["2"].info.run_id)} >= {"error.txt"}


def test_an_unreachable_store_is_said_before_any_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    uri = f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}"
    with (
        pytest.raises(wwopt.TrackingError, match="cannot be used"),
        record(study().ask(), tracking=uri),
    ):
        pytest.fail("the block must not start")


GUARDS = ("train_loss", "lambda_max", "stable_rank", "mean_spike", "traps")


def train(trial: optuna.trial.BaseTrial, *losses: float, **options: object) -> float:
    with record(trial, epochs=len(losses), **options) as recorder:
        for loss in losses:
            recorder.step(model(), train_loss=loss)
    return recorder.value


def test_guards_become_constraints_of_the_trial(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    s = optuna.create_study(study_name="guarded")
    s.optimize(lambda trial: train(trial, 1.0, 0.5, tracking=uri), n_trials=1)
    constraints = s.trials[0].constraints
    assert list(constraints) == [f"guards/{name}" for name in GUARDS]
    assert constraints["guards/train_loss"] == pytest.approx(0.5 - 0.95)
    assert constraints["guards/lambda_max"] == 0.0  # unknown: step 0 was not shown
    assert all(value <= 0.0 for value in constraints.values())
    assert s.trials[0].user_attrs["constraints"] == {n: constraints[f"guards/{n}"] for n in GUARDS}
    (run,) = [r for r in runs_of(uri, "guarded") if TRIAL_TAG in r.data.tags]
    logged = {name: run.data.metrics[f"guards/{name}"] for name in GUARDS}
    assert logged == pytest.approx(s.trials[0].user_attrs["constraints"])


def test_optunas_best_trial_is_one_that_no_guard_refuses(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    s = optuna.create_study(study_name="refused")

    def objective(trial: optuna.Trial) -> float:
        losses = (1.0, 0.5) if trial.number == 1 else (1.0, 1.0)  # only one learns
        value = train(trial, *losses, tracking=uri)
        return value + trial.number

    s.optimize(objective, n_trials=3)
    assert min(s.trials, key=lambda t: t.value or math.inf).number == 0
    assert s.best_trial.number == 1
    (parent,) = [r for r in runs_of(uri, "refused") if "mlflow.parentRunId" not in r.data.tags]
    assert parent.data.tags["wwopt.best_trial"] == "1"


def test_step_0_shows_the_start_and_is_neither_reported_nor_refused() -> None:
    s = study()
    with record(s.ask(), epochs=2, every=1) as recorder:
        assert recorder.step(model(scale=0.0), step=0, train_loss=2.0).value == PENALTY
        recorder.step(model(), train_loss=1.0)
        recorder.step(model(), train_loss=1.95)
    assert sorted(s.trials[0].intermediate_values) == [1, 2]
    constraints = s.trials[0].constraints
    assert constraints["guards/train_loss"] == pytest.approx(1.95 / 2.0 - 0.95)

    with record(s.ask(), epochs=1) as recorder:
        recorder.step(model(), step=0)
        recorder.step(model(scale=100.0))
    grown = s.trials[1].constraints
    assert grown["guards/lambda_max"] == pytest.approx(math.log(100.0**2 / 2000.0))
    assert grown["guards/train_loss"] == 0.0  # no loss was given


def test_one_loss_alone_is_compared_with_nothing() -> None:
    s = study()
    train(s.ask(), 1.0)
    assert s.trials[0].constraints["guards/train_loss"] == 0.0


@pytest.mark.parametrize(
    ("losses", "pruner", "value"),
    [
        ((1.0, math.nan), None, 10.0),
        ((1.0, 0.7, 0.6, 0.5), optuna.pruners.ThresholdPruner(lower=100.0), 0.7 - 0.95),
    ],
)
def test_a_trial_that_does_not_end_carries_its_guards_too(
    losses: tuple[float, ...], pruner: optuna.pruners.BasePruner | None, value: float
) -> None:
    s = study(pruner)
    s.optimize(lambda trial: train(trial, *losses), n_trials=1)
    assert s.trials[0].state == optuna.trial.TrialState.PRUNED
    assert s.trials[0].constraints["guards/train_loss"] == pytest.approx(value)


@pytest.mark.parametrize("wrapped", [False, True])
def test_under_cma_es_there_are_no_constraints_that_it_would_warn_of(wrapped: bool) -> None:
    cma = optuna.samplers.CmaEsSampler(seed=0)
    s = optuna.create_study(sampler=ViewingSampler(cma) if wrapped else cma)
    s.optimize(lambda trial: train(trial, 1.0, 1.0), n_trials=1)  # a warning would be an error
    assert s.trials[0].constraints == {}
    assert s.trials[0].user_attrs["constraints"]["train_loss"] == pytest.approx(0.05)
    assert find_best(s.trials) is None  # all the same


def test_without_guards_there_are_no_constraints() -> None:
    s = study()
    train(s.ask(), 1.0, 2.0, guards=None)
    assert s.trials[0].constraints == {} and "constraints" not in s.trials[0].user_attrs


def test_a_retried_trial_has_its_own_constraints(tmp_path: Path) -> None:
    s = optuna.create_study(storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    dead = s.ask()
    train(dead, 1.0, 1.0)
    assert s.trials[0].constraints["guards/train_loss"] > 0.0
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback()
    retry(s, s.trials[0])  # as Optuna does when the heartbeat of a trial stops
    again = s.ask()
    assert again.constraints == s.trials[0].constraints  # copied from the dead one
    s.tell(again, train(again, 1.0, 0.5))
    assert s.trials[1].constraints["guards/train_loss"] == pytest.approx(0.5 - 0.95)
    assert is_feasible(s.trials[1])


def test_constraints_hold_in_a_study_of_two_objectives() -> None:
    s = optuna.create_study(directions=["minimize", "minimize"])

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        value = train(trial, 1.0, 0.5 if trial.number else 1.0)
        return value + trial.number, 1.0

    s.optimize(objective, n_trials=2)
    assert [t.number for t in s.best_trials] == [1]


def test_a_score_of_another_version_is_refused_before_it_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s = optuna.create_study(study_name="mine")
    train(s.ask(), 1.0)
    monkeypatch.setattr(SpectralObjective, "version", SpectralObjective.version + 1)
    expected = "study 'mine' holds values of another score: version .*; values of the two do not"
    with pytest.raises(ValueError, match=expected), record(s.ask(), epochs=1):
        pytest.fail("the block must not start")


def test_a_score_with_another_option_is_refused_but_not_beside_a_second_objective() -> None:
    other = SpectralObjective(penalty=20.0)
    s = study()
    train(s.ask(), 1.0)
    with pytest.raises(ValueError, match=r"penalty 10\.0, not 20\.0"):
        train(s.ask(), 1.0, objective=other)
    pareto = optuna.create_study(directions=["minimize", "minimize"])
    trial = pareto.ask()
    pareto.tell(trial, [train(trial, 1.0), train(trial, 1.0, objective=other)])


def test_the_end_of_a_trial_is_told_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    trial = study().ask()
    with pytest.raises(optuna.TrialPruned), record(trial, tracking=uri) as recorder:
        recorder.step(rank_one())  # of unknown length: judged only on leaving the block
    assert recorder.run_id is not None
    (found,) = find_runs(uri, run_id=recorder.run_id)
    table = read_layer_table(found)
    assert table is not None
    assert list(table["longname"]) == ["0", "2"]
    assert found.state == "PRUNED" and found.status == "broken: 0 collapsed"


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
