"""Runs elementwise programs as one fused loop each, on the library's parallel loop.

A program's source (mlgpu/expr/numba.py) is a file in the cache folder, named by its content, and
its machine code lies beside it: compiling (0.3 to 1 s) is once in a machine's life.  Where the
folder cannot be written, it is once in a process's life.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mlgpu.cpu.fast import compiler, maths
from mlgpu.cpu.fast.compiler import exact
from mlgpu.cpu.threads import parallel
from mlgpu.cuda import cache
from mlgpu.expr import numba as source
from mlgpu.expr.lower import Program
from mlgpu.expr.numba import APART, NEXT, SAME

Array = np.ndarray[Any, Any]

# Elements of a task: many enough that a call (5 us) costs little, few enough that a thread does not
# wait long for the last one.
_TASK = 1 << 18

f32, i32, i64, u16 = np.float32, np.int32, np.int64, np.uint16


# --- what generated loops call --------------------------------------------------------------------


@exact
def maximum(x: Any, y: Any) -> Any:
    """The larger one; NaN if any is."""
    return x if (x > y) | (x != x) else y


@exact
def minimum(x: Any, y: Any) -> Any:
    return x if (x < y) | (x != x) else y


@exact
def fmax(x: Any, y: Any) -> Any:
    """The larger one; NaN only if both are."""
    return y if (x < y) | (x != x) else x


@exact
def fmin(x: Any, y: Any) -> Any:
    return y if (x > y) | (x != x) else x


@exact
def left_shift(x: Any, y: Any, bits: Any) -> Any:
    """x << y; 0 where y is negative or not less than the width."""
    valid = (y >= 0) & (y < bits)
    return i64(x) << i64(y if valid else 0) if valid else i64(0)


@exact
def right_shift(x: Any, y: Any, bits: Any) -> Any:
    """x >> y, arithmetic; a y that is negative or too large shifts everything out."""
    valid = (y >= 0) & (y < bits)
    gone = i64(-1) if x < 0 else i64(0)
    return i64(x) >> i64(y if valid else 0) if valid else gone


@exact
def widen_bfloat16(bits: Any) -> Any:
    return maths.floating(i32(i64(bits) << i64(16)))


@exact
def narrow_bfloat16(x: Any) -> Any:
    b = i64(maths.bits(x)) & i64(0xffffffff)
    rounded = (b + i64(0x7fff) + ((b >> i64(16)) & i64(1))) >> i64(16)
    return u16((b >> i64(16)) | i64(0x40)) if x != x else u16(rounded)


@exact
def widen_float16(bits: Any) -> Any:
    rest = i32((i64(bits) & i64(0x7fff)) << i64(13))
    sign = i32((i64(bits) & i64(0x8000)) << i64(16))
    y = maths.floating(rest) * f32(2.0 ** 112)  # exact for subnormal numbers too
    endless = maths.floating(i32(rest | i32(0x7f800000)))
    y = endless if rest >= i32(0x0f800000) else y
    return maths.floating(i32(maths.bits(y) | sign))


@exact
def narrow_float16(x: Any) -> Any:
    b = maths.bits(x)
    sign = i32((b >> i32(16)) & i32(0x8000))
    a = i32(b & i32(0x7fffffff))
    normal = i32((a + i32(0xfff) + ((a >> i32(13)) & i32(1)) - i32(112 << 23)) >> i32(13))
    # 0.5 has its last place where the smallest float16 is.
    small = i32(maths.bits(maths.floating(a) + f32(0.5)) - i32(0x3f000000))
    y = small if a < i32(0x38800000) else normal
    y = i32(0x7c00) if a >= i32(0x47800000) else y
    y = i32(0x7e00) if x != x else y
    return u16(y | sign)


_NAMES = {"np": np, "math": math, "maths": maths, **{f.__name__: f for f in (
    maximum, minimum, fmax, fmin, left_shift, right_shift, widen_bfloat16, narrow_bfloat16,
    widen_float16, narrow_float16)}}

# --- running --------------------------------------------------------------------------------------


def run(program: Program, inputs: dict[int, Array], numbers: Sequence[Any],
        outs: Sequence[Array], fresh: bool) -> None:
    """One pass over arrays of equal dimensions, in the outputs' memory order and collapsed.

    An output may be the memory of an input only if they are the very same view; `fresh`: none is.
    """
    inputs = {i: _bits(inputs[i]) for i in source.read_arguments(program)}
    outs = [_bits(out) for out in outs]
    shared = () if fresh else _shared(inputs, outs)
    own = dict(shared)
    shape = outs[0].shape
    if len(shape) == 1 and all(_in_order(a) for a in (*outs, *inputs.values())):
        single = frozenset(i for i, a in inputs.items() if len(a) == 1 and shape[0] != 1)
        loop = _flat(program, single, shared)
        _run_flat(loop, shape[0], outs, [a for i, a in inputs.items() if i not in own], numbers)
        return
    if len(shape) == 1:  # one row, in pieces
        length = -(-shape[0] // max(1, shape[0] // _TASK))
    arrays = [*outs, *inputs.values()]
    modes = tuple(_mode(a, shape[-1]) for a in arrays)
    loop = _strided(program, len(shape), modes, shared)
    passed = [*outs, *(a for i, a in inputs.items() if i not in own)]
    if len(shape) == 1:
        _run_pieces(loop, length, arrays, passed, numbers)
    else:
        _run_rows(loop, shape, arrays, passed, numbers)


def _run_flat(loop: Any, n: int, outs: Sequence[Array], others: Sequence[Array],
              numbers: Sequence[Any]) -> None:
    arrays = [*outs, *others]
    count = max(1, n // _TASK)
    length = -(-n // count)

    def body(task: int) -> None:
        piece = slice(task * length, (task + 1) * length)
        loop(*[a[piece] if len(a) == n else a for a in arrays], *numbers)

    if not loop.overloads:  # compiles, before several threads ask for it; its dtypes are its own
        loop(*[a[:0] if len(a) == n else a for a in arrays], *numbers)
    parallel(count, lambda: body, n)


def _run_pieces(loop: Any, length: int, arrays: Sequence[Array], passed: Sequence[Array],
                numbers: Sequence[Any]) -> None:
    n = arrays[0].shape[0]

    def call(piece: slice) -> None:
        cut = [a[piece] if len(a) == n else a for a in arrays]
        of_passed = [_flattened(a[piece] if len(a) == n else a) for a in passed]
        loop(0, 1, _layout(cut, cut[0].shape), *of_passed, *numbers)

    call(slice(0, 0))
    parallel(-(-n // length), lambda: lambda task: call(
        slice(task * length, (task + 1) * length)), n)


def _run_rows(loop: Any, shape: tuple[int, ...], arrays: Sequence[Array],
              passed: Sequence[Array], numbers: Sequence[Any]) -> None:
    rows = math.prod(shape[:-1])
    layout = _layout(arrays, shape)
    flat = [_flattened(a) for a in passed]
    loop(0, 0, layout, *flat, *numbers)
    length = max(1, _TASK // shape[-1])

    def body(task: int) -> None:
        loop(task * length, min((task + 1) * length, rows), layout, *flat, *numbers)

    parallel(-(-rows // length), lambda: body, rows * shape[-1])


def _bits(array: Array) -> Array:
    """Half types as bits, which is how generated loops read and write them."""
    return array.view(np.uint16) if array.dtype.kind in "fV" and array.itemsize == 2 else array


def _shared(inputs: dict[int, Array], outs: Sequence[Array]) -> tuple[tuple[int, int], ...]:
    """The inputs that are an output's own memory: as one array, or the loop could not be vector
    code, since any two others might overlap in part."""
    places = {_place(out): k for k, out in enumerate(outs)}
    return tuple((i, places[key]) for i, a in inputs.items()
                 if (key := _place(a)) in places and a.shape == outs[0].shape)


def _place(array: Array) -> tuple[int, tuple[int, ...], Any]:
    return array.__array_interface__["data"][0], array.strides, array.dtype


def _in_order(array: Array) -> bool:
    return array.strides[0] == array.itemsize or len(array) <= 1


def _mode(array: Array, length: int) -> str:
    if array.shape[-1] == 1 and length != 1:
        return SAME
    return NEXT if array.strides[-1] == array.itemsize or length == 1 else APART


def _layout(arrays: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """Sizes, then each operand's strides in elements, 0 where it is broadcast."""
    values = list(shape)
    for a in arrays:
        values += [0 if n == 1 else s // a.itemsize
                   for n, s in zip(a.shape, a.strides, strict=True)]
    return np.array(values, np.int64)


def _flattened(array: Array) -> Array:
    """All memory from an array's first element to its last."""
    extent = 1 + sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)
                     ) // array.itemsize if array.size else 0
    return np.lib.stride_tricks.as_strided(array, (extent,), (array.itemsize,))


def fits(arrays: Sequence[Array]) -> bool:
    """Whether generated loops can walk these: forwards, in whole elements."""
    return all(s >= 0 and s % a.itemsize == 0 for a in arrays for s in a.strides)


# --- compiling ------------------------------------------------------------------------------------


def _version() -> str:
    """What a generated loop depends on beside its own text."""
    own = hashlib.blake2b(Path(__file__).read_bytes(), digest_size=16).hexdigest()
    return f"{compiler.SHARED} {own}"


_VERSION = _version()


@lru_cache(maxsize=4096)
def _flat(program: Program, single: frozenset[int], shared: tuple[tuple[int, int], ...]) -> Any:
    return _compiled(source.flat(program, single, shared))


@lru_cache(maxsize=4096)
def _strided(program: Program, dims: int, modes: tuple[str, ...],
             shared: tuple[tuple[int, int], ...]) -> Any:
    return _compiled(source.strided(program, dims, modes, shared))


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Callable[..., Any]:
    """The loop of a source: equal ones of several programs are one."""
    text = f"{text}# {_VERSION}\n"
    root = cache.folder()
    path = None if root is None else cache.put_file(root, text.encode(), ".py")
    # Numba looks for this module when it loads machine code.
    names: dict[str, Any] = {**_NAMES, "__name__": __name__}
    exec(compile(text, "<generated loop>" if path is None else str(path), "exec"), names)
    return compiler.compiled(names["loop"], as_written=True, stamp="its name tells its content",
                             on_disk=path is not None)
