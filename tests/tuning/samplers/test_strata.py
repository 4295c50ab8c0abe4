"""Studies that sample width and depth: in turn, each size by itself."""

from pathlib import Path

import optuna
import pytest
import torch
from fixtures.networks.sizes import make_space
from optuna.trial import TrialState

import wwopt
from wwopt.tuning.samplers.sampling import make_sampler
from wwopt.tuning.samplers.strata import (
    StratifiedPruner,
    best_by_size,
    describe_size,
    list_sizes,
    make_stratified_sampler,
)

CONDITIONS = wwopt.Conditions(seed=0, epochs=2)


def test_sizes_are_all_pairs_of_the_choices() -> None:
    space = make_space(CONDITIONS, widths=(1, 2), depths=(0.5, 1))
    sizes = list_sizes(space)
    assert [describe_size(size) for size in sizes] == [
        "width 1, depth 0.5",
        "width 1, depth 1",
        "width 2, depth 0.5",
        "width 2, depth 1",
    ]
    assert list_sizes(make_space(CONDITIONS)) == []


def test_trials_take_the_sizes_in_turn_and_each_is_searched_by_itself() -> None:
    """The optimum of width 1 is the worst place of width 2, and its values are all lower."""
    space = make_space(CONDITIONS, widths=(1.0, 2.0), tie="global")
    study = optuna.create_study()
    for number in range(44):
        study.sampler = make_stratified_sampler(make_sampler("gp", number), list_sizes(space))
        trial = study.ask()
        hp = space.suggest(trial)
        rate = next(iter(hp.lr.values()))
        study.tell(trial, -100.0 + 50 * rate if hp.width == 1.0 else -50 * rate)
    widths = [t.params["width"] for t in study.trials]
    assert widths == [1.0, 2.0] * 22
    late = [t.params for t in study.trials[24:]]
    rates = {w: [p["lr/all"] for p in late if p["width"] == w] for w in (1.0, 2.0)}
    assert sum(rate < 0.05 for rate in rates[1.0]) >= 7
    assert sum(rate > 0.5 for rate in rates[2.0]) >= 7


def test_the_pruner_compares_within_a_size() -> None:
    study = optuna.create_study(pruner=StratifiedPruner(optuna.pruners.MedianPruner(2, 0)))
    width = optuna.distributions.CategoricalDistribution((1.0, 2.0))
    for w, value in ((1.0, -5.0), (1.0, -5.0), (2.0, 5.0), (2.0, 5.0)):
        study.add_trial(
            optuna.trial.create_trial(
                params={"width": w},
                distributions={"width": width},
                value=value,
                intermediate_values={1: value},
            )
        )
    for w, pruned in ((1.0, True), (2.0, False)):
        study.enqueue_trial({"width": w})
        trial = study.ask()
        trial.suggest_categorical("width", (1.0, 2.0))
        trial.report(0.0, 1)
        assert bool(trial.should_prune()) is pruned


def test_there_is_a_best_trial_for_each_size() -> None:
    study = optuna.create_study()
    width = optuna.distributions.CategoricalDistribution((1.0, 2.0))
    for w, value, violation in ((2.0, 3.0, -1.0), (1.0, 1.0, 2.0), (1.0, 2.0, -1.0)):
        study.add_trial(
            optuna.trial.create_trial(
                params={"width": w},
                distributions={"width": width},
                value=value,
                system_attrs={"constraints:traps": violation},
            )
        )
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    best = best_by_size(study.trials)
    assert {describe_size(size): t.number for size, t in best.items()} == {
        "width 1": 2,  # trial 1 is lower, and infeasible
        "width 2": 0,
    }


STUDY = """
import torch
import wwopt
from fixtures.networks.sizes import make_model, make_space

seen = []

def train(hp, conditions, recorder):
    seen.append((conditions.width, conditions.depth, tuple(hp.lr)))
    model = hp.apply_dropout(make_model(conditions.width, conditions.depth))
    optimizer = hp.optimizer(model, torch.optim.SGD)
    for _ in range(conditions.epochs):
        loss = model(torch.randn(hp.batch_size or 8, 60)).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        recorder.step(model, train_loss=loss.item())

study = wwopt.StudySpec(
    "sizes", train, lambda c: make_space(c, widths=(1.0, 2.0), depths=(1.0, 2.0),
    batch_size=(4, 32)), conditions=wwopt.Conditions(seed=0, epochs=2, width=1.0),
    guards=None,
)
"""


def test_a_study_of_sizes_trains_each_and_names_no_best_across_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sizes.py"
    path.write_text(STUDY)
    result = wwopt.tune(str(path), trials=5, out=tmp_path / "out", progress=False)
    seen = result.spec.train.__globals__["seen"]  # type: ignore[attr-defined]
    assert [(w, d) for w, d, _ in seen] == [(1, 1), (1, 2), (2, 1), (2, 2), (1, 1)]
    assert [len(layers) for _, _, layers in seen] == [4, 6, 4, 6, 4]
    assert [t.user_attrs["hyperparameters"]["width"] for t in result.study.trials[:3]] == [1, 1, 2]
    assert result.best_trial is None
    assert len(result.best_by_size) == len(result.best_trials) == 4
    from wwopt.tuning.text import summarize

    text = summarize(result)
    assert "scores of different sizes do not compare" in text
    assert "lowest" not in text
    rows = [line.split()[:3] for line in text.splitlines() if line.strip()[:1].isdigit()]
    best = result.best_by_size
    assert rows == [
        [f"{w:g}", f"{d:g}", str(best[("width", w), ("depth", d)].number)]
        for w in (1.0, 2.0)
        for d in (1.0, 2.0)
    ]


def test_depths_need_a_space_that_follows_them() -> None:
    space = make_space(CONDITIONS, depths=(1, 2))
    spec = wwopt.StudySpec("fixed", print, space)
    with pytest.raises(wwopt.StudyError, match="make its space a function of the conditions"):
        spec.check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (1.0, 1.0)}, r"widths must be different positive factors, got \(1.0, 1.0\)"),
        ({"depths": (0.0,)}, "depths must be different positive factors"),
        ({"batch_size": (0, 4)}, r"batch_size must be \(low, high\) with 1 <= low <= high"),
        ({"widths": (1, 2), "tie": "coarse-to-fine"}, "tune the sizes with another tie first"),
        ({"coarse_trials": 5}, "coarse_trials belongs to tie='coarse-to-fine'"),
    ],
)
def test_says_what_is_wrong_with_sizes(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_space(CONDITIONS, **options)


def test_a_step_of_a_sampled_batch_size_sees_that_many_examples() -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    hp = make_space(CONDITIONS, batch_size=(4, 32)).suggest(trial)
    assert isinstance(hp.batch_size, int) and 4 <= hp.batch_size <= 32
    assert hp.to_dict()["batch_size"] == trial.params["batch_size"]
    assert torch.arange(64).split(hp.batch_size)[0].numel() == hp.batch_size
