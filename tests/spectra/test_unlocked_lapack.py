"""Called without Python's lock, scipy's functions give what its wrappers give, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.linalg import blas, cython_blas, cython_lapack, lapack

from wwopt.spectra import unlocked_lapack

RNG = np.random.default_rng(0)
TYPES = [("s", np.float32), ("d", np.float64)]


@pytest.mark.parametrize(("letter", "number"), TYPES)
@pytest.mark.parametrize("trans", [False, True])
def test_a_product_is_added_in_place(letter: str, number: Any, trans: bool) -> None:
    a = np.asfortranarray(RNG.standard_normal((70, 90)).astype(number))
    side = a.shape[1] if trans else a.shape[0]
    ours, theirs = (np.ones((side, side), number, order="F") for _ in range(2))
    options: dict[str, Any] = {"trans": trans, "beta": 1.0, "lower": 1, "overwrite_c": 1}
    getattr(unlocked_lapack, f"{letter}syrk")(1.0, a, c=ours, **options)
    getattr(blas, f"{letter}syrk")(1.0, a, c=theirs, **options)
    np.testing.assert_array_equal(ours, theirs)
    full = a.T @ a if trans else a @ a.T
    tolerance = 1e-4 if letter == "s" else 1e-10
    np.testing.assert_allclose(np.tril(ours), np.tril(full + 1.0), atol=tolerance)


@pytest.mark.parametrize(("letter", "number"), TYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_symmetric_matrix_is_reduced(letter: str, number: Any, order: Any) -> None:
    half = RNG.standard_normal((80, 100))
    gram = np.array(half @ half.T, number, order=order)
    kept = gram.copy()
    options: dict[str, Any] = {"lower": 1, "lwork": 16 * 80, "overwrite_a": 0}
    ours = getattr(unlocked_lapack, f"{letter}sytrd")(gram, **options)
    theirs = getattr(lapack, f"{letter}sytrd")(gram, **options)
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(gram, kept)


def test_eigenvalues_of_a_tridiagonal_matrix_and_its_arguments_stay() -> None:
    diagonal, beside = RNG.standard_normal(50), RNG.standard_normal(49)
    kept = diagonal.copy(), beside.copy()
    values, info = unlocked_lapack.dsterf(diagonal, beside)
    expected, _ = lapack.dsterf(diagonal, beside)
    assert info == 0
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(diagonal, kept[0])
    np.testing.assert_array_equal(beside, kept[1])


def test_a_product_with_a_vector() -> None:
    half = RNG.standard_normal((60, 60)).astype(np.float32)
    matrix, vector = np.asfortranarray(half + half.T), half[0]
    np.testing.assert_array_equal(
        unlocked_lapack.ssymv(2.0, matrix, vector), blas.ssymv(2.0, matrix, vector)
    )


def test_none_of_them_is_scipys_wrapper_here() -> None:
    for name in ("dsyrk", "ssyrk", "dsytrd", "ssytrd", "dsterf", "ssymv"):
        assert type(getattr(unlocked_lapack, name)).__name__ == "function", name


def test_what_is_declared_otherwise_is_not_called() -> None:
    assert unlocked_lapack.find_function(cython_lapack, "dsterf", "iddi") is not None
    assert unlocked_lapack.find_function(cython_lapack, "dsterf", "lddl") is None
    assert unlocked_lapack.find_function(cython_blas, "dsyrk", "cciisiiisi") is None
    assert unlocked_lapack.find_function(cython_blas, "no such function", "i") is None
    assert unlocked_lapack.find_function(np, "dsterf", "iddi") is None


def test_wrappers_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlocked_lapack, "find_function", lambda *_: None)
    assert unlocked_lapack._make_syrk("dsyrk", np.float64, None) is blas.dsyrk
    assert unlocked_lapack._make_sytrd("ssytrd", np.float32) is lapack.ssytrd
    assert unlocked_lapack._make_sterf() is lapack.dsterf
    assert unlocked_lapack._make_symv() is blas.ssymv
