"""NumPy's BLAS: how many threads it uses (one while our own multiply, as before afterwards), and
the sum of two multiples of vectors, which NumPy itself has not.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class _Library:
    """The BLAS that NumPy's wheel brings, or any other through threadpoolctl, or none at all."""

    def __init__(self) -> None:
        self._direct = _bundled()
        self._controller: Any = None
        if self._direct is None:
            try:
                from threadpoolctl import ThreadpoolController
            except ImportError:  # BLAS keeps its threads: slower, not wrong
                return
            self._controller = ThreadpoolController().select(user_api="blas")

    def get(self) -> int | None:
        """The number of threads; None where nothing can be asked."""
        if self._direct is not None:
            return int(self._direct.scipy_openblas_get_num_threads64_())
        if self._controller is not None and self._controller.lib_controllers:
            return int(max(lib.num_threads for lib in self._controller.lib_controllers))
        return None

    def set(self, threads: int) -> None:
        if self._direct is not None:
            self._direct.scipy_openblas_set_num_threads64_(threads)
        elif self._controller is not None:
            for lib in self._controller.lib_controllers:
                lib.set_num_threads(threads)


    def axpby(self, dtype: np.dtype[Any]) -> Any:
        """The function that computes y = a x + b y for this dtype, if there is one."""
        if self._direct is None or dtype.char not in "fd":
            return None
        import ctypes

        letter, number = ("s", ctypes.c_float) if dtype.char == "f" else ("d", ctypes.c_double)
        function = getattr(self._direct, f"scipy_cblas_{letter}axpby64_", None)
        if function is not None:
            count, array = ctypes.c_int64, ctypes.c_void_p
            function.argtypes = [count, number, array, count, number, array, count]
            function.restype = None
        return function

    def gemm(self, dtype: np.dtype[Any]) -> int:
        """The address of CBLAS's product of matrices with 64-bit sizes; 0 if there is none."""
        if self._direct is None or dtype.char not in "fd":
            return 0
        import ctypes

        function = getattr(self._direct, f"scipy_cblas_{'sd'[dtype.char == 'd']}gemm64_", None)
        return ctypes.cast(function, ctypes.c_void_p).value or 0 if function is not None else 0


def _bundled() -> Any:
    """OpenBLAS in NumPy's wheel, whose calls take no microsecond; threadpoolctl takes many."""
    import ctypes  # not above: a process that has just started may not need it

    package = os.path.dirname(np.__file__)
    for folder in (os.path.join(os.path.dirname(package), "numpy.libs"),
                   os.path.join(package, ".dylibs")):
        if os.path.isdir(folder):
            for name in os.listdir(folder):
                if "openblas" in name:
                    library = ctypes.CDLL(os.path.join(folder, name))
                    if hasattr(library, "scipy_openblas_set_num_threads64_"):
                        return library
    return None


_lock = threading.RLock()
_library: _Library | None = None
_regions = 0  # of all threads
_before: int | None = None  # what to restore when the last region ends


def _found() -> _Library:
    global _library
    if _library is None:
        with _lock:
            if _library is None:
                _library = _Library()
    return _library


def set_num_threads(threads: int) -> None:
    """Let BLAS use this many threads, at once or when the last region of one thread ends."""
    global _before
    library = _found()
    with _lock:
        if _regions:
            _before = threads
        else:
            library.set(threads)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block, of any thread, products are computed by the thread that asks for them."""
    global _regions, _before
    library = _found()
    with _lock:
        if not _regions:
            _before = library.get()
            library.set(1)
        _regions += 1
    try:
        yield
    finally:
        with _lock:
            _regions -= 1
            if not _regions and _before is not None:
                library.set(_before)


# Elements from which the call into BLAS pays for itself: one pass over memory instead of three.
_WORTH = 1 << 15


def axpby(a: float, x: np.ndarray[Any, Any], b: float, y: np.ndarray[Any, Any]) -> bool:
    """y = a x + b y, if this BLAS can and the arrays are large; whether it was done."""
    if x.size < _WORTH or x.dtype != y.dtype:
        return False
    if not (x.flags.c_contiguous and y.flags.c_contiguous):
        return False
    function = _axpby(x.dtype)
    if function is None:
        return False
    function(x.size, a, x.__array_interface__["data"][0], 1, b, y.__array_interface__["data"][0], 1)
    return True


@functools.cache
def gemm_address(dtype: np.dtype[Any]) -> int:
    """Where compiled loops find CBLAS's product for this dtype; 0: nowhere."""
    return _found().gemm(dtype)


@functools.cache
def _axpby(dtype: np.dtype[Any]) -> Any:
    return _found().axpby(dtype)


def _forked() -> None:
    """The child has none of the threads that were in a region, nor their hold of the lock."""
    global _lock, _regions
    _lock = threading.RLock()
    if _regions and _library is not None and _before is not None:
        _library.set(_before)
    _regions = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
