"""TempBalance and LLR: the Hill estimate by hand, the linear maps, rates that do not compound."""

import math
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import wwopt
from wwopt.metrics.analysis import metrics_from_spectra
from wwopt.study.convergence import find_group
from wwopt.study.space.layer_hyperparameters import LayerHyperparameters
from wwopt.study.temp_balance import compute_lr_factors, pl_alpha_hill, scale_learning_rates


def test_four_eigenvalues_by_hand() -> None:
    # k = 2, the threshold is the third largest: 1 + 2/(ln(8/2) + ln(4/2)).
    found = pl_alpha_hill(np.array([1.0, 2.0, 4.0, 8.0]))
    assert found == pytest.approx(1.0 + 2.0 / (3.0 * math.log(2.0)))


@pytest.mark.parametrize("alpha", [1.5, 2.5, 4.0])
def test_recovers_the_exponent_of_a_pareto_sample(alpha: float) -> None:
    quantiles = (np.arange(4000) + 0.5) / 4000
    eigenvalues = (1.0 - quantiles) ** (-1.0 / (alpha - 1.0))
    assert pl_alpha_hill(eigenvalues) == pytest.approx(alpha, rel=0.01)
    assert pl_alpha_hill(8.0 * eigenvalues) == pytest.approx(pl_alpha_hill(eigenvalues))


@pytest.mark.parametrize("eigenvalues", [[0.0, 0.0, 1.0, 2.0], [3.0] * 6, [5.0]])
def test_without_an_estimate_it_is_nan(eigenvalues: list[float]) -> None:
    assert math.isnan(pl_alpha_hill(np.array(eigenvalues)))


def pareto(spectrum_of, name: str, alpha: float, size: int = 80):
    """A layer whose eigenvalues are a Pareto sample of that exponent."""
    quantiles = (np.arange(size) + 0.5) / size
    eigenvalues = (1.0 - quantiles) ** (-1.0 / (alpha - 1.0))
    return spectrum_of(np.diag(np.sqrt(eigenvalues)), name=name, shuffles=0)


def test_factors_are_the_papers_linear_map_and_leave_out_the_ends(spectrum_of) -> None:
    layers = [("first", 9.0), ("a", 2.0), ("b", 3.0), ("c", 4.0), ("last", 1.5)]
    spectra = [pareto(spectrum_of, name, alpha) for name, alpha in layers]
    spectra.insert(2, pareto(spectrum_of, "small", 2.0, size=30))
    metrics = metrics_from_spectra(spectra)
    factors = compute_lr_factors(metrics)
    a, b, c = (pl_alpha_hill(metrics[name].spectrum.eigenvalues) for name in "abc")
    assert factors == pytest.approx(
        {"first": 1, "a": 0.5, "small": 1, "b": 0.5 + (b - a) / (c - a), "c": 1.5, "last": 1}
    )
    assert compute_lr_factors(metrics, low=1.0, high=1.0) == dict.fromkeys(factors, 1.0)


def test_a_single_layer_keeps_its_rate(spectrum_of) -> None:
    spectra = [pareto(spectrum_of, name, alpha) for name, alpha in (("a", 2), ("b", 3), ("c", 4))]
    assert set(compute_lr_factors(metrics_from_spectra(spectra)).values()) == {1.0}


def llr_layers(spectrum_of) -> wwopt.ModelMetrics:
    layers = [("first", 2.5), ("a", 2.0), ("b", 3.0), ("c", 4.0), ("last", 1.5)]
    spectra = [pareto(spectrum_of, name, alpha) for name, alpha in layers]
    spectra.insert(2, pareto(spectrum_of, "small", 2.0, size=30))
    return metrics_from_spectra([replace(spectra[0], kind="embedding"), *spectra[1:]])


def test_llr_is_the_same_map_from_1_to_5_with_embeddings_and_head_at_the_upper_end(
    spectrum_of,
) -> None:
    metrics = llr_layers(spectrum_of)
    factors = compute_lr_factors(metrics, rule="LLR")
    a, b, c = (pl_alpha_hill(metrics[name].spectrum.eigenvalues) for name in "abc")
    assert factors == pytest.approx(
        {"first": 5, "a": 1, "small": 1, "b": 1 + 4 * (b - a) / (c - a), "c": 5, "last": 5}
    )
    assert compute_lr_factors(metrics, rule="LLR", high=1.0) == dict.fromkeys(factors, 1.0)
    assert compute_lr_factors(metrics, rule="LLR", low=2.0, high=3.0)["a"] == 2.0


def test_llr_takes_a_first_layer_that_is_no_embedding_by_its_alpha(spectrum_of) -> None:
    spectra = [pareto(spectrum_of, n, alpha) for n, alpha in (("a", 2), ("b", 3), ("c", 9))]
    assert compute_lr_factors(metrics_from_spectra(spectra), rule="LLR") == pytest.approx(
        {"a": 1, "b": 5, "c": 5}
    )


@given(
    alphas=st.lists(st.sampled_from([1.5, 2.0, 2.5, 3.5, 5.0, 8.0]), min_size=2, max_size=8),
    scale=st.sampled_from([0.5, 3.0, 8.0]),
)
def test_llr_never_slows_a_layer_and_keeps_the_order_of_alphas(alphas, scale) -> None:
    def factors_of(scale: float) -> list[float]:
        n = np.arange(80)
        tails = [((n + 0.5) / 80) ** (-0.5 / (alpha - 1.0)) for alpha in alphas]
        weights = {f"l{i}.weight": torch.diag(torch.tensor(scale * t)) for i, t in enumerate(tails)}
        metrics = wwopt.analyze(weights, shuffles=0)
        return list(compute_lr_factors(metrics, rule="LLR").values())

    factors = factors_of(1.0)
    assert all(1.0 <= factor <= 5.0 for factor in factors)
    assert factors[-1] == 5.0
    inner = sorted(zip(alphas[:-1], factors[:-1], strict=True))
    assert [f for _, f in inner] == pytest.approx(sorted(f for _, f in inner), abs=1e-6)
    assert factors_of(scale) == pytest.approx(factors, abs=1e-5)  # rescaled weights


def test_llr_of_equal_alphas_is_the_base_rate(spectrum_of) -> None:
    spectra = [pareto(spectrum_of, name, 3.0) for name in "abc"]
    assert compute_lr_factors(metrics_from_spectra(spectra), rule="LLR") == {"a": 1, "b": 1, "c": 5}
    only = metrics_from_spectra(spectra[:1])
    assert compute_lr_factors(only, rule="LLR") == {"a": 5.0}


def test_what_llr_refuses(spectrum_of) -> None:
    metrics = llr_layers(spectrum_of)
    for low, high in ((0.5, 5.0), (3.0, 2.0), (math.nan, 5.0)):
        with pytest.raises(ValueError, match=f"never goes below the base rate.*got {low:g} and"):
            compute_lr_factors(metrics, rule="LLR", low=low, high=high)
    with pytest.raises(ValueError, match="unknown rule 'llr'; known: TempBalance, LLR"):
        compute_lr_factors(metrics, rule="llr")


def optimizer() -> tuple[nn.Module, torch.optim.SGD]:
    model = nn.Sequential(OrderedDict({n: nn.Linear(60, 60) for n in "abc"}))
    hp = LayerHyperparameters(lr={"a": 0.1, "b": 0.2, "c": 0.4})
    return model, hp.optimizer(model, torch.optim.SGD)


def rates(made: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in made.param_groups]


def test_factors_replace_each_other_and_do_not_compound() -> None:
    _, made = optimizer()
    scale_learning_rates(made, {"a": 0.5, "b": 1.5})
    assert rates(made) == pytest.approx([0.05, 0.3, 0.4])
    scale_learning_rates(made, {"a": 1.5, "b": 1.0, "c": 0.5})
    assert rates(made) == pytest.approx([0.15, 0.2, 0.2])
    scale_learning_rates(made, {})
    assert rates(made) == pytest.approx([0.15, 0.2, 0.2])


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    ],
)
def test_schedulers_go_on_beneath_the_factors(scheduler) -> None:
    (_, plain), (_, scaled) = optimizer(), optimizer()
    schedules = [scheduler(plain), scheduler(scaled)]
    for epoch in range(5):
        for made, schedule in zip((plain, scaled), schedules, strict=True):
            made.step()
            schedule.step()
        factor = 0.5 + 0.2 * epoch
        scale_learning_rates(scaled, {"b": factor})
        expected = [rates(plain)[0], factor * rates(plain)[1], rates(plain)[2]]
        assert rates(scaled) == pytest.approx(expected)


def test_a_step_uses_the_scaled_rate() -> None:
    torch.manual_seed(0)
    model, made = optimizer()
    scale_learning_rates(made, {"a": 0.5, "b": 1.5})
    before = {name: p.clone() for name, p in model.named_parameters()}
    model(torch.randn(8, 60)).square().sum().backward()
    made.step()
    for name, p in model.named_parameters():
        rate = {"a": 0.05, "b": 0.3, "c": 0.4}[name[0]]
        torch.testing.assert_close(before[name] - p, rate * p.grad, rtol=1e-4, atol=1e-5)


def test_a_group_with_several_matrices_gets_their_mean() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 1)
    names = wwopt.LayerSpace.from_model(model, lr=(0.1, 1.0), dropout=None, momentum=None).layers
    made = LayerHyperparameters(lr=dict.fromkeys(names, 0.1)).optimizer(model, torch.optim.SGD)
    factors = {f"layers.0.self_attn.in_proj.{p}": f for p, f in zip("qkv", (0.5, 1.0, 1.5))}  # noqa: B905
    scale_learning_rates(made, factors | {"layers.0.self_attn.out_proj": 0.5})
    found = {group["name"]: group["lr"] for group in made.param_groups}
    assert found["layers.0.self_attn"] == pytest.approx(0.1)
    assert found["layers.0.self_attn.out_proj"] == pytest.approx(0.05)
    assert find_group(made, "layers.0.self_attn.in_proj.q") == "layers.0.self_attn"


def test_the_recorder_returns_factors_where_it_analyses() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(60, 60) for _ in range(4)])
    with wwopt.record(optuna.create_study().ask(), epochs=2) as recorder:
        advice = recorder.step(model)
        recorder.step(model)
    assert advice.lr_factors["0"] == advice.lr_factors["3"] == 1.0
    assert sorted((advice.lr_factors["1"], advice.lr_factors["2"])) == pytest.approx([0.5, 1.5])
