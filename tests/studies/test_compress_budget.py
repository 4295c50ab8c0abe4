"""The machinery of `compress_budget.py`: rules that meet a budget, and tables of what they lost."""

import pytest
import torch
from torch import nn

from compress_budget import list_networks
from harness.compression.judging import Loss, compare
from harness.compression.networks import KINDS
from harness.compression.rules import RULES, Rules
from harness.compression.tables import count_wins, tabulate
from wwopt.compression import apply_plans, list_layers


@pytest.fixture(scope="module")
def rules() -> Rules:
    torch.manual_seed(0)
    return Rules(
        list_layers(nn.Sequential(nn.Linear(80, 90), nn.Linear(90, 70), nn.Linear(70, 10)))
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("share", [1 / 6, 1 / 8])
def test_every_rule_uses_the_budget_and_no_more(rules: Rules, rule: str, share: float) -> None:
    budget = int(share * rules.measured.now)
    plans = rules.choose(rule, budget, compensate=True)
    assert 0.9 * budget < apply_plans(rules.network, plans).bytes <= budget
    assert all(plan.compensate for plan in plans.values() if plan.bits)
    same = len(set(plans.values())) == 1
    assert same == (rule == "uniform")


def test_what_was_lost() -> None:
    log_p = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).log_softmax(1)
    data = torch.zeros(3), torch.tensor([0, 1, 1])
    assert compare(log_p, log_p, data)[:4] == (0.0, 0.0, 0.0, 0.0)
    divergence, loss, refitted, error, before = compare(log_p, log_p.flip(1), data)
    assert divergence > 0.0 and error == pytest.approx(1 / 3) and before > 0.0
    doubled = (3.0 * log_p).log_softmax(1)  # another temperature, the same answers
    divergence, loss, refitted, error, _ = compare(log_p, doubled, data)
    assert loss != 0.0 and error == 0.0 and refitted == pytest.approx(0.0, abs=1e-5)


def test_tables_pair_networks() -> None:
    losses = [
        Loss("k", seed, "an eighth", rule, "compensated", 10, 0.1, d, d, d, d, 1.0)
        for seed in range(4)
        for rule, d in (("uniform", 0.2 + 0.1 * seed), ("wwopt", 0.05 + 0.025 * seed))
    ]
    # A network on which a rule is missing is left out.
    losses.append(
        Loss("k", 9, "an eighth", "wwopt", "compensated", 10, 0.1, 1.0, 1.0, 1.0, 1.0, 1.0)
    )
    table = tabulate(losses, "an eighth", ("uniform", "compensated")).set_index("rule")
    assert set(table["networks"]) == {4}
    assert table.loc["wwopt", "of baseline's"] == "0.25 [0.25, 0.25]"
    assert table.loc["wwopt", "divergence, of baseline's"] == "0.25 [0.25, 0.25]"
    wins = count_wins(losses, "an eighth", ("wwopt", "compensated"), ("uniform", "compensated"))
    assert wins == "4 of 4"


def test_most_networks_were_not_looked_at() -> None:
    made, judging = list_networks()
    assert len(judging) == 25 and len(made) == 10 and not set(made) & set(judging)
    assert not {(kind, seed) for kind, seed in judging if seed < KINDS[kind].designed_on}
