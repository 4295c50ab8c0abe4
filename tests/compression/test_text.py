"""Words and what is logged (`text`, `logged_compressions`)."""

import re

from torch import nn

from wwopt.compression.compression import compress
from wwopt.compression.logged_compressions import describe_compression
from wwopt.compression.plans import LayerPlan
from wwopt.compression.text import describe_plan, describe_recipe, format_compression


def test_the_table_says_what_was_done_and_what_broke(trained: nn.Module) -> None:
    found = compress(trained, bits=3, keep=["3"])
    text = format_compression(found, width=160)
    assert text.startswith(f"{found.bytes_before:,} bytes → {found.bytes:,}, {found.ratio:.2f} ")
    rows = {line.split()[0]: line for line in text.splitlines() if re.match(r"\d ", line)}
    assert "46,080 → 4,560" in rows["0"] and rows["0"].endswith("broken")
    assert rows["3"].endswith("unchanged")
    assert "It sees no data" in text
    assert re.search(r"^  0, 3 bits: .*; unbroken: \d bits$", text, re.MULTILINE)
    silent = format_compression(compress(trained, bits=3, limits=False), width=160)
    assert "unbroken:" not in silent
    assert "calls no layer broken" in format_compression(compress(trained, bits=8), width=160)


def test_plans_and_recipes_in_a_few_words(trained: nn.Module) -> None:
    plan = LayerPlan(bits=4, group=32, sparsity=0.5, rank=7)
    assert describe_plan(plan) == "4 bits in groups of 32, 50 % zeros, rank 7"
    assert describe_plan(None) == describe_plan(LayerPlan()) == "as it is"
    options = {"bits": 4.5, "sparsity": 0.5, "rank": 0.9, "by": "alpha", "clip": True}
    found = compress(trained, **options, limits=False)
    said = "90 % of energy, 50 % zeros by alpha, 4.5 bits by alpha, clipped"
    assert describe_recipe(found) == said
    found = compress(trained, rank="erg", limits=False)
    assert describe_recipe(found) == "rank erg"
    given = compress(trained, plans={"0": LayerPlan(bits=4)}, limits=False)
    assert describe_recipe(given) == "plans by layer"


def test_what_is_logged(trained: nn.Module) -> None:
    found = compress(trained, bits=4, sparsity=0.5, keep=["3"], limits=False)
    logged = describe_compression(found, file="x.safetensors")
    assert logged.name == "50 % zeros, 4 bits" and not logged.passed
    assert logged.metrics["bytes"] == found.bytes and 0 < logged.metrics["noise"] < 1
    assert logged.params["file"] == "x.safetensors" and logged.params["keep"] == "3"
    assert len(logged.note) < 8000 and len(logged.layers) == 3
