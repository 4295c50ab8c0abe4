"""Coarse to fine: the depth profile first, then one layer at a time around the best trial."""

import math
from collections import OrderedDict
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from torch import nn

import wwopt
from wwopt.tuning.samplers.refinement import find_start, make_refining_sampler, move_layer
from wwopt.tuning.samplers.sampling import make_sampler

NAMES = ("a", "b", "c", "d")


def space_of(coarse_trials: int | None = 4, **options: object) -> wwopt.LayerSpace:
    model = nn.Sequential(OrderedDict({name: nn.Linear(60, 60) for name in NAMES}))
    given = {"lr": (0.001, 1.0), "dropout": None, "momentum": (0.0, 0.9)} | options
    return wwopt.LayerSpace.from_model(
        model,
        tie="coarse-to-fine",
        coarse_trials=coarse_trials,
        **given,  # type: ignore[arg-type]
    )


def run(space: wwopt.LayerSpace, numbers: range, study: optuna.Study, seed: int = 0) -> None:
    for number in numbers:
        coarse = make_sampler("tpe", number)
        study.sampler = make_refining_sampler(space, coarse, seed=seed)
        trial = study.ask()
        rates = space.suggest(trial).lr.values()
        # Lowest at rates that no profile of three knots reaches.
        goal = (0.1, 0.01, 0.1, 0.01)
        study.tell(trial, sum(math.log10(r / g) ** 2 for r, g in zip(rates, goal, strict=True)))


def test_the_first_trials_sample_knots_and_the_later_ones_layers() -> None:
    space, study = space_of(), optuna.create_study()
    run(space, range(6), study)
    knots = {f"lr/depth={knot}" for knot in ("first", "middle", "last")}
    for trial in study.trials:
        rates = {name for name in trial.params if name.startswith("lr/")}
        assert rates == (knots if trial.number < 4 else {f"lr/{name}" for name in NAMES})


def test_each_later_trial_moves_one_layer_of_the_best_in_turn() -> None:
    space, study = space_of(), optuna.create_study()
    run(space, range(14), study)
    for trial in study.trials[4:]:
        best = min(study.trials[: trial.number], key=lambda t: t.value)
        before, now = (t.user_attrs["hyperparameters"] for t in (best, trial))
        moved = {key for key in now if now[key] != pytest.approx(before[key], rel=1e-12)}
        layer = NAMES[trial.number % 4]
        assert moved == {f"lr/{layer}", f"momentum/{layer}"}


def test_refining_finds_what_no_profile_reaches() -> None:
    space, study = space_of(coarse_trials=10), optuna.create_study()
    run(space, range(60), study)
    coarse = min(t.value for t in study.trials[:10])
    assert study.best_trial.number >= 10
    assert study.best_value < 0.5 * coarse


def test_an_interrupted_search_goes_on_as_it_would_have() -> None:
    space = space_of()
    whole, parts = optuna.create_study(), optuna.create_study()
    run(space, range(12), whole, seed=3)
    run(space, range(7), parts, seed=3)
    run(space, range(7, 12), parts, seed=3)
    assert [t.params for t in parts.trials] == [t.params for t in whole.trials]
    other = optuna.create_study()
    run(space, range(12), other, seed=4)
    assert other.trials[4].params != whole.trials[4].params


def test_moves_stay_in_range_and_have_the_documented_size() -> None:
    space = space_of()
    steps = []
    for rate in (0.001, 0.0316, 1.0):
        start = create_trial(
            value=0.0,
            user_attrs={
                "hyperparameters": {f"lr/{n}": rate for n in NAMES}
                | {f"momentum/{n}": 0.9 for n in NAMES}
            },
        )
        for number in range(4, 404, 4):  # all of the turns of layer "a"
            values = move_layer(space, start, number=number, seed=0)
            assert 0.001 <= values["lr/a"] <= 1.0 and 0.0 <= values["momentum/a"] <= 0.9
            steps.append(math.log10(values["lr/a"] / rate) if rate == 0.0316 else 0.0)
    spread = math.sqrt(sum(s * s for s in steps) / 100)
    assert spread == pytest.approx(0.1 * 3, rel=0.2)  # .1 of three decades


def test_the_start_is_the_best_feasible_trial_or_the_least_infeasible() -> None:
    study = optuna.create_study()

    def add(value: float, violation: float, state: TrialState = TrialState.COMPLETE) -> None:
        study.add_trial(
            create_trial(
                value=value,
                state=state,
                system_attrs={"constraints:x": violation},
                user_attrs={"hyperparameters": {}},
            )
        )

    assert find_start(study) is None
    add(1.0, 3.0)
    add(2.0, 1.0)
    assert find_start(study).number == 1  # type: ignore[union-attr]
    add(3.0, -1.0)
    add(0.0, -1.0, TrialState.PRUNED)
    assert find_start(study).number == 2  # type: ignore[union-attr]


def test_without_a_complete_trial_every_value_is_sampled() -> None:
    space = space_of(coarse_trials=1)
    study = optuna.create_study(sampler=make_refining_sampler(space, make_sampler("gp", 0)))
    study.add_trial(create_trial(state=TrialState.FAIL))
    assert set(space.suggest(study.ask()).lr) == set(NAMES)


def test_the_default_budget_is_five_trials_a_knot() -> None:
    assert space_of(None).num_coarse_trials == 5 * 6
    assert space_of(None, momentum=None).num_coarse_trials == 5 * 3
    assert space_of(7).describe()["coarse_trials"] == 7


STUDY = """
import torch
from torch import nn
import wwopt

def make():
    return nn.Sequential(*[nn.Linear(60, 60) for _ in range(4)])

def train(hp, conditions, recorder):
    model = make()
    optimizer = hp.optimizer(model, torch.optim.SGD)
    for _ in range(conditions.epochs):
        x = torch.randn(16, 60)
        loss = (model(x) - x).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        recorder.step(model, train_loss=loss.item())

study = wwopt.StudySpec(
    "fine", train, wwopt.LayerSpace.from_model(make(), lr=(.001, .1), dropout=None, momentum=None,
    tie="coarse-to-fine", coarse_trials=3), conditions=wwopt.Conditions(seed=0, epochs=1),
)
"""


def test_trials_that_run_at_once_move_different_layers() -> None:
    space, study = space_of(), optuna.create_study()
    run(space, range(4), study)
    study.sampler = make_refining_sampler(space, make_sampler("tpe", 0))
    running = [space.suggest(study.ask()) for _ in range(2)]
    best = study.best_trial.user_attrs["hyperparameters"]
    moved = [{n for n in NAMES if hp.lr[n] != best[f"lr/{n}"]} for hp in running]
    assert moved == [{"a"}, {"b"}]


@pytest.mark.slow
def test_two_workers_refine_different_layers_and_a_resumed_study_knows_its_phase(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fine.py"
    path.write_text(STUDY)
    first = wwopt.tune(str(path), trials=2, out=tmp_path / "out", progress=False)
    assert all("lr/depth=last" in t.params for t in first.study.trials)
    result = wwopt.tune(str(path), trials=7, out=tmp_path / "out", jobs=2, progress=False)
    fine = [t for t in result.study.trials if t.number >= 3]
    assert all(set(t.params) == {f"lr/{i}" for i in range(4)} for t in fine)
    assert len({tuple(t.params.values()) for t in fine}) == 4
