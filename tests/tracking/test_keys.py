"""Names become keys that MLflow accepts and that stay apart; passwords are shown nowhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param_name

from wwopt.tracking import (
    hide_password,
    hide_passwords,
    safe_key,
)


@given(st.text(max_size=600))
def test_every_name_becomes_one_that_mlflow_accepts(name: str) -> None:
    key = safe_key(name)
    _validate_metric_name(key)
    _validate_param_name(key)
    assert len(key) <= 250


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("alpha/encoder.layers.0.fc1", "alpha/encoder.layers.0.fc1"),
        ("lr/block[0](conv)", "lr/block_0__conv_"),
        ("lr/a/b/c", "lr/a.b.c"),
        ("lr/../../etc", "lr/etc"),
        ("lr/größe", "lr/größe"),
        ("lr/", "lr"),
    ],
)
def test_names_stay_readable(name: str, key: str) -> None:
    assert safe_key(name) == key


def test_two_long_names_stay_apart() -> None:
    first, second = (safe_key(f"alpha/{'x' * 300}{end}") for end in "ab")
    assert first != second


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cret@db/optuna",
        "https://me:s3cret@mlflow.example/path",
        "https://mlflow.example?token=s3cret",
        "postgresql://db/optuna?user=me&password=s3cret",
        "http://me:s3cret@[broken",
    ],
)
def test_passwords_are_hidden(url: str) -> None:
    assert "s3cret" not in hide_password(url)


def test_passwords_in_a_text_are_hidden() -> None:
    text = "OperationalError: (postgresql+psycopg://me:s3cret@db/x) and https://u:s3cret@h are down"
    assert hide_passwords(text) == text.replace("s3cret", "***")
    assert hide_passwords("at 12:30 me@example.org wrote") == "at 12:30 me@example.org wrote"
