"""Thrust's sorts in NumPy: the functions of `cupy.cuda.thrust`, whose own are machine code.

NaNs come last; equal elements keep their order, as in a sort by keys on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlgpu.sim.cuda.libraries.operands import Operands, current_stream, submit
from mlgpu.sim.cuda.system import System

# What CuPy sorts.
SORTED = "?bBhHiIlLqQefdFD"


def functions(system: System) -> dict[str, Callable[..., Any]]:
    """sort, argsort and lexsort, which work on addresses."""
    def run(call: str, body: Callable[[Operands], None]) -> None:
        with system.lock:
            submit(system, current_stream(system), call, body)

    def sort(dtype: Any, data_start: int, keys_start: int, shape: Sequence[int]) -> None:
        dtype = _sorted(dtype, NotImplementedError, "Sorting arrays")

        def body(o: Operands) -> None:
            data = o.array("the array", data_start, dtype, shape)
            data.write(np.sort(data.read(), axis=-1, kind="stable"))
        run("thrust::sort", body)

    def argsort(dtype: Any, idx_start: int, data_start: int, keys_start: int,
                shape: Sequence[int]) -> None:
        dtype = _sorted(dtype, NotImplementedError, "Sorting arrays")

        def body(o: Operands) -> None:
            data = o.array("the array", data_start, dtype, shape)
            order = np.argsort(data.read(), axis=-1, kind="stable")
            o.array("the indices", idx_start, np.intp, shape).write(order)
            data.write(np.take_along_axis(data.data, order, -1))
        run("thrust::sort_by_key", body)

    def lexsort(dtype: Any, idx_start: int, keys_start: int, k: int, n: int) -> None:
        dtype = _sorted(dtype, TypeError, "Sorting keys")

        def body(o: Operands) -> None:
            keys = o.array("the keys", keys_start, dtype, (k, n)).read()
            o.array("the indices", idx_start, np.intp, (n,)).write(np.lexsort(keys))
        run("thrust::stable_sort", body)

    return {"sort": sort, "argsort": argsort, "lexsort": lexsort}


def _sorted(dtype: Any, error: type[Exception], what: str) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(dtype)
    if found.char not in SORTED:
        raise error(f"{what} with dtype '{found}' is not supported")
    return found
