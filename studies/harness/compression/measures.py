"""What follows the true cost of compressing one layer: the gate's measures, errors, damage.

One layer of a trained network is compressed at a time, and the divergence of the network's answers
on test data is set against what can be known without data.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

import wwopt
from harness.compression.judging import compare, predict_with
from harness.compression.networks import load_network, predict, read_data
from harness.compression.rules import find_alphas
from wwopt.compression import LayerPlan, encode_layer, list_layers
from wwopt.compression.damage import BREAKS, LayerDamage, find_ends
from wwopt.compression.encoding import to_matrices

SETTINGS = {
    "4 bits": LayerPlan(bits=4),
    "3 bits": LayerPlan(bits=3),
    "pruned 50 %": LayerPlan(sparsity=0.5),
    "pruned 80 %": LayerPlan(sparsity=0.8),
}
GATE = ("noise", "relative_change", "ks", "spread", "hill", "stable_rank", "kurtosis", "max_abs")
MEASURES = {  # column -> what the tables call it
    "damage": "damage, as the budget has it",
    "same_ends": "the same without the weight of the ends",
    "spectral": "‖E‖₂²/‖W‖₂²",
    "relative": "‖E‖²/‖W‖², Frobenius",
    "absolute": "‖E‖²",
    "alphaq": "‖E‖² · median α/α, AlphaQ",
    **{name: f"gate: {name}" for name in GATE},
}


def measure_layers(kind: str, seed: int, cache: Path, data: Path | None) -> list[dict[str, Any]]:
    """Every layer at every setting, one at a time; kept as JSON."""
    path = cache / f"layers-{kind}-{seed}.json"
    if path.exists():
        found: list[dict[str, Any]] = json.loads(path.read_text())
        return found
    found = list(_measure(kind, seed, cache, data))
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(path)
    return found


def _measure(kind: str, seed: int, cache: Path, data: Path | None) -> Iterator[dict[str, Any]]:
    model = load_network(kind, seed, cache, data)
    x, y = read_data(kind, data).test
    step = max(1, len(x) // 2000 if x.is_floating_point() else len(x) // 150)
    test = x[::step], y[::step]
    before = predict(model, test)
    network = list_layers(model)
    ends, alphas = find_ends(network), find_alphas(network)
    middle = float(np.median(list(alphas.values())))
    for layer in network.layers:
        tensor, name = layer.read_tensor(), layer.tensor.name
        W = to_matrices(tensor, axis=layer.axis, stacked=layer.stacked)
        judge = LayerDamage(W, end=layer.name in ends)
        for setting, plan in SETTINGS.items():
            after = encode_layer(name, tensor, plan, axis=layer.axis, stacked=layer.stacked).weights
            lost = compare(
                before, predict_with(model, {**model.state_dict(), name: after}, test), test
            )
            error = judge.error(to_matrices(after, axis=layer.axis, stacked=layer.stacked))
            damage = judge.damage(error)
            absolute = float((after - tensor).square().sum())
            relative = absolute / judge.frobenius**2
            gate = wwopt.check({name: tensor}, {name: after}, shuffles=0).layers
            worst = max(gate, key=lambda check: np.nan_to_num(check.change.noise))
            yield {
                "network": f"{kind} {seed}",
                "layer": layer.name,
                "setting": setting,
                "divergence": lost[0],
                "error": lost[3],
                "broken": any(check.findings for check in gate),
                "damage": damage,
                "same_ends": damage / judge.weight,
                "spectral": (error**2 / judge.weight) ** 2 / relative,
                "relative": relative,
                "absolute": absolute,
                "alphaq": absolute * middle / alphas[layer.name],
                **{key: abs(getattr(worst.change, key)) for key in GATE},
            }


def tabulate_measures(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """How well each measure orders a network's layers and settings, means over networks.

    Columns: Spearman's correlation with the divergence inside a network; and the factor by which
    the divergence strays, one standard deviation, from being proportional to the measure.
    """
    table = pd.DataFrame(rows)
    table = table[table["divergence"] > 1e-7]
    found = []
    for column, words in MEASURES.items():
        orders, strays = [], []
        for _, network in table.groupby("network"):
            known = network[network[column] > 0.0]
            orders.append(stats.spearmanr(known[column], known["divergence"]).statistic)
            measure = known[column] ** (2.0 if column in GATE else 1.0)
            strays.append(float(np.std(np.log(known["divergence"]) - np.log(measure))))
        stray = math.exp(float(np.mean(strays)))
        found.append({"measure": words, "order": float(np.mean(orders)), "strays by": stray})
    return pd.DataFrame(found)


def tabulate_settings(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What each setting of one layer cost, and how often the gate called it broken."""
    table = pd.DataFrame(rows)
    found = []
    for setting, group in table.groupby("setting", sort=False):
        row = {"one layer": setting, "cases": len(group)} | _cost(group)
        found.append(row | {"called broken by the gate": _share(group["broken"])})
    return pd.DataFrame(found)


def tabulate_errors(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What one layer cost by its error as the budget has it, and what the gate says of it."""
    table = pd.DataFrame(rows)
    weight = table["damage"] / table["same_ends"]
    error = (weight**2 * table["spectral"] * table["relative"]) ** 0.25
    found = []
    for low, high in pairwise((0.0, 0.1, 0.2, 0.3, 0.4, BREAKS, 0.7, 3.0)):
        group = table[(error > low) & (error <= high)]
        row = {"error": f"{low:g} to {high:g}" if high < 2.0 else f"above {low:g}"}
        row |= {"cases": len(group)} | _cost(group)
        row |= {"cost 1 point or more": f"{100.0 * (group['error'] >= 0.01).mean():.0f} %"}
        found.append(row | {"called broken by the gate": _share(group["broken"])})
    return pd.DataFrame(found)


def tabulate_verdicts(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """How often a verdict finds what cost a point or more, and cries wolf at what cost less."""
    table = pd.DataFrame(rows)
    weight = table["damage"] / table["same_ends"]
    error = (weight**2 * table["spectral"] * table["relative"]) ** 0.25
    costly = table["error"] >= 0.01
    verdicts = {
        f"error above {BREAKS:g}": error > BREAKS,
        "the gate": table["broken"],
        "the gate's noise above .13": table["noise"] > 0.13,
        "the gate's noise above .4": table["noise"] > 0.4,
    }
    return pd.DataFrame(
        {
            "verdict": verdict,
            f"of {costly.sum()} that cost 1 point or more": _share(called[costly]),
            f"of {(~costly).sum()} that cost less": _share(called[~costly]),
        }
        for verdict, called in verdicts.items()
    )


def _cost(group: pd.DataFrame) -> dict[str, str]:
    points = 100.0 * group["error"]
    return {
        "points lost, median": f"{points.median():.2f}",
        "90th percentile": f"{points.quantile(0.9):.2f}",
    }


def _share(called: pd.Series) -> str:
    return f"{100.0 * called.mean():.0f} %"
