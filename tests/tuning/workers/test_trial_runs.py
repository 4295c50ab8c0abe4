"""Each trial is run once, from a model of its own, and ends alone, however it ends."""

import dataclasses
from pathlib import Path

import optuna
import pytest
import torch
from fixtures.studies.quick_studies import write_tiny_study
from optuna.trial import TrialState
from torch import nn

import wwopt
from wwopt.study.references import load_study
from wwopt.study.spec import derive_seed
from wwopt.study.tries import LostProcess
from wwopt.tuning.claims.leases import Worker
from wwopt.tuning.claims.places import claim, queue_place
from wwopt.tuning.workers.trial_runs import describe_finished, is_lost, run_trial


def run_next(spec: wwopt.StudySpec, study: optuna.Study) -> optuna.trial.FrozenTrial:
    if not study.trials:
        queue_place(study, 0)
    worker = Worker("me")
    claimed = claim(study, worker, target=99)
    assert claimed is not None
    run_trial(spec, study, claimed, worker=worker, tracking=None, seed=0)
    return study.trials[claimed.number]


def test_a_space_that_is_a_function_makes_one_model_a_trial(tmp_path: Path) -> None:
    made: list[wwopt.Conditions] = []
    plain = load_study(write_tiny_study(tmp_path))

    def make_space(conditions: wwopt.Conditions) -> wwopt.LayerSpace:
        made.append(conditions)
        model = nn.Sequential(nn.Linear(64, 80), nn.ReLU(), nn.Dropout(), nn.Linear(80, 10))
        return wwopt.LayerSpace.from_model(
            model, lr=(0.01, 1.0), dropout=(0.0, 0.5), momentum=(0.0, 0.9)
        )

    spec = dataclasses.replace(plain, space=make_space)
    study = optuna.create_study()
    before = torch.random.get_rng_state()
    for number in range(1, 4):
        assert run_next(spec, study).state == TrialState.COMPLETE
        assert len(made) == number
    assert torch.equal(torch.random.get_rng_state(), before)
    made.clear()
    plain_study = optuna.create_study()
    plain_study.optimize(spec.optuna_objective(), n_trials=2)
    assert [conditions.seed for conditions in made] == [derive_seed(0, 0), derive_seed(0, 1)]


def test_a_sampled_size_makes_its_own_model_besides(tmp_path: Path) -> None:
    widths: list[float] = []
    plain = load_study(write_tiny_study(tmp_path))

    def make_space(conditions: wwopt.Conditions) -> wwopt.LayerSpace:
        widths.append(conditions.width)
        space = plain.space
        assert isinstance(space, wwopt.LayerSpace)
        return dataclasses.replace(space, widths=(1.0, 2.0))

    run_next(dataclasses.replace(plain, space=make_space), optuna.create_study())
    assert widths == [1.0, 1.0]  # to know the sizes that there are, then at the first of them


def test_a_value_that_is_no_number_fails_the_trial_and_says_so(tmp_path: Path) -> None:
    plain = load_study(write_tiny_study(tmp_path))

    class Nowhere(wwopt.StudySpec):
        def optuna_objective(self, **_: object):  # type: ignore[no-untyped-def, override]
            return lambda trial: float("nan")

    spec = Nowhere(**{f.name: getattr(plain, f.name) for f in dataclasses.fields(plain) if f.init})
    told = describe_finished(run_next(spec, optuna.create_study()))
    assert (told.state, told.error) == ("FAIL", "the objective is not a number: [nan]")


@pytest.mark.parametrize("signalled", [False, True])
def test_a_trial_that_lost_one_of_its_processes_is_tried_again(
    tmp_path: Path, signalled: bool
) -> None:
    """Also where the signal of whoever watches the processes comes while it is left."""

    def train(hp: object, conditions: object, recorder: object) -> None:
        try:
            raise LostProcess
        finally:
            if signalled:
                raise KeyboardInterrupt

    spec = dataclasses.replace(load_study(write_tiny_study(tmp_path)), train=train)
    study = optuna.create_study()
    with pytest.raises(KeyboardInterrupt):
        run_next(spec, study)
    lost = [t for t in study.trials if t.user_attrs.get("wwopt.interrupted") == "lost"]
    assert [t.number for t in lost] == [0]
    assert [t.state.name for t in study.trials if t.user_attrs["wwopt.place"] == 0] == [
        "FAIL",
        "WAITING",
    ]
    assert not is_lost(ValueError()) and not is_lost(None)
