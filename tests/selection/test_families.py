"""Which candidates are of one family: real architectures by their layers' names and shapes.

Names and shapes are those of torchvision's and Hugging Face's models, written down as rules.
"""

import math
from collections.abc import Iterable, Mapping
from zlib import crc32

import pandas as pd
import pytest
import torch
from torch import nn

import wwopt
from wwopt.metrics.model_metrics import ModelMetrics
from wwopt.selection.candidates import Candidate, read_candidate
from wwopt.selection.families import ALONE, SAME, SIZES, Family, find_families, role

Layer = tuple[str, int, int, int]  # name, rows, columns, kernel positions (0: dense, -1: embedding)


def resnet(blocks: Iterable[int], *, bottleneck: bool, width: int = 64, classes: int = 1000):
    layers: list[Layer] = [("conv1", 64, 3, 49)]
    fan_in, expansion = 64, 4 if bottleneck else 1
    for stage, count in enumerate(blocks, start=1):
        inner, out = width * 2 ** (stage - 1), 64 * 2 ** (stage - 1) * expansion
        for block in range(count):
            name = f"layer{stage}.{block}"
            sizes = [(inner, fan_in, 1), (inner, inner, 9), (out, inner, 1)]
            sizes = sizes if bottleneck else [(out, fan_in, 9), (out, out, 9)]
            layers += [(f"{name}.conv{i}", *size) for i, size in enumerate(sizes, start=1)]
            if block == 0 and fan_in != out:
                layers.append((f"{name}.downsample.0", out, fan_in, 1))
            fan_in = out
    return [*layers, ("fc", classes, fan_in, 0)]


VGG = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512",
}


def vgg(depth: int, *, norm: bool) -> list[Layer]:
    layers: list[Layer] = []
    place, fan_in = 0, 3
    for word in VGG[depth].split():
        if word == "M":
            place += 1
            continue
        layers.append((f"features.{place}", int(word), fan_in, 9))
        place, fan_in = place + (3 if norm else 2), int(word)
    head = [(4096, 25088), (4096, 4096), (1000, 4096)]
    return layers + [(f"classifier.{3 * i}", *size, 0) for i, size in enumerate(head)]


ALEXNET: list[Layer] = [
    ("features.0", 64, 3, 121),
    ("features.3", 192, 64, 25),
    ("features.6", 384, 192, 9),
    ("features.8", 256, 384, 9),
    ("features.10", 256, 256, 9),
    ("classifier.1", 4096, 9216, 0),
    ("classifier.4", 4096, 4096, 0),
    ("classifier.6", 1000, 4096, 0),
]


def densenet(blocks: Iterable[int], growth: int) -> list[Layer]:
    layers: list[Layer] = [("features.conv0", 2 * growth, 3, 49)]
    width = 2 * growth
    for stage, count in enumerate(blocks, start=1):
        for i in range(1, count + 1):
            name = f"features.denseblock{stage}.denselayer{i}"
            layers += [(f"{name}.conv1", 4 * growth, width, 1), (f"{name}.conv2", growth, 128, 9)]
            width += growth
        if stage < 4:
            layers.append((f"features.transition{stage}.conv", width // 2, width, 1))
            width //= 2
    return [*layers, ("classifier", 1000, width, 0)]


def gpt2(depth: int, width: int, *, prefix: str = "transformer.") -> list[Layer]:
    layers: list[Layer] = [("wte", 50257, width, -1), ("wpe", 1024, width, -1)]
    for i in range(depth):
        layers += [(f"h.{i}.attn.c_attn.{part}", width, width, 0) for part in "qkv"]
        layers += [
            (f"h.{i}.attn.c_proj", width, width, 0),
            (f"h.{i}.mlp.c_fc", 4 * width, width, 0),
            (f"h.{i}.mlp.c_proj", width, 4 * width, 0),
        ]
    return [(prefix + name, *size) for name, *size in layers]


def bert(depth: int, width: int, *, vocabulary: int = 30522, head: bool = False) -> list[Layer]:
    layers: list[Layer] = [
        (f"embeddings.{what}_embeddings", rows, width, -1)
        for what, rows in (("word", vocabulary), ("position", 512), ("token_type", 2))
    ]
    for i in range(depth):
        at = f"encoder.layer.{i}"
        layers += [(f"{at}.attention.self.{p}", width, width, 0) for p in ("query", "key", "value")]
        layers += [
            (f"{at}.attention.output.dense", width, width, 0),
            (f"{at}.intermediate.dense", 4 * width, width, 0),
            (f"{at}.output.dense", width, 4 * width, 0),
        ]
    if not head:
        return [*layers, ("pooler.dense", width, width, 0)]
    prefixed = [(f"bert.{name}", *size) for name, *size in layers]
    return [*prefixed, ("cls.predictions.transform.dense", width, width, 0)]


def mlp(*widths: int, name: str = "fc{}") -> list[Layer]:
    sizes = zip(widths[1:], widths[:-1], strict=True)
    return [(name.format(i), *size, 0) for i, size in enumerate(sizes, start=1)]


def table_of(layers: Iterable[Layer], *, shapes: bool = True, kinds: bool = True) -> ModelMetrics:
    """A layer table as WeightWatcher writes it: names, and no word of norm layers."""
    kind = {0: "dense", -1: "embedding"}
    rows = [
        {
            "longname": name,
            "layer_type": kind.get(positions, "conv2d"),
            "N": max(rows, columns),
            "M": min(rows, columns),
            "rf": max(positions, 1),
            "alpha": 3.0,
            "alpha_weighted": 2.0,
        }
        for name, rows, columns, positions in layers
    ]
    frame = pd.DataFrame(rows)
    frame = frame if shapes else frame.drop(columns=["N", "M", "rf"])
    return ModelMetrics.from_frame(frame if kinds else frame.drop(columns="layer_type"))


def candidate_of(name: str, metrics: ModelMetrics, **known: str) -> Candidate:
    return Candidate(name=name, metrics=metrics, parameters=1.0, coverage=math.nan, **known)


def families_of(
    tables: Mapping[str, list[Layer]], *, labels: Mapping[str, str] | None = None, **options: bool
) -> tuple[tuple[Family, ...], tuple[str, ...]]:
    candidates = [candidate_of(name, table_of(t, **options)) for name, t in tables.items()]
    return find_families(candidates, labels or {})


RESNETS = {
    "resnet18": resnet([2, 2, 2, 2], bottleneck=False),
    "resnet34": resnet([3, 4, 6, 3], bottleneck=False),
    "resnet50": resnet([3, 4, 6, 3], bottleneck=True),
    "resnet101": resnet([3, 4, 23, 3], bottleneck=True),
    "resnet152": resnet([3, 8, 36, 3], bottleneck=True),
}
VGGS = {f"vgg{depth}": vgg(depth, norm=False) for depth in VGG}
VGGS_BN = {f"vgg{depth}_bn": vgg(depth, norm=True) for depth in VGG}
DENSENETS = {
    "densenet121": densenet([6, 12, 24, 16], 32),
    "densenet161": densenet([6, 12, 36, 24], 48),
    "densenet201": densenet([6, 12, 48, 32], 32),
}
GPT2S = {
    "gpt2": gpt2(12, 768),
    "gpt2-medium": gpt2(24, 1024),
    "gpt2-large": gpt2(36, 1280),
    "gpt2-xl": gpt2(48, 1600),
}
BERTS = {"minilm": bert(6, 384), "bert-base": bert(12, 768), "bert-large": bert(24, 1024)}
MLPS = {"narrow": mlp(784, 256, 256, 10), "wide": mlp(784, 512, 512, 10), "deep": mlp(784, 9, 9, 9)}
FAMILIES = {
    "resnet": RESNETS,
    "vgg": VGGS,
    "vgg_bn": VGGS_BN,
    "densenet": DENSENETS,
    "gpt2": GPT2S,
    "bert": BERTS,
    "mlp": MLPS,
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kinds", [True, False])
def test_sizes_of_one_architecture_are_one_family(name: str, kinds: bool) -> None:
    (family,), splits = families_of(FAMILIES[name], kinds=kinds)
    assert family.question == SIZES
    assert family.members == tuple(FAMILIES[name])
    assert splits == ()


@pytest.mark.parametrize(("shapes", "kinds"), [(True, True), (True, False), (False, True)])
def test_all_of_them_together_fall_into_these_families(shapes: bool, kinds: bool) -> None:
    tables = {name: table for family in FAMILIES.values() for name, table in family.items()}
    mixed = dict(sorted(tables.items(), key=lambda item: crc32(item[0].encode())))
    families, splits = families_of(mixed, shapes=shapes, kinds=kinds)
    found = {frozenset(family.members) for family in families}
    assert found == {frozenset(family) for family in FAMILIES.values()}
    assert len({family.label for family in families}) == len(families)
    assert len(splits) == len(families) - 1


def test_equal_shapes_among_several_sizes_are_pointed_out() -> None:
    small, large = bert(6, 384), bert(12, 768)
    (family,), _ = families_of({"a": small, "b": large, "c": small})
    assert family.question == SIZES
    assert "equal shapes are better ranked by themselves" in family.reason
    (family,), _ = families_of({"a": small, "b": large})
    assert "equal shapes" not in family.reason


def test_alexnet_is_no_vgg() -> None:
    families, (reason,) = families_of({**VGGS, "alexnet": ALEXNET})
    assert [len(family.members) for family in families] == [4, 1]
    assert families[1].question == ALONE
    assert "steps" in reason or "kernel" in reason


def test_vgg_with_batch_norm_is_told_by_the_numbering_of_its_table() -> None:
    families, (reason,) = families_of(VGGS | VGGS_BN)
    assert [family.members for family in families] == [tuple(VGGS), tuple(VGGS_BN)]
    assert "steps of 2 and 3" in reason and "batch norm" in reason


def convolutions(*, norm: bool, width: int = 64) -> nn.Sequential:
    norms = [nn.BatchNorm2d(width)] if norm else [nn.Identity()]
    return nn.Sequential(nn.Conv2d(32, width, 3), *norms, nn.ReLU(), nn.Conv2d(width, width, 3))


def test_batch_norm_in_one_and_not_in_the_other_is_two_families() -> None:
    """From modules and from state dicts, where the layers' names and shapes are the same."""
    for read in (lambda model: model, lambda model: model.state_dict()):
        sources = {
            "plain": read(convolutions(norm=False)),
            "normed": read(convolutions(norm=True)),
            "wide": read(convolutions(norm=True, width=96)),
        }
        candidates = [read_candidate(name, source) for name, source in sources.items()]
        families, (reason,) = find_families(candidates, {})
        assert [family.members for family in families] == [("plain",), ("normed", "wide")]
        assert reason == "normed has batch norm, plain has not, which alone shifts alpha"


def test_the_same_names_and_shapes_are_one_architecture() -> None:
    (family,), _ = families_of({"a": bert(6, 384), "b": bert(6, 384)})
    assert family.question == SAME
    assert family.shared == counted(bert(6, 384))


def counted(layers: Iterable[Layer]) -> set[str]:
    """Names of the layers that have 50 eigenvalues; an embedding of two tokens has not."""
    return {name for name, rows, columns, _ in layers if min(rows, columns) >= 50}


def test_wrappers_do_not_make_another_architecture() -> None:
    wrapped = [(f"module.{name}", *size) for name, *size in bert(6, 384)]
    (family,), _ = families_of({"a": bert(6, 384), "b": wrapped})
    assert family.question == SAME


def test_a_head_around_a_model_does_not_make_another_architecture() -> None:
    plain = bert(12, 384)
    headed = [(f"bert.{name}", *size) for name, *size in plain[:-1]]  # no pooler
    for tables in ({"a": plain, "b": headed}, {"b": headed, "a": plain, "c": plain}):
        (family,), _ = families_of(tables)
        assert family.question == SAME
        assert family.prefixes["b"] == "bert." and family.prefixes["a"] == ""
        assert family.shared == counted(plain[:-1])
        assert family.own_name("b", "module.bert.encoder.layer.3.output.dense") in family.shared


def test_another_vocabulary_or_head_leaves_the_layers_in_common() -> None:
    longer = bert(6, 384, vocabulary=30524)
    (family,), _ = families_of({"a": bert(6, 384), "b": longer})
    assert family.question == SAME
    assert "embeddings.word_embeddings" not in family.shared
    assert len(family.shared) == len(counted(bert(6, 384))) - 1
    assert "embeddings.word_embeddings" in family.reason and "same task" in family.reason


def test_a_model_with_its_language_head_is_of_the_family() -> None:
    (family,), _ = families_of({"base": bert(6, 384), "large": bert(12, 768, head=True)})
    assert family.question == SIZES


def test_an_mlp_and_a_cnn_of_numbered_layers_are_different() -> None:
    cnn: list[Layer] = [("0", 64, 32, 9), ("3", 128, 64, 9), ("7", 128, 1024, 0)]
    families, (reason,) = families_of({"mlp": mlp(784, 256, 128, name="{}"), "cnn": cnn})
    assert len(families) == 2
    assert "different names or kinds" in reason


def test_configurations_tell_models_of_the_same_names_apart() -> None:
    first = candidate_of("a", table_of(bert(6, 384)), model_type="bert")
    second = candidate_of("b", table_of(bert(6, 384)), model_type="roberta")
    families, (reason,) = find_families([first, second], {})
    assert [family.label for family in families] == ["bert", "roberta"]
    assert reason == "a is a bert, b a roberta"


def test_labels_of_the_same_model_type_stay_apart() -> None:
    plain, other = table_of(vgg(11, norm=False)), table_of(vgg(11, norm=True))
    first = candidate_of("a", plain, model_type="vgg")
    second = candidate_of("b", other, model_type="vgg")
    families, _ = find_families([first, second], {})
    assert len({family.label for family in families}) == 2


def test_tables_without_names_claim_no_family() -> None:
    frames = [
        pd.DataFrame({"layer_id": [1, 2], "N": [n, 300], "M": [100, 200], "alpha": [2.0, 3.0]})
        for n in (100, 100, 400)
    ]
    candidates = [
        candidate_of(name, ModelMetrics.from_frame(frame))
        for name, frame in zip("abc", frames, strict=True)
    ]
    families, (reason,) = find_families(candidates, {})
    # The first two have the same shapes throughout, which is an architecture if anything is.
    assert [family.members for family in families] == [("a", "b"), ("c",)]
    assert "does not name its layers" in reason
    (forced,), _ = find_families(candidates, dict.fromkeys("abc", "mine"))
    assert forced.members == ("a", "b", "c") and forced.label == "mine"


def test_labels_force_what_would_not_be_one_and_part_what_would() -> None:
    tables = {"vgg11": VGGS["vgg11"], "resnet18": RESNETS["resnet18"], "vgg13": VGGS["vgg13"]}
    (forced,), _ = families_of(tables, labels=dict.fromkeys(tables, "all"))
    assert forced.question == SIZES
    assert "forced by its label" in forced.reason
    parted, _ = families_of(tables, labels={"vgg11": "mine"})
    assert [family.members for family in parted] == [("vgg11",), ("resnet18",), ("vgg13",)]


def test_a_pooled_module_and_its_state_dict_are_one_architecture() -> None:
    torch.manual_seed(0)
    model = convolutions(norm=True)
    candidates = [
        candidate_of("module", wwopt.analyze(model)),
        candidate_of("state", wwopt.analyze(model.state_dict())),
    ]
    (family,), _ = find_families(candidates, {})
    assert family.question == SAME


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layer1.0.conv1", "layer#.#.conv#"),
        ("transformer.h.11.attn.c_attn.q", "transformer.h.#.attn.c_attn.q"),
        ("fc", "fc"),
    ],
)
def test_roles(name: str, expected: str) -> None:
    assert role(name) == expected
