"""Who is made of whom: planted fine-tunes are kin, networks of other seeds are not."""

import math

import pytest
import torch

import wwopt
from wwopt.selection.kinship import compare_directions, find_kin, read_directions
from wwopt.selection.text import format_ranking
from wwopt.weights.matrices import read_weights

Weights = dict[str, torch.Tensor]


def network(seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weights = {
        f"{i}.weight": 0.1 * draw(96, 96) + 0.1 * draw(96, 8) @ draw(8, 96) for i in range(4)
    }
    return weights | {"head.weight": draw(10, 96)}


def tuned(weights: Weights, seed: int, size: float = 0.1) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {n: w + size * torch.randn(w.shape, generator=generator) for n, w in weights.items()}


def directions_of(**candidates: Weights) -> dict[str, object]:
    return {name: read_directions(read_weights(w)) for name, w in candidates.items()}


def test_fine_tunes_of_one_base_are_kin_and_another_seed_is_not() -> None:
    base = network(0)
    found = find_kin(directions_of(a=tuned(base, 1), other=network(5), b=tuned(base, 2), base=base))
    assert [kin.names for kin in found] == [("a", "b", "base")]
    assert 0.5 < found[0].overlap <= 1.0
    assert found[0].layers == ("0", "2", "3")  # first, middle, last of those that are large enough


def test_kin_of_kin_are_kin_and_families_stay_apart() -> None:
    one, two = network(0), network(5)
    found = find_kin(
        directions_of(a=tuned(one, 1), b=tuned(two, 2), c=tuned(one, 3), d=tuned(two, 4))
    )
    assert sorted(kin.names for kin in found) == [("a", "c"), ("b", "d")]


def test_data_that_all_networks_share_on_one_side_make_no_kin() -> None:
    """The pixels of a first layer: right vectors are the same, left ones are drawn."""
    shared = torch.linalg.qr(torch.randn(96, 8, generator=torch.Generator().manual_seed(9))).Q
    sides = [
        torch.randn(96, 8, generator=torch.Generator().manual_seed(seed)) @ shared.T
        for seed in (1, 2)
    ]
    found = directions_of(a={"0.weight": sides[0]}, b={"0.weight": sides[1]})
    overlap, layers, limit = compare_directions(found["a"], found["b"])
    assert layers == ("0",) and overlap < limit
    assert not find_kin(found)


def test_where_no_layer_is_shared_nothing_is_said() -> None:
    found = directions_of(
        a=network(0), b={"x.weight": torch.randn(50, 40)}, c={"s.weight": torch.eye(9)}
    )
    overlap, layers, _ = compare_directions(found["a"], found["b"])
    assert math.isnan(overlap) and layers == ()
    assert found["c"] == {} and not find_kin(found)


def test_wrappers_and_the_order_of_a_file_do_not_matter() -> None:
    base = network(0)
    wrapped = {f"module.{name}": w for name, w in reversed(base.items())}
    assert find_kin(directions_of(a=base, b=wrapped))[0].overlap == pytest.approx(1.0)


def test_a_ranking_warns_of_kin_and_says_by_what_evidence() -> None:
    base = network(0)
    candidates = {"a": tuned(base, 1), "b": tuned(base, 2), "other": network(5)}
    ranking = wwopt.rank(candidates, shuffles=0)
    (family,) = ranking.families
    assert [kin.names for kin in family.kin] == [("a", "b")]
    assert any("share their leading singular vectors" in w for w in ranking["a"].warnings)
    assert not any("singular vectors" in w for w in ranking["other"].warnings)
    text = format_ranking(ranking)
    assert text.count("share their leading singular vectors (overlap ") == 1
    assert "which no spectrum orders" in text
    document = ranking.to_dict()["families"][0]["kin"]
    assert document[0]["names"] == ["a", "b"] and document[0]["layers"] == ["0", "2", "3"]
    alone = wwopt.rank({"a": candidates["a"], "other": candidates["other"]}, shuffles=0)
    assert alone.families[0].kin == () and "singular" not in format_ranking(alone)
