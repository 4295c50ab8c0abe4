"""Comparisons in a terminal: what is counted, cut, unknown or beyond chance is said to be."""

import math

import pytest
from fixtures.by_hand.trials import study, trial

from wwopt.report.importance import Correlation, Importance
from wwopt.report.pairs import LayerPair, Pair
from wwopt.report.text import count_states, format_importance, format_leaderboard, format_pair


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([], "0 trials"),
        (["COMPLETE"], "1 trial (1 complete)"),
        (["FAIL", "COMPLETE", "PRUNED", "FAIL"], "4 trials (1 complete, 1 pruned, 2 failed)"),
    ],
)
def test_trials_are_counted_by_what_became_of_them(states: list[str], words: str) -> None:
    made = study(*(trial(n, state=state) for n, state in enumerate(states)))
    assert count_states(made) == words


def test_rows_that_are_not_shown_are_counted() -> None:
    made = study(*(trial(n, float(n)) for n in range(5)))
    text = format_leaderboard(made, top=2, width=80)
    assert "3 more; --top 0 shows all." in text
    assert [line.split()[0] for line in text.splitlines() if "COMPLETE" in line] == ["0", "1"]
    assert "more;" not in format_leaderboard(made, top=0, width=80)
    assert format_leaderboard(study(), top=0, width=80) == "Study made: 0 trials."


def test_the_order_is_said_with_the_table() -> None:
    made = study(trial(0, 1.0, metrics={"loss": 2.0}))
    assert format_leaderboard(made, top=0, width=80).endswith(
        "Lower objectives first, complete trials first."
    )
    by_loss = format_leaderboard(made, by="loss", top=0, width=80)
    assert by_loss.endswith("Lower loss first, complete trials first.")


def correlation(**given: object) -> Correlation:
    values = {"hyperparameter": "lr", "target": "objective", "tau": 0.5, "low": 0.25, "high": 0.75}
    return Correlation(**(values | {"beyond_chance": True} | given))  # type: ignore[arg-type]


def test_an_effect_beyond_chance_has_a_star_and_its_interval() -> None:
    text = format_importance(
        Importance(
            trials=12,
            shares={"lr": 0.9, "kind": 0.1},
            objective=(correlation(),),
            chance=0.4,
            alphas=(correlation(target="fc", tau=-0.3, low=math.nan, beyond_chance=False),),
            pairs=8,
            chance_pairs=0.6,
            warnings=("few trials",),
        ),
        width=80,
    )
    assert text.startswith("Warning: few trials.")
    rows = [line.split() for line in text.splitlines() if line.startswith(("lr ", "kind "))]
    assert rows == [
        ["lr", "0.90", "+0.50", "[+0.25,", "+0.75]", "*"],
        ["kind", "0.10", "–"],  # no number, no rank correlation
        ["lr", "→", "fc", "-0.30"],  # without an interval
    ]


def test_two_trials_stand_side_by_side_and_what_is_unknown_is_a_dash() -> None:
    layer = LayerPair(
        name="fc",
        alpha=(2.5, math.nan),
        sigma=(0.25, math.nan),
        D=(0.05, math.nan),
        traps=(0.0, math.nan),
        status=("ok", ""),
        settings={"lr": (0.1, 0.4)},
    )
    second = trial(12, state="FAIL", status="", tags={"wwopt.error": "no"})
    metrics = {"objective/value": (1.5, 1.0)}
    text = format_pair(Pair(trial(7), second, (layer,), metrics, {}), width=200)
    blocks = text.split("\n\n")
    assert blocks[0] == "trial 7 (complete) and trial 12 (fail)"
    assert blocks[1].splitlines()[-1].split() == ["objective/value", "1.5", "1", "-0.5"]
    row = ["fc", "0.1", "0.4", "2.50", "±", "0.25", "–", "–", "0.05", "–", "0", "–", "ok", "–"]
    assert blocks[2].splitlines()[-1].split() == row
    assert blocks[3] == "What changed most:\n  fc: lr 0.1 → 0.4 (× 4)"
