"""The recorder: when it acts, what it refuses, what it leaves in Optuna and MLflow."""

import math
from pathlib import Path

import optuna
import pytest
import torch
from mlflow import MlflowClient
from torch import nn

import wwopt
from wwopt import SpectralObjective, record
from wwopt.tracking import STUDY_TAG, TRIAL_TAG

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
