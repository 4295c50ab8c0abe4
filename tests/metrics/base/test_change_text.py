"""Two lines that say what a change was and where; then the layers that it changed."""

import re

import torch

from wwopt.metrics.base.base_comparison import compare_with_base
from wwopt.metrics.base.change_text import (
    describe_change,
    format_comparison,
    group_names,
    say_layer,
)

Weights = dict[str, torch.Tensor]


def base() -> Weights:
    generator = torch.Generator().manual_seed(0)
    names = [f"blocks.{i}.{part}.weight" for i in (0, 1) for part in ("query", "up")]
    return {name: 0.1 * torch.randn(72, 64, generator=generator) for name in names}


def adapted(rank: int = 3) -> Weights:
    generator = torch.Generator().manual_seed(1)

    def delta() -> torch.Tensor:
        a = torch.randn(rank, 64, generator=generator)
        return 0.02 * torch.randn(72, rank, generator=generator) @ a

    return {n: w + delta() if "query" in n else w for n, w in base().items()}


def say(after: Weights) -> list[str]:
    return describe_change(compare_with_base(after, base()).layers)


def test_a_merged_lora_is_said_with_its_place_and_its_rank() -> None:
    first, second = say(adapted())
    assert first == (
        "Change: low rank, as a merged LoRA, in 2 of 4 layers (blocks.*.query; rank 3 of 64); "
        "2 identical."
    )
    pattern = (
        r"Moved by 0\.\d+ to 0\.\d+ of their norm; leading directions overlap the base's by "
        r"0\.\d\d, \d+% of the change lies between them, \d+% beside them; \d+ intruders?\."
    )
    assert re.fullmatch(pattern, second)


def test_nothing_a_cast_and_another_network_are_said() -> None:
    assert say(base()) == [
        "Change: none, 4 weight matrices identical (biases and norms are not compared)."
    ]
    cast = say({n: w.bfloat16() for n, w in base().items()})
    assert cast[0] == "Change: cast to another dtype, in all layers (bfloat16)."
    both = say({n: w.bfloat16() for n, w in adapted().items()})
    assert "rank 3 of 64; then rounded to bfloat16" in both[0]
    other = say({n: w.flip(0).roll(7, 1) * 1.3 for n, w in base().items()})
    assert (
        "another network: 4 of 4 layers have nothing of the base. Are these two a pair?" in other[0]
    )
    scaled = say({n: 0.5 * w for n, w in base().items()})
    assert "scaled by a factor, in all layers (× 0.5)" in scaled[0]
    assert describe_change([]) == []


def test_the_table_holds_what_changed_and_what_could_not_be_compared() -> None:
    after = adapted() | {"head.weight": torch.ones(9, 9), "head.bias": torch.ones(9)}
    found = compare_with_base(after, base())
    text = format_comparison(found)
    rows = [line.split() for line in text.splitlines() if line.strip().startswith("blocks.")]
    assert [row[0] for row in rows] == ["blocks.0.query", "blocks.1.query"]
    assert rows[0][1:6] == ["72×64", "rank", "3", "of", "64"]
    assert text.endswith("Not compared: head (not in the base).")
    assert "balance" not in text  # of adapters alone
    assert [say_layer(layer) for layer in found.layers] == ["rank 3 of 64", "identical"] * 2


def test_names_are_grouped_by_what_they_share_but_their_numbers() -> None:
    names = ["blocks.0.q", "blocks.1.q", "head.3"]
    assert group_names(names) == ["blocks.*.q", "head.3"]
    assert group_names(["4", "11"]) == ["4", "11"]  # of a Sequential
