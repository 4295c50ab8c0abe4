"""What is said in one way everywhere, and how little of an error can be said."""

import math

import pytest

from wwopt.wording import count, first_line, number, plus_minus, shorten, write_names


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [(2.456, ".2f", "2.46"), (3, ".0f", "3"), (None, ".2f", "–"), (math.nan, ".3g", "–")],
)
def test_numbers_that_are_not_known_are_a_dash(value: float | None, form: str, said: str) -> None:
    assert number(value, form) == said


def test_a_text_is_no_number_and_said_as_it_is() -> None:
    assert number("adam", ".2f") == "adam"


def test_an_error_is_said_where_it_is_known() -> None:
    assert plus_minus(2.456, 0.164) == "2.46 ± 0.16"
    assert plus_minus(2.456, math.nan) == plus_minus(2.456, None) == "2.46"
    assert plus_minus(None, None) == "–"


def test_names_are_listed_and_the_rest_counted() -> None:
    assert write_names(["a", "b"], 2) == "a, b"
    assert write_names(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert write_names([]) == ""
    assert (count(1, "trial"), count(0, "trial"), count(3, "layer")) == (
        "1 trial",
        "0 trials",
        "3 layers",
    )


def test_a_long_name_loses_its_middle_and_keeps_the_length_asked_for() -> None:
    assert shorten("encoder.layer.0.output", 100) == "encoder.layer.0.output"
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert len(shorten("x" * 100)) == 44


@pytest.mark.parametrize(
    ("error", "plain", "named"),
    [
        (ValueError("no layer\nand a page"), "no layer", "ValueError: no layer"),
        (ValueError("\n\n  what\n"), "what", "ValueError: what"),
        (OSError(), "OSError", "OSError"),
        (ValueError("\n \n"), "ValueError", "ValueError"),
    ],
)
def test_an_error_without_words_is_called_by_its_type(
    error: Exception, plain: str, named: str
) -> None:
    assert first_line(error) == plain
    assert first_line(error, named=True) == named


def test_a_page_is_cut() -> None:
    assert len(first_line(ValueError("x" * 1000))) == 300
