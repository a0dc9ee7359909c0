"""Runs lowered expressions on device arrays: one generated kernel reads and writes memory once.

Dimensions are taken in the output's memory order and collapsed where all operands allow it; what
lies alike in memory runs as vectors of up to 16 bytes, what lies transposed in squares, all else
over strides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mlgpu.cuda.launch import Kernel, Prepared, blocks
from mlgpu.expr import cuda as emit
from mlgpu.expr.lower import Program

Strides = tuple[int, ...]
_BLOCK = (emit.THREADS,)
_WIDEST = 256  # bytes: no piece that a thread moves is wider, and the pool gives multiples
_KEPT = 1 << 14  # plans and ways
_LONG = 1 << 20  # elements from which on two vectors a thread keep memory busier


def results(program: Program, arrays: Sequence[Any], slots: Sequence[Any],
            make: Callable[[], list[Any]]) -> Any:
    """What `program` gives of arrays and of numbers, which `slots` has where it has not None.

    Fresh memory for it comes from `make`, whose choice is kept for operands that lie alike.
    """
    key: list[Any] = [program]
    places = 0
    for array in arrays:
        key += array.shape, None if array._c_contiguous else array.strides
        places |= array.data.ptr
    signature = tuple(key)
    way = None if places & _WIDEST - 1 else _ways.get(signature)
    if way is not None:
        return way.results(arrays, slots)
    rest = iter(arrays)
    arguments = [next(rest) if slot is None else slot for slot in slots]
    outs = make()
    evaluate(program, arguments, outs)
    if outs[0].size:
        if len(_ways) >= _KEPT:
            _ways.clear()
        _ways[signature] = _Way(program, arguments, slots, outs)
    return outs[0] if len(outs) == 1 else tuple(outs)


class _Way:
    """All that is decided about a program and operands that lie so, on multiples of `_WIDEST`."""

    __slots__ = ("launch", "makers", "numbers", "take")

    def __init__(self, program: Program, arguments: Sequence[Any], slots: Sequence[Any],
                 outs: Sequence[Any]) -> None:
        from mlgpu.cuda.arrays import maker  # which loads CuPy

        self.makers = [maker(a) for a in outs]
        used = _used(program)
        places = [i for i, slot in enumerate(slots) if slot is None]
        self.take = None if used == places else [places.index(i) for i in used]
        self.numbers = [(i, dtype) for _, i, dtype in program.numbers]
        operands = [*outs, *[arguments[i] for i in used]]
        self.launch = _planned(program, operands, False)

    def results(self, arrays: Sequence[Any], slots: Sequence[Any]) -> Any:
        outs = [make() for make in self.makers]
        take = self.take
        operands = [*outs, *(arrays if take is None else [arrays[i] for i in take])]
        for i, dtype in self.numbers:
            operands.append(_number(slots[i], dtype))
        self.launch.start(*operands)
        return outs[0] if len(outs) == 1 else tuple(outs)


_ways: dict[Any, _Way] = {}


def evaluate(program: Program, arguments: Sequence[Any], outs: Sequence[Any]) -> None:
    """Run `program` on arrays (and Python numbers) and write the results into `outs`.

    All outputs have one shape.  They may be the memory of an input only if they are the very same
    view.
    """
    first = outs[0]
    if not first.size:
        return
    used = _used(program)
    operands = [*outs, *[arguments[i] for i in used]] if used else list(outs)
    places = 0
    key: list[Any] = [program]
    for array in operands:
        key += array.shape, None if array._c_contiguous else array.strides
        places |= array.data.ptr
    places &= _WIDEST - 1
    if places:
        key.append(tuple([a.data.ptr % _WIDEST for a in operands]))
    known = tuple(key)
    plan = _plans.get(known)
    if plan is None:
        if len(_plans) >= _KEPT:
            _plans.clear()
        plan = _plans[known] = _planned(program, operands, bool(places))
    if program.numbers:
        operands += [_number(arguments[i], dtype) for _, i, dtype in program.numbers]
    plan.start(*operands)


_plans: dict[Any, Prepared] = {}


def _planned(program: Program, operands: Sequence[Any], apart: bool) -> Prepared:
    """`apart`: some do not lie on multiples of the widest vector."""
    return _plan(program, operands[0].shape, tuple([a.strides for a in operands]),
                 tuple([a.shape for a in operands]),
                 tuple([a.data.ptr % _WIDEST for a in operands]) if apart else None)


def _plan(program: Program, shape: tuple[int, ...], strides: tuple[Strides, ...],
          shapes: tuple[Strides, ...], places: Strides | None) -> Prepared:
    """`places` are the addresses modulo the widest vector, None where all lie on multiples."""
    itemsizes = tuple([d.numpy.itemsize for d in (
        *program.output_dtypes, *(program.dtypes[i] for i in _used(program)))])
    addresses = list(places or (0,) * len(itemsizes))
    outs, count = len(program.outputs), math.prod(shape)
    layout = _layout(shape, strides, shapes, itemsizes)
    if layout.flat is not None:
        width = emit.vector_width(program)
        for address, wide, itemsize in zip(addresses, layout.flat, itemsizes, strict=True):
            while wide and address % (width * itemsize):
                width //= 2
        kernel, elements = _contiguous(program, frozenset(
            i for i, full in zip(_used(program), layout.flat[outs:], strict=True) if not full),
            width, 2 if count >= _LONG and len(itemsizes) < 5 else 1)
        return Prepared(kernel, blocks(count, emit.THREADS * elements), _BLOCK, (count,))
    tile = layout.tile
    if tile is not None and tile.fits(addresses):
        pieces = count // tile.width**2
        kernel = _tiled(program, tile.dims, tile.modes, tile.width, pieces >= 1 << 31)
        return Prepared(kernel, blocks(pieces, emit.THREADS), _BLOCK, (pieces, tile.struct))
    width = layout.width(emit.vector_width(program), addresses)
    pieces = count // width
    kernel = _strided(program, layout.dims, layout.modes, width, pieces >= 1 << 31)
    return Prepared(kernel, blocks(pieces, emit.THREADS), _BLOCK, (pieces, layout.struct(width)))


def _number(value: Any, dtype: Any) -> Any:
    if type(value) is float and dtype.is_floating_point:
        return dtype.numpy.type(value)
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


@lru_cache(maxsize=4096)
def _tiled(program: Program, dims: int, modes: tuple[str, ...], width: int, wide: bool) -> Kernel:
    source = emit.tiled(program, dims, modes, width, wide)
    return Kernel(source.text, source.name, f"{source.name}.cu")


class _Tile:
    """Squares along the innermost dimension and the one in which the other operands lie."""

    __slots__ = ("_units", "dims", "modes", "struct", "width")

    def __init__(self, width: int, modes: tuple[str, ...], sizes: list[int],
                 strides: list[list[int]], inner: list[int], itemsizes: Strides) -> None:
        self.width, self.modes, self.dims = width, modes, len(sizes)
        self.struct = _struct(sizes, strides, inner)
        self._units = [1 if mode == emit.SAME else width * size
                       for mode, size in zip(modes, itemsizes, strict=True)]

    def fits(self, addresses: list[int]) -> bool:
        return not any(a % unit for a, unit in zip(addresses, self._units, strict=True))


def _tile(sizes: list[int], strides: list[list[int]], itemsizes: Strides) -> _Tile | None:
    """Squares for operands of which one lies along another dimension than the innermost; None where
    there is none such, or where any lies otherwise or in the middle of vectors."""
    cross = next((d for row in strides if row[-1] not in (0, 1)
                  for d in range(len(sizes) - 1) if row[d] == 1), None)
    width = min(4, 16 // max(itemsizes))
    if cross is None or width < 2 or sizes[cross] % width or sizes[-1] % width:
        return None
    modes, steps = [], []
    for row in strides:
        a, c = row[-1], row[cross]
        mode = emit.NEXT if a == 1 else emit.CROSS if c == 1 else emit.SAME
        step = c if mode == emit.NEXT else a
        others = [s for d, s in enumerate(row[:-1]) if d != cross]
        if mode == emit.SAME and (a or c):
            return None
        if mode != emit.SAME and any(s % width for s in (step, *others)):
            return None
        modes.append(mode)
        steps.append(step)
    # Lanes side by side along both, so that those of each operand fill sectors.
    small = min(size for size, mode in zip(itemsizes, modes, strict=True) if mode == emit.NEXT)
    along = math.gcd(sizes[-1] // width, 8 if small == 1 else 4)
    across = math.gcd(sizes[cross] // width, 32 // along)

    def split(values: list[int], parts: tuple[int, int, int, int]) -> list[int]:
        return [*(v for d, v in enumerate(values[:-1]) if d != cross), *parts]

    lanes = width * along, width * across
    return _Tile(width, tuple(modes), split(sizes, (
        sizes[cross] // lanes[1], sizes[-1] // lanes[0], across, along)), [
            split(row, (row[cross] * lanes[1], row[-1] * lanes[0], row[cross] * width,
                        row[-1] * width)) for row in strides], steps, itemsizes)


def _struct(sizes: list[int], strides: list[list[int]], inner: list[int]) -> Any:
    """What kernels over pieces are given."""
    made = np.zeros(1, emit.layout_dtype(len(sizes), len(strides)))
    made["size"] = sizes
    shifts = [(n - 1).bit_length() for n in sizes]
    made["shift"] = [min(s, 31) for s in shifts]
    made["magic"] = [((1 << 32) * ((1 << s) - n) // n + 1) & 0xFFFFFFFF
                     for n, s in zip(sizes, shifts, strict=True)]
    made["stride"] = strides
    made["inner"] = inner
    return made


class _Layout:
    """How operands lie: flat (with which of them are full), or over collapsed dimensions."""

    __slots__ = ("dims", "flat", "itemsizes", "modes", "sizes", "strides", "structs", "tile")

    def __init__(self, flat: tuple[bool, ...] | None, sizes: list[int], strides: list[list[int]],
                 itemsizes: Strides) -> None:
        self.flat, self.sizes, self.strides, self.itemsizes = flat, sizes, strides, itemsizes
        self.dims = len(sizes)
        self.modes = tuple({1: emit.NEXT, 0: emit.SAME}.get(row[-1], emit.APART)
                           for row in strides)
        self.structs: dict[int, Any] = {}
        self.tile = None if flat is not None else _tile(sizes, strides, itemsizes)

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
            found = self.structs[width] = _struct(
                [*self.sizes[:-1], self.sizes[-1] // width],
                [[*row[:-1], row[-1] * width] for row in self.strides],
                [row[-1] for row in self.strides])
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
