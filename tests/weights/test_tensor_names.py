"""Names are compared without what wrappers put into them, and ordered by their numbers."""

import pytest

from wwopt.weights.tensor_names import bare_name, match_names, natural_key


def test_numbers_in_names_count_as_numbers() -> None:
    ordered = ["a", "a.2.b", "a.10", "a.10.c", "b1", "b" + "9" * 5000]
    assert sorted(reversed(ordered), key=natural_key) == ordered


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("module._orig_mod.model.fc.weight", "fc.weight"),
        ("base_model.model.fc.weight", "fc.weight"),
        ("h.0._fsdp_wrapped_module.fc", "h.0.fc"),
        ("h._checkpoint_wrapped_module._orig_mod.fc", "h.fc"),
        ("encoder.model.fc", "encoder.model.fc"),  # in the middle it may be anybody's
        ("submodule.fc", "submodule.fc"),
    ],
)
def test_what_wrappers_put_into_a_name_is_left_out(name: str, bare: str) -> None:
    assert bare_name(name) == bare


@pytest.mark.parametrize(
    ("names", "others", "pairs"),
    [
        (["a", "b"], ["b", "c"], {"b": "b"}),
        (["module.a"], ["model.a"], {"module.a": "model.a"}),
        (["a", "module.a"], ["a"], {"a": "a"}),
        (["model.a", "module.a"], ["a", "b"], {}),  # which of the two is not known
        (["bert.a", "bert.b", "head"], ["a", "b"], {"bert.a": "a", "bert.b": "b"}),
        (["a", "b"], ["bert.a", "bert.b"], {"a": "bert.a", "b": "bert.b"}),
        (["x.a"], ["a", "b"], {}),  # half of them in there may be a coincidence
    ],
)
def test_names_are_paired_where_no_other_could_be_meant(
    names: list[str], others: list[str], pairs: dict[str, str]
) -> None:
    assert match_names(names, others) == pairs
