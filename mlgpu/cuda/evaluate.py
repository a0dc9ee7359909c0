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
_LONG = 1 << 20  # elements from which on two vectors a thread keep memory busier


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
    addresses = [a.data.ptr for a in operands]
    if layout.flat is not None:
        width = emit.vector_width(program)
        for address, wide, array in zip(addresses, layout.flat, operands, strict=True):
            while wide and address % (width * array.itemsize):
                width //= 2
        kernel, elements = _contiguous(program, frozenset(
            i for i, full in zip(used, layout.flat[len(outs):], strict=True) if not full), width,
            2 if count >= _LONG and len(operands) < 5 else 1)
        kernel(blocks(count, emit.THREADS * elements), emit.THREADS,
               (*map(Strided, operands), *numbers, count))
        return
    width = layout.width(emit.vector_width(program), addresses)
    pieces = count // width
    kernel = _strided(program, layout.dims, layout.modes, width, pieces >= 1 << 31)
    kernel(blocks(pieces, emit.THREADS), emit.THREADS,
           (*map(Strided, operands), *numbers, pieces, layout.struct(width)))


def _number(value: Any, dtype: Any) -> Any:
    return np.asarray(value).astype(dtype.numpy)[()]


@lru_cache(maxsize=4096)
def _used(program: Program) -> list[int]:
    return emit.read_arguments(program)


@lru_cache(maxsize=4096)
def _contiguous(program: Program, single: frozenset[int], width: int, unroll: int
                ) -> tuple[Kernel, int]:
    source = emit.contiguous(program, single, width, unroll)
    return Kernel(source.text, source.name, f"{source.name}.cu"), source.elements


@lru_cache(maxsize=4096)
def _strided(program: Program, dims: int, modes: tuple[str, ...], width: int, wide: bool) -> Kernel:
    source = emit.strided(program, dims, modes, width, wide)
    return Kernel(source.text, source.name, f"{source.name}.cu")


class _Layout:
    """How operands lie: flat (with which of them are full), or over collapsed dimensions."""

    __slots__ = ("dims", "flat", "itemsizes", "modes", "sizes", "strides", "structs")

    def __init__(self, flat: tuple[bool, ...] | None, sizes: list[int], strides: list[list[int]],
                 itemsizes: Strides) -> None:
        self.flat, self.sizes, self.strides, self.itemsizes = flat, sizes, strides, itemsizes
        self.dims = len(sizes)
        self.modes = tuple({1: emit.NEXT, 0: emit.SAME}.get(row[-1], emit.APART)
                           for row in strides)
        self.structs: dict[int, Any] = {}

    def width(self, width: int, addresses: list[int]) -> int:
        """The widest pieces, at most `width`, that lie on multiples of their size everywhere."""
        while width > 1 and not self._fits(width, addresses):
            width //= 2
        return width

    def _fits(self, width: int, addresses: list[int]) -> bool:
        return self.sizes[-1] % width == 0 and all(
            mode != emit.NEXT or (address % (width * itemsize) == 0
                                  and all(s % width == 0 for s in row[:-1]))
            for mode, address, itemsize, row in zip(self.modes, addresses, self.itemsizes,
                                                    self.strides, strict=True))

    def struct(self, width: int) -> Any:
        """What the kernel is given."""
        found = self.structs.get(width)
        if found is None:
            found = self.structs[width] = np.zeros(1, emit.layout_dtype(self.dims,
                                                                        len(self.strides)))
            sizes = [*self.sizes[:-1], self.sizes[-1] // width]
            found["size"] = sizes
            shifts = [(n - 1).bit_length() for n in sizes]
            found["shift"] = [min(s, 31) for s in shifts]
            found["magic"] = [((1 << 32) * ((1 << s) - n) // n + 1) & 0xFFFFFFFF
                              for n, s in zip(sizes, shifts, strict=True)]
            found["stride"] = [[*row[:-1], row[-1] * width] for row in self.strides]
            found["inner"] = [row[-1] for row in self.strides]
        return found


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
        return _Layout(tuple(row[0] == 1 for row in rows), sizes, rows, itemsizes)
    return _Layout(None, sizes, rows, itemsizes)
