"""Every kind of damage is named in the layer that has it; harmless changes and symmetries pass."""

import json
import math
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fixtures.processes import run_wwopt
from safetensors.torch import save_file
from torch import nn

import wwopt
from wwopt.cli import main
from wwopt.gate.changes import LayerChange, compare_spectra, compare_weights
from wwopt.gate.checks import GateResult, LayerCheck
from wwopt.gate.damage import find_damage
from wwopt.gate.history import (
    HistoryError,
    PastCheck,
    append_check,
    find_drift,
    read_history,
    values_of,
)
from wwopt.gate.text import describe_drift, format_check
from wwopt.gate.thresholds import Thresholds
from wwopt.metrics.model_metrics import LayerMetrics
from wwopt.weights.matrices import read_weights
from wwopt.weights.stored_tensors import WeightsError

State = dict[str, torch.Tensor]
SHAPES = {"fc1": (128, 64), "fc2": (128, 128), "fc3": (96, 128), "head": (10, 96)}


def trained(rows: int, columns: int, seed: int) -> torch.Tensor:
    """A bulk, and a heavy tail of learned directions: λ falls as rank^(-2/3), alpha near 2.5."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, rank, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(columns, rank, generator=generator)).Q
    tail = 3.0 * torch.arange(1, rank + 1).float() ** (-1.0 / 3.0)
    noise = torch.randn(rows, columns, generator=generator) / math.sqrt(max(rows, columns))
    return (left * tail) @ right.T + 0.3 * noise


def model(seed: int = 0) -> State:
    state = {
        f"{name}.weight": trained(*shape, seed=10 * seed + index)
        for index, (name, shape) in enumerate(SHAPES.items())
    }
    return state | {"fc1.bias": torch.zeros(128)}


def edited(edit: Callable[[torch.Tensor], torch.Tensor], *layers: str) -> State:
    """The model with some layers changed; all where none is named."""
    return {
        name: edit(w.clone()) if w.ndim == 2 and (not layers or name[:-7] in layers) else w
        for name, w in model().items()
    }


def rounded(w: torch.Tensor, bits: int) -> torch.Tensor:
    step = w.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (w / step).round() * step


def pruned(w: torch.Tensor, share: float) -> torch.Tensor:
    return torch.where(w.abs() > w.abs().flatten().quantile(share), w, 0.0)


def truncated(w: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, v = torch.linalg.svd(w, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def random(w: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(99)
    return torch.randn(w.shape, generator=generator) * w.std()


def pushed(w: torch.Tensor, size: float) -> torch.Tensor:
    """A step along few directions, as a large or small learning rate takes."""
    generator = torch.Generator().manual_seed(7)
    step = torch.randn(w.shape[0], 3, generator=generator)
    step = step @ torch.randn(3, w.shape[1], generator=generator)
    return w + size * w.norm() / step.norm() * step


def spiked(w: torch.Tensor) -> torch.Tensor:
    w[3, 5], w[40, 7], w[11, 60] = 4.0, -4.0, 3.5
    return w


DAMAGE: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "3 bits": (lambda w: rounded(w, 3), r"rounded to \d values a row \(noise"),
    "pruned 95 %": (lambda w: pruned(w, 0.95), "pruned: 95 % more zeros|spectrum changed: KS"),
    "scaled up": (lambda w: w * 4.0, "^scaled by 4$"),
    "scaled down": (lambda w: w / 8.0, "^scaled by 0.125$"),
    "re-initialised": (random, "^re-initialised.* looks like a random matrix"),
    "rank": (lambda w: truncated(w, 45), "rank lost: 128 → 45"),
    "learning rate": (lambda w: pushed(w, 1.5), "λmax × "),
    "traps": (spiked, "new correlation traps: z -[0-9.]+ → "),
    "mean": (lambda w: w + 0.5 * w.std(), r"mean of the weights moved by \+0.[45]"),
    "collapsed": (lambda w: pushed(w, 20.0), "collapsed, was ok|stable rank"),
    "not finite": (lambda w: w.index_fill_(0, torch.tensor(0), math.nan), "^not finite$"),
    "zero": (torch.zeros_like, "^all weights are zero$"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_in_its_layer_and_nowhere_else(kind: str) -> None:
    edit, words = DAMAGE[kind]
    result = wwopt.check(model(), edited(edit, "fc2"))
    assert list(result.broken) == ["fc2"]
    said = "; ".join(finding.words for finding in result.layers[1].findings)
    assert re.search(words, said), said
    assert not result.passed


@pytest.mark.parametrize("kind", [k for k in DAMAGE if k not in {"3 bits", "traps", "rank"}])
def test_small_layers_are_compared_too(kind: str) -> None:
    assert list(wwopt.check(model(), edited(DAMAGE[kind][0], "head")).broken) == ["head"]


HARMLESS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bf16": lambda w: w.bfloat16().float(),
    "bf16 as stored": lambda w: w.bfloat16(),
    "int8 per row": lambda w: rounded(w, 8),
    "a few more epochs": lambda w: pushed(w, 0.05),
    "float64": lambda w: w.double(),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_changes_pass(kind: str) -> None:
    result = wwopt.check(model(), edited(HARMLESS[kind]))
    assert result.passed, result.broken


def test_the_same_model_has_no_differences() -> None:
    result = wwopt.check(model(), model())
    assert result.passed
    for layer in result.layers:
        known = {k: v for k, v in vars(layer.change).items() if k != "levels"}
        assert known.pop("scale") == 1.0
        assert known.pop("cosine") == pytest.approx(1.0, abs=1e-6)  # of float32 products
        expected_nan = {"hill"} if layer.name == "head" else set()  # 10 eigenvalues have no Hill
        assert {k for k, v in known.items() if math.isnan(v)} == expected_nan
        assert all(v == 0.0 for v in known.values() if not math.isnan(v))


def test_permuting_neurons_is_harmless() -> None:
    order, before = torch.randperm(128, generator=torch.Generator().manual_seed(1)), model()
    after = dict(before)
    after["fc1.weight"] = before["fc1.weight"][order]
    after["fc2.weight"] = before["fc2.weight"][:, order]
    result = wwopt.check(before, after)
    assert result.passed, result.broken
    assert abs(result.layers[0].change.cosine) < 0.1
    assert result.layers[0].change.ks == 0.0


def test_units_do_not_matter() -> None:
    small = wwopt.check(model(), edited(lambda w: pushed(w, 0.2))).to_frame()
    scaled = {name: 64.0 * w for name, w in model().items()}
    large = wwopt.check(scaled, {n: 64.0 * w for n, w in edited(lambda w: pushed(w, 0.2)).items()})
    columns = ["scale", "ks", "hill", "spectral_norm", "stable_rank", "kurtosis", "noise", "mean"]
    np.testing.assert_allclose(
        large.to_frame()[columns].to_numpy(), small[columns].to_numpy(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.model."])
def test_wrappers_prefixes_do_not_matter(prefix: str) -> None:
    after = {prefix + name: w for name, w in edited(lambda w: w * 4.0, "fc2").items()}
    assert wwopt.check(model(), after).broken == {"fc2": "scaled by 4"}
    assert list(wwopt.check(after, model()).broken) == [f"{prefix}fc2"]


def test_layers_on_one_side_and_other_shapes_are_findings() -> None:
    after = model()
    after["extra.weight"] = after.pop("fc1.weight")
    after["fc3.weight"] = after["fc3.weight"][:80]
    after["head.weight"] = (100 * after["head.weight"]).to(torch.int8)
    broken = wwopt.check(model(), after).broken
    assert broken["fc1"] == "missing after"
    assert broken["extra"] == "new: not there before"
    assert broken["fc3"] == "reshaped: 128×96 → 128×80"
    assert broken["head"].startswith("not analysed after: quantized: int8")
    assert "fc2" not in broken


def test_what_was_broken_before_and_is_so_still() -> None:
    hurt = edited(DAMAGE["not finite"][0], "fc2")
    assert wwopt.check(hurt, hurt).broken == {"fc2": "not finite, as before"}
    assert wwopt.check(hurt, model()).passed  # repaired
    zero = edited(torch.zeros_like, "fc2")
    assert wwopt.check(zero, zero).passed
    assert wwopt.check(zero, model()).passed


def test_weights_tied_on_one_side_are_compared_with_the_one_they_were_tied_to() -> None:
    before = {"embed.weight": trained(80, 64, 0), "fc.weight": trained(64, 64, 1)}
    tied = before | {"lm_head.weight": before["embed.weight"]}
    untied = before | {"lm_head.weight": before["embed.weight"].clone()}
    assert wwopt.check(tied, untied).passed
    assert wwopt.check(untied, tied).passed
    hurt = untied | {"lm_head.weight": 4.0 * before["embed.weight"]}
    assert wwopt.check(tied, hurt).broken == {"lm_head": "scaled by 4"}


def test_another_training_is_judged_by_its_spectra_alone() -> None:
    anew = wwopt.check(model(), model(seed=5))
    assert not anew.continued
    assert anew.passed, anew.broken
    assert "judged as another training" in format_check(anew)
    one = model() | {"fc2.weight": model(seed=5)["fc2.weight"]}
    replaced = wwopt.check(model(), one)
    assert replaced.continued
    assert list(replaced.broken) == ["fc2"]
    assert "unrelated to the weights before" in replaced.broken["fc2"]


def test_metrics_are_compared_without_the_weights() -> None:
    before, after = model(), edited(lambda w: w * 4.0, "fc2")
    full = wwopt.check(before, after)
    for sides in (
        (wwopt.analyze(before), wwopt.analyze(after)),
        (wwopt.analyze(before), after),
        (before, wwopt.analyze(after)),
    ):
        result = wwopt.check(*sides)
        assert result.broken == full.broken
        assert math.isnan(result.layers[0].change.noise)
        assert result.layers[1].change.ks == full.layers[1].change.ks
    assert math.isfinite(full.layers[0].change.noise)


def test_metrics_without_spectra_still_tell_a_scale() -> None:
    known = wwopt.analyze({"fc.weight": trained(128, 64, 0)})
    scaled = wwopt.analyze({"fc.weight": 4.0 * trained(128, 64, 0)})
    bare = [replace(m, layers=(replace(m["fc"], spectrum=None),)) for m in (known, scaled)]
    assert wwopt.check(bare[0], bare[1]).broken == {"fc": "scaled by 4, and not only scaled"}


def test_modules_and_convolutions() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 64))
    changed = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 64))
    changed.load_state_dict(net.state_dict())
    assert wwopt.check(net, changed).passed
    with torch.no_grad():
        changed[0].weight.mul_(2.0)
    assert wwopt.check(net, changed).broken == {"0": "scaled by 2"}
    assert wwopt.check(net, changed.state_dict()).broken == {"0": "scaled by 2"}


def test_nothing_compared_is_no_pass() -> None:
    empty = {"norm.weight": torch.ones(8)}
    with pytest.raises(WeightsError, match="nothing was compared"):
        wwopt.check(empty, empty)


def test_the_noise_is_what_was_added(spectrum_of: Callable[..., object]) -> None:
    """A known amount of Gaussian noise beside a large low-rank step is found to a tenth."""
    before = trained(200, 120, 0)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(200, 120, generator=generator) * before.std() * 0.2
    matrices = [
        read_weights({"fc.weight": w}).matrices[0]
        for w in (before, before + noise, pushed(before, 0.5) + noise, pushed(before, 0.5))
    ]
    change = LayerChange(scale=1.0)
    found = [compare_weights(change, matrices[0], other).noise for other in matrices[1:]]
    assert found[0] == pytest.approx(0.2, rel=0.05)
    assert found[1] == pytest.approx(0.2, rel=0.05)  # the step adds nothing
    assert found[2] < 1e-6


def test_scale_and_shape_in_closed_form() -> None:
    """Diagonal matrices: eigenvalues 1, 4, …, 64²; then all × 9, and the largest × 16 more."""
    sizes = torch.arange(1.0, 65.0)
    before = wwopt.analyze({"fc.weight": torch.diag(sizes)})["fc"]
    after = 3.0 * sizes
    after[-1] *= 4.0
    change = compare_spectra(before, wwopt.analyze({"fc.weight": torch.diag(after)})["fc"])
    assert change.scale == pytest.approx(3.0)
    assert change.spectral_norm == pytest.approx(math.log(16.0))
    assert change.ks == pytest.approx(1 / 64)  # one of 64 lies beyond all of before's
    total = 64 * 65 * 129 / 6
    norm = math.log((total + 15 * 64**2) / total)
    assert change.norm == pytest.approx(norm)
    assert change.stable_rank == pytest.approx(norm - math.log(16.0))
    half = torch.cat([0.01 * sizes[:16], sizes[16:]])
    moved = compare_spectra(before, wwopt.analyze({"fc.weight": torch.diag(half)})["fc"])
    assert moved.ks == pytest.approx(16 / 64)  # .16² < 1: sixteen fell below the smallest


def test_every_quantity_has_its_threshold_and_words() -> None:
    base = wwopt.analyze({"fc.weight": trained(128, 64, 0)})["fc"]
    still = LayerChange(**dict.fromkeys(vars(LayerChange()), 0.0) | {"scale": 1.0, "spread": 0.1})
    assert find_damage(base, base, still, Thresholds()) == ()
    limits = Thresholds(relative_change=1.0)
    for quantity in vars(limits):
        far = limits.allowed(quantity) * 2.0
        value = math.exp(far) if quantity == "scale" else far + 1.5 / 64 * (quantity == "ks")
        change = replace(still, **{quantity: value})
        after = replace(base, trap_z=5.0)
        found = find_damage(base, after, change, limits)
        assert [f.quantity for f in found] == [quantity]
        assert found[0].words
        off = replace(limits, **{quantity: math.inf})
        assert find_damage(base, after, change, off) == ()


def test_thresholds_are_options() -> None:
    after = edited(lambda w: w * 1.1, "fc2")
    assert wwopt.check(model(), after).passed
    assert wwopt.check(model(), after, scale=1.05).broken == {"fc2": "scaled by 1.1"}
    assert wwopt.check(model(), edited(lambda w: w * 4.0), scale=math.inf).passed
    moved = wwopt.check(model(), after, relative_change=0.05).broken
    assert moved == {"fc2": "weights changed by 0.10 of their norm"}
    with pytest.raises(TypeError, match="kss"):
        wwopt.check(model(), after, kss=0.1)
    with pytest.raises(ValueError, match=r"threshold scale must be above 1, got 0\.5"):
        wwopt.check(model(), after, scale=0.5)
    with pytest.raises(ValueError, match="threshold ks must be above 0, got 0"):
        Thresholds(ks=0.0)


def test_layers_can_be_chosen() -> None:
    after = edited(lambda w: w * 4.0, "fc2")
    assert wwopt.check(model(), after, layers=["fc1"]).passed
    assert [layer.name for layer in wwopt.check(model(), after, layers=["fc[12]"]).layers] == [
        "fc1",
        "fc2",
    ]
    with pytest.raises(WeightsError, match="no layer 'fx'"):
        wwopt.check(model(), after, layers=["fx"])


def test_the_frame_and_the_dict_hold_both_sides() -> None:
    result = wwopt.check(model(), edited(lambda w: w * 4.0, "fc2"))
    frame = result.to_frame().set_index("layer")
    assert list(frame.index) == ["fc1", "fc2", "fc3", "head"]
    assert frame.loc["fc2", "scale"] == pytest.approx(4.0)
    assert frame.loc["fc2", "alpha_before"] == pytest.approx(frame.loc["fc2", "alpha_after"])
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["passed"] is False
    assert document["broken"] == {"fc2": "scaled by 4"}
    assert document["layers"][3]["hill_before"] is None
    assert document["thresholds"]["relative_change"] is None


# History


def past_of(
    result: GateResult, count: int, *, passed: bool = True, seed: int = 0
) -> list[PastCheck]:
    """Past checks that jitter by .01 around this one."""
    rng = np.random.default_rng(seed)
    return [
        PastCheck(
            "2025-01-01",
            passed,
            {
                layer.name: {q: v + 0.01 * rng.standard_normal() for q, v in values.items()}
                for layer in result.layers
                for values in [values_of(layer)]
            },
        )
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def quiet() -> GateResult:
    return wwopt.check(model(), edited(lambda w: pushed(w, 0.03)))


def test_a_change_unlike_the_past_ones_is_drift(quiet: GateResult) -> None:
    past = past_of(quiet, 12)
    assert find_drift(quiet, past) == []
    loud = wwopt.check(model(), edited(lambda w: w * 1.15, "fc2"))
    assert loud.passed  # the gate lets it through
    drifts = find_drift(loud, past)
    assert {drift.layer for drift in drifts} == {"fc2"}
    assert drifts[0].quantity in {"change/scale", "level/scale"}
    assert abs(drifts[0].z) > drifts[0].limit > 3.0
    text = describe_drift(drifts, past)
    assert "fc2: " in text and "1.15, usually" in text and "12 checks" in text


def test_drift_needs_five_checks_that_passed(quiet: GateResult) -> None:
    loud = wwopt.check(model(), edited(lambda w: w * 1.15, "fc2"))
    few = past_of(quiet, 4) + past_of(quiet, 4, passed=False)
    assert find_drift(loud, few) == []
    assert describe_drift([], few) == "Drift: not judged, 4 past checks passed and it takes 5."
    again = 3 * past_of(quiet, 3)  # the same three checks, run again and again
    assert find_drift(loud, again) == []
    enough = past_of(quiet, 8)
    assert find_drift(loud, enough)
    assert describe_drift([], enough) == "Drift: none, against 8 past checks that passed."


def test_a_past_without_any_change_does_not_make_rounding_a_drift(quiet: GateResult) -> None:
    still = wwopt.check(model(), model())
    past = [
        replace(check, time=str(index), layers={**check.layers, "other": {"x": float(index)}})
        for index, check in enumerate(past_of(still, 1) * 8)
    ]
    exact = [
        replace(c, layers={**c.layers, **{x.name: values_of(x) for x in still.layers}})
        for c in past
    ]
    assert find_drift(wwopt.check(model(), edited(lambda w: w.bfloat16())), exact) == []
    assert find_drift(wwopt.check(model(), edited(lambda w: w * 1.1, "fc2")), exact)


@pytest.mark.parametrize("count", [5, 20])
def test_false_alarms_of_drift_are_as_rare_as_promised(count: int) -> None:
    rng = np.random.default_rng(count)
    base = LayerMetrics(name="fc", N=100, M=100, num_evals=100)
    alarms, runs = 0, 1500
    for _ in range(runs):
        values = rng.standard_normal(count + 1)
        change = LayerChange(scale=math.exp(values[0]))
        result = GateResult((LayerCheck("fc", base, base, change),), Thresholds())
        past = [PastCheck("", True, {"fc": {"change/scale": v}}) for v in values[1:]]
        alarms += bool(find_drift(result, past, false_alarm=0.05))
    assert alarms / runs == pytest.approx(0.05, abs=0.02)  # 3.5 standard errors


def test_a_history_comes_back_as_it_was_written(quiet: GateResult, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert read_history(path) == []
    append_check(path, quiet, before="a", after="b")
    path.write_text(path.read_text().rstrip("\n"))  # an editor that drops the last line break
    append_check(path, quiet)
    read = read_history(path)
    assert [check.passed for check in read] == [True, True]
    assert read[0].layers["fc2"] == values_of(quiet.layers[1])


@pytest.mark.parametrize(
    "line", ['{"time": "2025', "[1, 2]", '{"time": "x", "passed": true}', '{"layers": {"a": 3}}']
)
def test_a_damaged_line_is_told_by_its_number(line: str, quiet: GateResult, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_check(path, quiet)
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(HistoryError, match=r"line 2 of the history .* is damaged .*remove it"):
        read_history(path)


def test_a_history_that_cannot_be_read_or_written(quiet: GateResult, tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="cannot write the history"):
        append_check(tmp_path / "missing" / "history.jsonl", quiet)
    with pytest.raises(HistoryError, match="cannot read the history"):
        read_history(tmp_path)


# The command


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    states: Mapping[str, State] = {
        "good": model(),
        "same": edited(lambda w: rounded(w, 8)),
        "bad": edited(lambda w: w * 4.0, "fc2"),
    }
    paths = {name: tmp_path / f"{name}.safetensors" for name in states}
    for name, state in states.items():
        save_file(state, paths[name])
    return paths


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["check", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_the_command_end_to_end(files: dict[str, Path], tmp_path: Path) -> None:
    def execute(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_wwopt("check", files["good"], *arguments)

    history = ["--history", str(tmp_path / "history.jsonl")]
    broken = execute(files["bad"], *history)
    assert broken.returncode == 1, broken.stderr
    assert "1 of 4 layers broke.\n  fc2: scaled by 4\n" in broken.stdout
    assert "Drift: not judged" in broken.stdout
    fine = execute(files["same"], *history)
    assert fine.returncode == 0, fine.stderr
    assert fine.stdout.startswith("Passed: 4 layers.")
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2
    absent = execute(tmp_path / "absent.safetensors", *history)
    assert absent.returncode == 2
    assert absent.stderr.count("\n") == 1 and "absent.safetensors" in absent.stderr
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2


def test_the_commands_json(files: dict[str, Path]) -> None:
    status, output, _ = run(files["good"], files["bad"], "--json")
    assert status == 1
    document = json.loads(output)
    assert document["broken"] == {"fc2": "scaled by 4"}
    expected = wwopt.check(files["good"], files["bad"])
    assert document["layers"][1]["ks"] == expected.layers[1].change.ks
    assert "history" not in document


def test_the_commands_thresholds_and_layers(files: dict[str, Path]) -> None:
    assert run(files["good"], files["bad"], "--max-scale", "5")[0] == 0
    assert run(files["good"], files["bad"], "--max-scale", "inf", "--shuffles", 0)[0] == 0
    assert run(files["good"], files["bad"], "--layers", "fc1,head")[0] == 0
    status, _, message = run(files["good"], files["bad"], "--max-scale", "0.5")
    assert (status, message) == (2, "wwopt: threshold scale must be above 1, got 0.5\n")
    help_text = CliRunner().invoke(main, ["check", "--help"]).stdout
    for name in vars(Thresholds()):
        assert f"--max-{name.replace('_', '-')} " in help_text


def test_the_command_when_it_cannot(files: dict[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("this is no checkpoint")
    history = tmp_path / "history.jsonl"
    history.write_text("{\n")
    for arguments in (
        (files["good"], text),
        (text, files["good"]),
        (files["good"], files["good"], "--layers", "fx"),
        (files["good"], files["good"], "--history", history),
        (files["good"], files["good"], "--device", "no such device"),
    ):
        status, output, message = run(*arguments)
        assert (status, output) == (2, "")
        assert message.startswith("wwopt: ") and message.count("\n") == 1
    assert history.read_text() == "{\n"


def test_the_command_finds_drift_that_the_gate_lets_through(
    files: dict[str, Path], tmp_path: Path
) -> None:
    history = tmp_path / "history.jsonl"
    for week in range(6):
        state = edited(lambda w, size=0.02 + 0.002 * week: pushed(w, size))
        save_file(state, tmp_path / "week.safetensors")
        assert run(files["good"], tmp_path / "week.safetensors", "--history", history)[0] == 0
    save_file(edited(lambda w: w * 1.15, "fc2"), tmp_path / "week.safetensors")
    status, output, _ = run(files["good"], tmp_path / "week.safetensors", "--history", history)
    assert status == 1
    assert output.startswith("Passed: 4 layers.")
    assert "Drift:\n  fc2: " in output
    document = json.loads(
        run(files["good"], tmp_path / "week.safetensors", "--history", history, "--json")[1]
    )
    # What drifted is not taken for the new normal, until somebody accepts it.
    assert document["history"]["drift"][0]["layer"] == "fc2"
    history.write_text(history.read_text().replace('"passed": false', '"passed": true'))
    accepted = run(files["good"], tmp_path / "week.safetensors", "--history", history)
    assert accepted[0] == 0
