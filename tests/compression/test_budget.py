import itertools
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import wwopt
from wwopt.cli import main
from wwopt.compression import LayerPlan, apply_plans, list_layers
from wwopt.compression.budget import (
    Choice,
    MeasuredNetwork,
    choose_plans,
    make_menu,
    measure_network,
    plan_budget,
)
from wwopt.compression.errors import CompressionError
from wwopt.compression.text import format_compression


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(60, 80), nn.ReLU(), nn.Linear(80, 64), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def measured(model: nn.Module) -> MeasuredNetwork:
    return measure_network(list_layers(model))


@pytest.mark.parametrize("share", [1 / 5, 1 / 8, 1 / 9, 0.5, 0.99])
def test_the_file_as_written_is_never_above_the_budget(
    model: nn.Module, measured: MeasuredNetwork, tmp_path: Path, share: float
) -> None:
    found = choose_plans(measured, share)
    compressed = apply_plans(model, found.plans)
    assert compressed.write(tmp_path / "x.safetensors") == compressed.bytes <= found.bytes
    assert found.bytes <= found.budget == int(share * measured.now)
    # No more is held back for the header than the digits of its offsets and the padding.
    assert found.bytes - compressed.bytes < 24 * (len(found.plans) + 2)


def test_what_is_measured_is_what_is_written(model: nn.Module, measured: MeasuredNetwork) -> None:
    for choices in zip(*(options[:3] for options in measured.choices.values()), strict=True):
        plans = dict(zip(measured.choices, (c.plan for c in choices), strict=True))
        counted = measured.fixed + sum(choice.bytes for choice in choices)
        assert 0 <= counted - apply_plans(model, plans).bytes < 24 * (len(plans) + 2)


def test_bytes_are_held_back_for_the_scales_of_weights_that_change(model: nn.Module) -> None:
    found = plan_budget(model, 1 / 8, trained_on=True)
    plain = apply_plans(model, found.plans)
    for factor in (2.0**-40, 2.0**20):
        others = {name: factor * value for name, value in model.state_dict().items()}
        changed = apply_plans(others, found.plans)
        assert plain.bytes < changed.bytes <= found.bytes <= found.budget


def test_more_bytes_never_damage_more(measured: MeasuredNetwork) -> None:
    shares = torch.linspace(0.105, 1.2, 40).tolist()
    damages = [choose_plans(measured, share * measured.now).damage for share in shares]
    assert damages == sorted(damages, reverse=True) and damages[-1] == 0.0 < damages[0]
    for options in measured.choices.values():
        assert [c.damage for c in options] == sorted((c.damage for c in options), reverse=True)


def make_measured(seed: int) -> MeasuredNetwork:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> tuple[Choice, ...]:
        sizes = torch.randint(10, 200, (5,), generator=generator).sort().values.tolist()
        damages = torch.rand(5, generator=generator).sort(descending=True).values.tolist()
        return tuple(Choice(LayerPlan(), b, d, d) for b, d in zip(sizes, damages, strict=True))

    return MeasuredNetwork({f"layer{i}": draw() for i in range(4)}, 50, 1000)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_choice_is_better(seed: int) -> None:
    measured = make_measured(seed)
    every = list(itertools.product(*measured.choices.values()))
    least = min(50 + sum(c.bytes for c in some) for some in every)
    for budget in range(least, 850, 60):
        found = choose_plans(measured, budget)
        best = min(
            sum(c.damage for c in some)
            for some in every
            if 50 + sum(c.bytes for c in some) <= budget
        )
        assert found.damage == pytest.approx(best, rel=1e-9)
        assert found.bytes <= budget


def test_an_impossible_budget_says_how_far_it_can_go() -> None:
    measured = make_measured(0)
    least = {name: options[0].bytes for name, options in measured.choices.items()}
    total, largest = 50 + sum(least.values()), max(least, key=lambda name: least[name])
    told = rf"the least is {total} bytes.*layer '{largest}' takes {least[largest]} of them"
    with pytest.raises(CompressionError, match=told):
        choose_plans(measured, total - 1)
    assert choose_plans(measured, total).bytes == total


def test_what_is_no_layer_can_stop_a_budget_too() -> None:
    model = nn.Sequential(nn.Linear(12, 4), nn.BatchNorm1d(4000))
    with pytest.raises(CompressionError, match="biases, norms, the header"):
        plan_budget(model, 0.1)


def test_no_layer_goes_beyond_the_worst_error(measured: MeasuredNetwork) -> None:
    loose = choose_plans(measured, 0.2)
    worst = 0.99 * max(c.error for c in loose.choices.values())
    strict = choose_plans(measured, 0.25, worst=worst)
    assert max(c.error for c in strict.choices.values()) <= worst
    with pytest.raises(CompressionError, match=r"with no layer's error above 0\.01"):
        choose_plans(measured, 0.2, worst=0.01)


@pytest.mark.parametrize("budget", [0.0, -5.0, float("nan")])
def test_a_budget_is_a_positive_number(measured: MeasuredNetwork, budget: float) -> None:
    with pytest.raises(CompressionError, match="a number of bytes or a share"):
        choose_plans(measured, budget)


def test_the_menu_fits_the_shape() -> None:
    menu = make_menu((1, 40, 1000))
    assert {plan.rank for plan in menu} == {None, 2, 5, 10, 20}
    assert len(set(menu)) == len(menu) and menu[0].changes_nothing
    # A mask that makes a layer larger is no choice.
    assert all(plan.bits and plan.sparsity * plan.bits > 1.0 for plan in menu if plan.sparsity)
    assert {plan.rank for plan in make_menu((1, 2, 1000))} == {None}


def test_layers_to_keep_stay_as_they_are(model: nn.Module) -> None:
    found = plan_budget(model, 1 / 2, keep=["3"])
    assert found.plans["3"].changes_nothing and found.plans["0"].bits
    with pytest.raises(CompressionError, match="no layer '9'"):
        plan_budget(model, 1 / 2, keep=["9"])


def test_compress_takes_a_budget(model: nn.Module) -> None:
    found = wwopt.compress(model, budget=1 / 7, limits=False)
    assert found.bytes <= found.bytes_before / 7
    plan = plan_budget(model, 1 / 7)
    assert found.network.plans == plan.plans
    # Errors judge, not the gate, which calls three bits broken.
    assert found.broken.keys() == plan.broken.keys() == set()
    assert any(check.findings for layer in found.layers for check in layer.checks)
    tight = wwopt.compress(model, budget=1 / 10)
    assert tight.broken == {
        n: f"error {e:.2f}" for n, e in plan_budget(model, 1 / 10).broken.items()
    }
    assert tight.broken and "often cost accuracy" in format_compression(tight, width=160)
    assert "No layer's error is above 0.5" in format_compression(found, width=160)
    for options in ({"bits": 4}, {"sparsity": 0.5}, {"rank": 3}, {"plans": {}}, {"clip": True}):
        with pytest.raises(CompressionError, match="give it alone"):
            wwopt.compress(model, budget=1 / 7, **options)


def test_compensation_is_an_option_of_its_own(model: nn.Module) -> None:
    found = wwopt.compress(model, bits=4, compensate=True, limits=False)
    plain = wwopt.compress(model, bits=4, limits=False)
    assert found.bytes == plain.bytes
    assert not torch.equal(found.weights["0.weight"], plain.weights["0.weight"])


def test_the_command(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(model.state_dict(), "m.pt")

    def run(*arguments: str) -> tuple[int, str]:
        options = ["compress", "m.pt", "-o", "c.safetensors", "--no-limits", "--shuffles", "0"]
        result = CliRunner().invoke(main, [*options, *arguments])
        return result.exit_code, result.output

    now = sum(tensor.nbytes for tensor in model.state_dict().values())
    for budget, most in (("1/7", now // 7), ("8,000", 8000), ("0.15", int(0.15 * now))):
        status, said = run("--budget", budget)
        assert status in (0, 1) and "c.safetensors" in said
        assert 0.9 * most < Path("c.safetensors").stat().st_size <= most
    for arguments, message in (
        (["--budget", "1/0"], "no budget"),
        (["--budget", "much"], "no budget"),
        (["--budget", "1/7", "--bits", "4"], "give it alone"),
        (["--budget", "1/90"], "cannot be met: the least is"),
    ):
        status, said = run(*arguments)
        assert status == 2 and message in said
