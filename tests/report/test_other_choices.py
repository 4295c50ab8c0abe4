"""What other scores would have chosen, by hand."""

from dataclasses import replace

import pytest
from fixtures.by_hand.trials import bare_trial, study

from wwopt.report.other_choices import choose_by_scores


def test_how_other_scores_would_have_chosen_by_hand() -> None:
    trials = [
        bare_trial(
            number,
            float(number),
            metrics={
                "layer_alpha/x": alphas[0],
                "layer_alpha/y": alphas[1],
                "alpha/mean": sum(alphas) / 2.0,
                "train/loss": loss,
                "scores/weights-only": -loss,
                "scores/validation-free": loss,
                "metrics/accuracy": accuracy,
                "metrics/mystery": 1.0,
            },
        )
        for number, (alphas, loss, accuracy) in enumerate(
            [((2.1, 1.9), 2.0, 0.8), ((1.0, 1.0), 1.0, 0.5), ((3.0, 3.0), 3.0, 0.9)]
        )
    ]
    found = {c.score: c for c in choose_by_scores(study(*trials))}
    assert {score: c.trial.number for score, c in found.items()} == {
        "wwopt's objective": 0,
        "training loss": 1,
        "weights-only": 2,
        "validation-free": 1,
        "mean alpha": 1,
        "mean |alpha - 2|": 0,
        "highest accuracy": 2,
    }
    guided = replace(study(*trials), tags={"wwopt.guide": "validation-free"})  # the objective's own
    assert "validation-free" not in {c.score for c in choose_by_scores(guided)}
    assert [c.score for c in found.values() if not c.seen] == ["highest accuracy"]
    assert found["highest accuracy"].taus == {"metrics/accuracy": 1.0}
    assert found["mean alpha"].taus["metrics/accuracy"] == pytest.approx(-1.0)
