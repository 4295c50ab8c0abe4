"""Whether labels look noisy, and what is not judged."""

import math

import pytest

from wwopt.recommendation.label_noise import judge_labels


def test_a_network_that_cannot_fit_its_labels_but_is_right_has_noisy_ones() -> None:
    """With a share q of labels wrong at random, the best loss is above -log(1 - q)."""
    noisy = judge_labels(-math.log(1.0 - 0.3) + 0.3, 0.05)
    assert noisy is not None and "labels may be noisy" in noisy.words
    clean = judge_labels(0.02, 0.05)
    assert clean is not None and "labels look clean" in clean.words
    assert 0.5 < noisy.confidence < 1.0 and 0.5 < clean.confidence < 1.0


def test_the_worse_the_network_is_the_more_loss_is_expected() -> None:
    judged = [judge_labels(0.5, error) for error in (0.02, 0.2, 0.4)]
    assert all(finding is not None for finding in judged)
    said = ["noisy" in finding.words for finding in judged if finding is not None]
    assert said == sorted(said, reverse=True) and said[0] and not said[-1]


@pytest.mark.parametrize(
    ("loss", "error"), [(math.nan, 0.1), (math.inf, 0.1), (0.5, 0.5), (0.5, 0.9), (0.5, -0.1)]
)
def test_labels_are_not_judged_from_what_learned_nothing(loss: float, error: float) -> None:
    assert judge_labels(loss, error) is None
