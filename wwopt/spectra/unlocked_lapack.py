"""BLAS and LAPACK of scipy, called without Python's lock: layers are measured side by side.

scipy's own wrappers (`scipy.linalg.blas`, `scipy.linalg.lapack`) hold the lock while they compute,
which is two fifths of a layer's time. The same functions, of the same library, stand in
`scipy.linalg.cython_lapack` for compiled code; ctypes calls them and lets go of the lock. The
numbers are the wrappers' to the last bit. Where scipy declares a function otherwise than it is
called here (integers of 64 bits, say), the wrapper stands in.

Functions take and return what the wrappers of their names do, as far as it is used here.
"""

import ctypes
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, cython_blas, cython_lapack, lapack

_get_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
    ("PyCapsule_GetName", ctypes.pythonapi)
)
_get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def find_function(module: ModuleType, name: str, arguments: str) -> Callable[..., None] | None:
    """A Fortran function that lets go of Python's lock; None where it is not as expected.

    Args:
        module: `cython_blas` or `cython_lapack`.
        name: of the function.
        arguments: a letter for what each points to: c char, i int, s float, d double.
    """
    capsule = getattr(module, "__pyx_capi__", {}).get(name)
    if capsule is None:
        return None
    declared = _get_name(capsule)
    letters = {"char": "c", "int": "i", "float": "s", "double": "d"}
    found = re.findall(r"(\w+) \*", declared.decode())
    if "".join(letters.get(kind, kind[-1]) for kind in found) != arguments:
        return None
    pointers = [ctypes.c_void_p] * len(arguments)
    return ctypes.CFUNCTYPE(None, *pointers)(_get_pointer(capsule, declared))


def _int(value: int) -> Any:
    return ctypes.byref(ctypes.c_int(value))


def _letter(value: bytes) -> Any:
    return ctypes.byref(ctypes.c_char(value))


def _writable(matrix: NDArray[Any], number: Any, *, kept: bool) -> NDArray[Any]:
    """Columns first, as Fortran reads and writes it; a copy if it must be kept, or is otherwise."""
    if kept:
        return np.array(matrix, number, order="F")
    return np.require(matrix, number, ["F", "W"])


def _make_syrk(name: str, number: Any, real: Any) -> Callable[..., Any]:
    function = find_function(cython_blas, name, f"ccii{name[0] * 2}i{name[0] * 2}i")
    if function is None:
        return cast("Callable[..., Any]", getattr(blas, name))

    def syrk(
        alpha: float,
        a: NDArray[Any],
        *,
        trans: bool,
        beta: float,
        c: NDArray[Any],
        lower: int,
        overwrite_c: int,
    ) -> NDArray[Any]:
        a = np.require(a, number, "F")
        c = _writable(c, number, kept=not overwrite_c)
        side, depth = a.shape[::-1] if trans else a.shape
        function(
            _letter(b"L" if lower else b"U"),
            _letter(b"T" if trans else b"N"),
            _int(side),
            _int(depth),
            ctypes.byref(real(alpha)),
            a.ctypes.data,
            _int(a.shape[0]),
            ctypes.byref(real(beta)),
            c.ctypes.data,
            _int(side),
        )
        return c

    return syrk


def _make_sytrd(name: str, number: Any) -> Callable[..., Any]:
    function = find_function(cython_lapack, name, f"ci{name[0]}i{name[0] * 4}ii")
    if function is None:
        return cast("Callable[..., Any]", getattr(lapack, name))

    def sytrd(a: NDArray[Any], *, lower: int, lwork: int, overwrite_a: int) -> tuple[Any, ...]:
        a = _writable(a, number, kept=not overwrite_a)
        side = a.shape[0]
        diagonal, work = np.empty(side, number), np.empty(lwork, number)
        beside, scalars = np.empty(side - 1, number), np.empty(side - 1, number)
        info = ctypes.c_int(0)
        function(
            _letter(b"L" if lower else b"U"),
            _int(side),
            a.ctypes.data,
            _int(side),
            diagonal.ctypes.data,
            beside.ctypes.data,
            scalars.ctypes.data,
            work.ctypes.data,
            _int(lwork),
            ctypes.byref(info),
        )
        return a, diagonal, beside, scalars, info.value

    return sytrd


def _make_sterf() -> Callable[..., Any]:
    function = find_function(cython_lapack, "dsterf", "iddi")
    if function is None:
        return cast("Callable[..., Any]", lapack.dsterf)

    def sterf(d: NDArray[Any], e: NDArray[Any]) -> tuple[NDArray[np.float64], int]:
        values, beside = np.array(d, np.float64), np.array(e, np.float64)  # it overwrites both
        info = ctypes.c_int(0)
        function(_int(values.size), values.ctypes.data, beside.ctypes.data, ctypes.byref(info))
        return values, info.value

    return sterf


def _make_symv() -> Callable[..., Any]:
    function = find_function(cython_blas, "ssymv", "cissisissi")
    if function is None:
        return cast("Callable[..., Any]", blas.ssymv)

    def symv(alpha: float, a: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
        a, x = np.require(a, np.float32, "F"), np.require(x, np.float32, "C")
        product = np.zeros(x.size, np.float32)
        function(
            _letter(b"U"),
            _int(x.size),
            ctypes.byref(ctypes.c_float(alpha)),
            a.ctypes.data,
            _int(a.shape[0]),
            x.ctypes.data,
            _int(1),
            ctypes.byref(ctypes.c_float(0.0)),
            product.ctypes.data,
            _int(1),
        )
        return product

    return symv


dsyrk = _make_syrk("dsyrk", np.float64, ctypes.c_double)
ssyrk = _make_syrk("ssyrk", np.float32, ctypes.c_float)
dsytrd = _make_sytrd("dsytrd", np.float64)
ssytrd = _make_sytrd("ssytrd", np.float32)
dsterf = _make_sterf()
ssymv = _make_symv()
