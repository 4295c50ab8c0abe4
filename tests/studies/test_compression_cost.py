"""What compressing costs: one network of digits by a few settings, and the table of it."""

from pathlib import Path

import pandas as pd
import pytest

import compression_cost
from compression_cost import SETTINGS, find_networks, measure, summarize
from harness.damage import NETWORKS, load_data


@pytest.mark.slow
def test_a_network_is_kept_and_measured_by_each_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ("8 bits", "3 bits, clipped", "50 % zeros by alpha")
    monkeypatch.setattr(compression_cost, "SETTINGS", {name: SETTINGS[name] for name in chosen})
    monkeypatch.setattr(
        compression_cost, "NETWORKS", {"digits-mlp-128": NETWORKS["digits-mlp-128"]}
    )
    data = {"digits": load_data(None)["digits"]}
    ((name, model),) = find_networks(data, 1, tmp_path)
    ((_, again),) = find_networks(data, 1, tmp_path)
    assert all((a == b).all() for a, b in zip(model.parameters(), again.parameters(), strict=True))
    rows = measure(name, model, data)
    table = summarize(pd.DataFrame(rows))
    assert list(table.index) == list(chosen)
    assert abs(rows[0]["lost"]) < 1.0 and rows[0]["broken"] == 0
    assert rows[1]["broken"] > 0
