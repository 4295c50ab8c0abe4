"""What mattered: planted effects are found, and no effect is called none."""

import math

import numpy as np
import pytest

from wwopt.report.importance import explain_importance
from wwopt.report.rank_correlation import kendall
from wwopt.tracking.tracked_studies import TrackedStudy
from wwopt.tracking.tracked_trials import TrackedTrial

NAMES = ("lr.first", "lr.last", "momentum.first", "dropout.first")


def planted(trials: int, *, seed: int = 0, effect: float = 1.0) -> TrackedStudy:
    """The objective falls with log lr.first, the second layer's alpha with momentum.first."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(trials):
        lr, other = 10.0 ** rng.uniform(-3.0, 0.0, 2)
        momentum, dropout = rng.uniform(0.0, 0.9, 2)
        noise = rng.normal(scale=0.2, size=3)
        metrics = {
            "objective/value": -effect * math.log10(lr) + noise[0],
            "layer_alpha/fc1": 3.0 + noise[1],
            "layer_alpha/fc2": 3.0 - effect * momentum + 0.3 * noise[2],
        }
        values = zip(NAMES, (lr, other, momentum, dropout), strict=True)
        params = {f"tuned/{name}": f"{value:.6g}" for name, value in values}
        params |= {"tuned/kind": "ab"[number % 2], "tuned/same": "1"}
        made.append(TrackedTrial("", f"r{number}", number, "COMPLETE", "ok", "", params, metrics))
    return TrackedStudy("", "1", "p", "planted", {}, {}, {}, tuple(made))


def test_a_planted_effect_is_found_with_its_sign() -> None:
    found = explain_importance(planted(60))
    assert next(iter(found.shares)) == "lr.first"
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert set(found.shares) == {*NAMES, "kind"}  # what never varies has no importance
    first = found.objective[0]
    assert (first.hyperparameter, first.beyond_chance) == ("lr.first", True)
    assert first.low < first.tau < first.high < 0.0
    strongest = found.alphas[0]
    assert (strongest.hyperparameter, strongest.target) == ("momentum.first", "fc2")
    assert strongest.tau < 0.0 and strongest.beyond_chance
    assert found.pairs == 8
    assert found.warnings == ("no rank correlation for what is no number: kind",)


def test_what_has_no_effect_is_not_called_one() -> None:
    named = 0
    for seed in range(20):
        found = explain_importance(planted(25, seed=seed, effect=0.0), resamples=2)
        named += any(c.beyond_chance for c in (*found.objective, *found.alphas))
    assert named <= 5  # 2 · 5 % of 20, and room for luck


def test_missing_values_are_left_out() -> None:
    whole = planted(30)
    for trial in whole.trials[::3]:
        trial.params.pop("tuned/lr.first")  # type: ignore[attr-defined]
    found = explain_importance(whole)
    first = next(c for c in found.objective if c.hyperparameter == "lr.first")
    kept = [t for t in whole.trials if "tuned/lr.first" in t.params]
    expected = kendall(
        np.array([float(t.params["tuned/lr.first"]) for t in kept]),
        np.array([t.value for t in kept]),
    )
    assert first.tau == pytest.approx(expected)


@pytest.mark.parametrize(
    ("trials", "words"),
    [(0, "0 complete trials"), (4, "4 complete trials"), (12, "12 complete trials are few for 5")],
)
def test_too_few_trials_are_said(trials: int, words: str) -> None:
    found = explain_importance(planted(trials))
    assert any(warning.startswith(words) for warning in found.warnings)
    assert bool(found.shares) == (trials >= 5)


def test_hyperparameters_that_never_differ_are_said() -> None:
    study = planted(8)
    for trial in study.trials:
        trial.params.clear()  # type: ignore[attr-defined]
    assert explain_importance(study).warnings == (
        "no hyperparameter differs among the complete trials",
    )


def test_the_same_seed_gives_the_same_intervals() -> None:
    study = planted(20)
    assert explain_importance(study, seed=3) == explain_importance(study, seed=3)
    assert explain_importance(study, seed=3) != explain_importance(study, seed=4)
