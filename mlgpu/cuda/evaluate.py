"""Runs lowered expressions on device arrays: one generated kernel reads and writes memory once.

Dimensions are taken in the output's memory order and collapsed where all operands allow it; what
lies alike in memory runs as vectors of up to 16 bytes, all else over strides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mlgpu.cuda.launch import Kernel, Strided, blocks
from mlgpu.expr import cuda as emit
from mlgpu.expr.lower import Program

Strides = tuple[int, ...]


def evaluate(program: Program, arguments: Sequence[Any], outs: Sequence[Any]) -> None:
    """Run `program` on arrays (and Python numbers) and write the results into `outs`.

    All outputs have one shape.  They may be the memory of an input only if they are the very same
    view.
    """
    first = outs[0]
    count = first.size
    if not count:
        return
    used = _used(program)
    reads = [arguments[i] for i in used]
    operands = [*outs, *reads]
    numbers = [_number(arguments[i], dtype) for _, i, dtype in program.numbers]
    layout = _layout(first.shape, tuple([a.strides for a in operands]),
                     tuple([a.shape for a in operands]), tuple([a.itemsize for a in operands]))
    if layout.flat is not None:
        width = _width(operands, layout.flat, program)
        kernel, elements = _contiguous(program, frozenset(
            i for i, full in zip(used, layout.flat[len(outs):], strict=True) if not full), width)
        extra: tuple[Any, ...] = (count,)
    else:
        kernel, elements = _strided(program, layout.dims)
        extra = (count, layout.struct)
    kernel(blocks(count, emit.THREADS * elements), emit.THREADS,
           (*map(Strided, operands), *numbers, *extra))


def _number(value: Any, dtype: Any) -> Any:
    return np.asarray(value).astype(dtype.numpy)[()]


@lru_cache(maxsize=4096)
def _used(program: Program) -> list[int]:
    return emit.read_arguments(program)


@lru_cache(maxsize=4096)
def _contiguous(program: Program, single: frozenset[int], width: int) -> tuple[Kernel, int]:
    source = emit.contiguous(program, single, width)
    return Kernel(source.text, source.name, f"{source.name}.cu"), source.elements


@lru_cache(maxsize=4096)
def _strided(program: Program, dims: int) -> tuple[Kernel, int]:
    source = emit.strided(program, dims)
    return Kernel(source.text, source.name, f"{source.name}.cu"), source.elements


def _width(operands: Sequence[Any], full: Sequence[bool], program: Program) -> int:
    """Elements of a vector: 16 bytes of the widest operand where all addresses allow it."""
    width = emit.vector_width(program)
    for array, wide in zip(operands, full, strict=True):
        if wide:
            while width > 1 and array.data.ptr % (width * array.itemsize):
                width //= 2
    return width


class _Layout:
    """How operands lie: flat (with which of them are full), or over collapsed dimensions."""

    __slots__ = ("dims", "flat", "struct")

    def __init__(self, flat: tuple[bool, ...] | None, sizes: Sequence[int],
                 strides: Sequence[Sequence[int]]) -> None:
        self.flat = flat
        self.dims = len(sizes)
        numbers = np.array([*sizes, *(s for row in strides for s in row)], np.int64)
        self.struct = numbers.view(np.dtype([("layout", np.int64, (numbers.size,))]))


@lru_cache(maxsize=4096)
def _layout(shape: tuple[int, ...], strides: tuple[Strides, ...], shapes: tuple[Strides, ...],
            itemsizes: Strides) -> _Layout:
    ndim = len(shape)
    steps = []
    for given, lengths, itemsize in zip(strides, shapes, itemsizes, strict=True):
        lead = ndim - len(lengths)
        steps.append([0] * lead + [0 if n == 1 else s // itemsize
                                   for n, s in zip(lengths, given, strict=True)])
    order = sorted((d for d in range(ndim) if shape[d] != 1), key=lambda d: (-steps[0][d], d))
    sizes: list[int] = []
    rows: list[list[int]] = [[] for _ in steps]
    for d in order:
        if sizes and all(row[-1] == s[d] * shape[d] for row, s in zip(rows, steps, strict=True)):
            sizes[-1] *= shape[d]
            for row, s in zip(rows, steps, strict=True):
                row[-1] = s[d]
        else:
            sizes.append(shape[d])
            for row, s in zip(rows, steps, strict=True):
                row.append(s[d])
    if not sizes:
        sizes, rows = [1], [[1]] * len(steps)
    if len(sizes) == 1 and all(row[0] in (0, 1) for row in rows) and rows[0][0] == 1:
        return _Layout(tuple(row[0] == 1 for row in rows), sizes, rows)
    return _Layout(None, sizes, rows)
