"""Attention on the device: which kernels, tiles and grids serve which shapes.

Halves go to tensor cores, float32 and float64 to plain instructions.  Operands are taken by
strides, so that transposed heads, broadcast keys and masks are not copied.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.copy import copy_into
from mlgpu.cuda.faults import fault, site
from mlgpu.cuda.launch import Strided, blocks, launch
from mlgpu.cuda.random import source
from mlgpu.cuda.types import ctype
from mlgpu.random import Stream

_LARGEST = 256  # columns of a head that the kernels take
_LEADING = 4  # dimensions before the last two

# Blocks that keep a large GPU busy, whichever GPU it is (how sums are split decides their last
# bits), and keys that are worth a block.
_ENOUGH, _LEAST = 128, 256
_OPERANDS = ("q", "k", "v", "o", "dy", "dq", "dk", "dv", "mask", "place",
             "lengths")
_STRUCT = np.dtype([
    ("lead", "i8", (len(_OPERANDS), 4)), ("row", "i8", len(_OPERANDS)), ("mask_column", "i8"),
    ("seed", "i8"), ("offset", "i8"), ("scale", "f8"), ("size", "i4", 4), ("shared", "i4"),
    ("queries", "i4"), ("keys", "i4"), ("depth", "i4"), ("width", "i4"), ("causal", "i4"),
    ("long_lengths", "i4"),
    ("dropped", "u4"), ("kept", "f4")], align=True)
_MASKED, _DROPOUT, _SCALED, _MASK_GRADIENT = 1, 2, 4, 8  # ml_special

OUTSIDE = ("scaled_dot_product_attention: key_lengths has {value}, which is not between 0 and "
            "{bound}, the number of keys")

Shape = tuple[int, ...]
Tile = tuple[int, int, int]  # queries, keys, and threads of a block or warps that share keys


@dataclass(frozen=True)
class Options:
    """What is asked for besides the arrays."""

    scale: float
    causal: bool
    dropout: float = 0.0
    stream: Stream | None = None


def fits(q: Any, k: Any, v: Any) -> bool:
    """Whether the kernels take these operands."""
    lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    return (0 < q.shape[-1] <= _LARGEST and v.shape[-1] <= _LARGEST and
            sum(n > 1 for n in lead) <= _LEADING and math.prod(lead) < 2**31)


def forward(q: Any, k: Any, v: Any, mask: Any, lengths: Any, options: Options, statistics: bool
            ) -> tuple[Any, Any]:
    """The output, and the logsumexp of each query (*lead, queries, 1) where asked for.

    `lengths`, where there are any, say how many keys each index of the first dimension has.
    """
    call = _Call(q, k, v, mask, lengths, options)
    if not call.scores or not call.width:
        check_lengths(lengths, call.keys)
        lse = runtime.full((*call.lead, call.queries, 1), math.inf, call.wide)
        return runtime.zeros((*call.lead, call.queries, call.width), q.dtype), lse
    if _is_group(call):
        out, lse = forward(q[..., 0, :], _first(k, 3), _first(v, 3), _first(mask, 2), lengths,
                           options, statistics)
        return out[..., None, :], None if lse is None else lse[..., None]
    out = _interleaved(call.lead, call.queries, call.width, q.dtype)
    call.add("o", out)
    lse = runtime.empty((*call.lead, call.queries, 1), call.wide) if statistics else None
    tile = _forward_tile(call)
    tiles = blocks(call.queries, tile[0]) * call.places
    span = _span(call, tiles, tile[1])
    splits, rows = blocks(call.keys, span), call.places * call.queries
    parts, lses = None, lse
    if splits > 1:
        parts = runtime.empty((splits, rows, call.depth), call.wide)
        lses = runtime.empty((splits, rows), call.wide)
    launched = _forward_halves if call.halves else _forward_plain
    launched(call, out, lses, parts, tile, tiles, span)
    if parts is not None:
        launch("attention_forward", f"attention_join<{call.ctype}, {call.vector('o')}>",
               blocks(rows, 4), 128,
               (parts, lses, Strided(out), lse, rows, splits, call.depth, call.struct()))
    return out, lse


def check_lengths(lengths: Any, keys: int) -> None:
    """Have lengths outside 0 to `keys` reported, where no kernel reads them."""
    if lengths is not None:
        launch("attention_simt", f"attention_lengths<{ctype(lengths.dtype)}>",
               blocks(lengths.size, 256), 256,
               (runtime.contiguous(lengths), lengths.size, keys, fault(), site(OUTSIDE)))


def _is_group(call: _Call) -> bool:
    """Whether heads with one query each share keys: they can be the rows of one tile."""
    last = len(call.lead) - 1
    return call.queries == 1 and last in call.shared_dims and not call.options.causal


def _first(array: Any, axis: int) -> Any:
    """The array without a dimension of size 1, counted from the end, where it has leading ones."""
    if array is None or array.ndim < 3:
        return array
    return array[..., 0, :] if axis == 2 else array[..., 0, :, :]


def _forward_tile(call: _Call) -> Tile:
    if call.halves:
        return _halves_tile(call.depth, call.queries, _shared_limit(), call.special())
    rows, keys, threads = _FORWARD_PLAIN[call.wide.itemsize, call.depth]
    return 16 if call.queries <= 16 else rows, keys, threads


def _span(call: _Call, tiles: int, keys: int) -> int:
    """How many keys a block takes: all, unless there are few blocks and many keys."""
    if tiles >= _ENOUGH // 2 or call.keys < 2 * _LEAST or call.options.causal:
        return blocks(call.keys, keys) * keys
    splits = min(blocks(_ENOUGH, tiles), call.keys // _LEAST)
    return blocks(blocks(call.keys, splits), keys) * keys


def backward(dy: Any, q: Any, k: Any, v: Any, mask: Any, lengths: Any, out: Any, lse: Any,
             options: Options, mask_gradient: bool, into: Sequence[Any] = ()
             ) -> tuple[Any, Any, Any, Any]:
    """The gradients of q, k, v and, where asked for, of the mask (*lead, queries, keys).

    `into` are the arrays for the first three, where the caller has them.
    """
    call = _Call(q, k, v, mask, lengths, options)
    reduced = tuple(1 if d in call.shared_dims else n for d, n in enumerate(call.lead))
    places = ((q, call.lead), (k, reduced), (v, reduced))
    if not call.scores or not call.width:
        zeros = [runtime.zeros((*lead, *x.shape[-2:]), x.dtype) for x, lead in places]
        for array, zero in zip(into, zeros, strict=False):
            copy_into(array, zero)
        return *zeros, runtime.zeros(call.shape, call.wide) if mask_gradient else None
    dy = _rows(dy)
    dq, dk, dv = into or (_like(x, lead) for x, lead in places)
    for name, array in (("dy", dy), ("o", out), ("dq", dq), ("dk", dk), ("dv", dv)):
        call.add(name, array)
    # Kernels pass over what lies beyond a length.
    made = runtime.empty if lengths is None else runtime.zeros
    dmask = made(call.shape, call.wide) if mask_gradient else None
    delta = runtime.empty(lse.shape, call.wide)
    rows = delta.size
    vec = call.vector("dy", "o")
    launch("attention_backward", f"attention_delta<{ctype(q.dtype)}, {vec}>",
           blocks(8 * rows, 256), 256, (Strided(dy), Strided(out), delta, rows, call.struct()))
    if call.halves:
        _backward_halves(call, dy, lse, delta, dq, dk, dv, dmask)
    else:
        _backward_plain(call, dy, lse, delta, dq, dk, dv, dmask)
    return dq, dk, dv, dmask


# --- kernels for halves ---------------------------------------------------------------------------


def _forward_halves(call: _Call, out: Any, lse: Any, parts: Any, tile: Tile, tiles: int,
                    span: int) -> None:
    depth, (rows, keys, threads) = call.depth, tile
    special = call.special() | (_SCALED if call.options.scale <= 0 and call.mask is None else 0)
    instance = (f"attention_forward<{call.ctype}, {call.mask_ctype}, {depth}, {rows}, {keys}, "
                f"{threads // 32}, {call.vector('q', 'k', 'v', 'o')}, {special}>")
    splits = blocks(call.keys, span)
    launch("attention_forward", instance, tiles * splits, threads,
           (*map(Strided, (call.q, call.k, call.v, out)), lse, parts, _maybe(call.mask),
            _maybe(call.lengths), call.cell, splits, span, call.places * call.queries,
            *call.fault(), call.struct()),
           (rows + 2 * keys) * _pitch(depth))


def _halves_tile(depth: int, queries: int, shared: int, special: int) -> Tile:
    """32 queries for each warp, and as many keys up to 64 as registers and shared memory allow."""
    if queries <= 16:
        return 16, 64 if depth <= 128 or shared >= (73 << 10) else 32, 32
    if depth > 128:
        return 64, 32 if shared <= (64 << 10) else 64, 128
    if queries <= 64:
        return 64, 64, 128
    if depth < 128:
        return 128, 48 if depth == 96 and special else 64, 128
    if special or shared < (88 << 10):
        return 128, 32, 128
    # One block of eight warps takes less shared memory than two of four.
    return (256, 48, 256) if queries > 128 and shared < (112 << 10) else (128, 48, 128)


def _backward_halves(call: _Call, dy: Any, lse: Any, delta: Any, dq: Any, dk: Any, dv: Any,
                     dmask: Any) -> None:
    depth = call.depth
    special = call.special() | (_MASK_GRADIENT if dmask is not None else 0)
    vec = call.vector("q", "k", "v", "dy", "dk", "dv")
    if depth <= 64:
        rows, warps = 64, 8 if depth > 16 and _shared_limit() >= (73 << 10) else 4
        keys, threads, of_scores = 16 * warps, 32 * warps, 1
        family, shape = "attention_backward", f"{rows}, {warps}"
        tiles = 2 * keys + 3 * rows
    else:
        rows, keys, groups = _wide_tile(depth, _shared_limit())
        threads, of_scores = keys * groups, 2
        family, shape = "attention_wide", f"{rows}, {keys}, {groups}"
        tiles = 2 * keys + 2 * rows
    places = call.places // call.shared
    splits = max(1, min(blocks(_ENOUGH, places), blocks(call.keys, keys)))
    part = lse.size * depth
    parts = runtime.empty((splits, part), call.wide)
    launch(family, f"{family}<{call.ctype}, {call.mask_ctype}, {depth}, {shape}, {vec}, {special}>",
           places * splits, threads,
           (*map(Strided, (call.q, call.k, call.v, dy)), lse, delta, parts, Strided(dk),
            Strided(dv), _maybe(call.mask), dmask, _maybe(call.lengths), call.cell, part, splits,
            call.struct()),
           tiles * _pitch(depth) + of_scores * keys * _pitch(rows) + 8 * rows)
    if dq.size:
        vec = min(4, call.vector("dq"))
        vectors = dq.size // vec
        launch("attention_backward", f"attention_sum<{call.ctype}, {vec}>", blocks(vectors, 256),
               256, (parts, Strided(dq), _maybe(call.lengths), vectors, part, splits, depth, rows,
                     keys, call.struct()))


def _wide_tile(depth: int, shared: int) -> Tile:
    """Queries of a tile, keys of a block, and warps that share 32 of them."""
    if depth <= 128:
        if shared >= (130 << 10):
            return 64, 128, 2
        return (64, 64, 2) if shared >= (82 << 10) else (32, 64, 2)
    if shared >= (146 << 10):
        return 64, 64, 4
    return (32, 32, 4) if shared >= (70 << 10) else (16, 32, 4)


def _pitch(columns: int) -> int:
    """Bytes of a row of a tile of halves."""
    return 2 * (128 if columns == 96 else columns)


# --- kernels for float32 and float64 --------------------------------------------------------------

# By bytes of a number and columns: rows of a tile, rows of those that come by, and threads of a
# block, within 64 KiB of shared memory.
_FORWARD_PLAIN = {
    (4, 32): (64, 32, 128), (4, 64): (64, 32, 128), (4, 96): (64, 32, 128),
    (4, 128): (32, 32, 128), (4, 192): (32, 16, 128), (4, 256): (32, 16, 128),
    (8, 32): (32, 32, 128), (8, 64): (32, 32, 128), (8, 96): (32, 16, 128),
    (8, 128): (32, 16, 128), (8, 192): (16, 16, 128), (8, 256): (16, 8, 128)}
_BACKWARD_PLAIN = {
    (4, 32): (32, 32, 64), (4, 64): (32, 32, 64), (4, 96): (32, 16, 64),
    (4, 128): (32, 16, 64), (4, 192): (16, 16, 64), (4, 256): (16, 8, 64),
    (8, 32): (32, 16, 128), (8, 64): (32, 16, 128), (8, 96): (16, 16, 128),
    (8, 128): (16, 8, 128), (8, 192): (8, 8, 64), (8, 256): (4, 8, 32)}


def _forward_plain(call: _Call, out: Any, lse: Any, parts: Any, tile: Tile, tiles: int, span: int
                   ) -> None:
    size, depth, (rows, keys, threads) = out.dtype.itemsize, call.depth, tile
    instance = (f"attention_forward_simt<{call.ctype}, {call.mask_ctype}, {depth}, {rows}, {keys}, "
                f"{threads}, {call.vector('q', 'k', 'v', 'o')}>")
    splits = blocks(call.keys, span)
    launch("attention_simt", instance, tiles * splits, threads,
           (*map(Strided, (call.q, call.k, call.v, out)), lse, parts, _maybe(call.mask),
            _maybe(call.lengths), call.cell, splits, span, call.places * call.queries,
            call.options.dropout > 0, *call.fault(), call.struct()),
           (rows + keys) * (depth * size + 16) + rows * _padded(keys) * size)


def _backward_plain(call: _Call, dy: Any, lse: Any, delta: Any, dq: Any, dk: Any, dv: Any,
                    dmask: Any) -> None:
    size, depth = dy.dtype.itemsize, call.depth
    rows, others, threads = _BACKWARD_PLAIN[size, depth]
    scores = rows * _padded(others) * size
    shared = 2 * (rows + others) * (depth * size + 16) + scores
    arrays = (*map(Strided, (call.q, call.k, call.v, dy)), lse, delta)
    rest = (_maybe(call.lengths), call.cell, call.options.dropout > 0, call.struct())
    vec = call.vector("q", "k", "v", "dy", "dq", "dk", "dv")
    instance = (f"attention_backward_simt<{call.ctype}, {call.mask_ctype}, {depth}, {rows}, "
                f"{others}, {threads}, {vec}, %s>")
    launch("attention_simt", instance % "false", blocks(call.queries, rows) * call.places, threads,
           (*arrays, Strided(dq), None, _maybe(call.mask), dmask, *rest), shared)
    launch("attention_simt", instance % "true",
           blocks(call.keys, rows) * (call.places // call.shared), threads,
           (*arrays, Strided(dk), Strided(dv), _maybe(call.mask), None, *rest), shared + scores)


def _padded(scores: int) -> int:
    return scores if scores == 8 else scores + 8


# --- where things lie -----------------------------------------------------------------------------


class _Call:
    """The operands of a call as the kernels take them: leading dimensions by sizes and strides."""

    def __init__(self, q: Any, k: Any, v: Any, mask: Any, lengths: Any, options: Options
                 ) -> None:
        self.lead = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        self.options = options
        self.q, self.k, self.v = _rows(q), _rows(k), _rows(v)
        self.mask, self.lengths = mask, lengths
        self.queries, self.keys = q.shape[-2], k.shape[-2]
        self.width = v.shape[-1]
        self.halves = q.dtype.itemsize == 2
        self.wide = np.dtype(np.float32) if self.halves else q.dtype
        self.ctype = ctype(q.dtype)
        self.mask_ctype = "bool" if mask is None else ctype(mask.dtype)
        self.places = math.prod(self.lead)
        self.shape = (*self.lead, self.queries, self.keys)
        self.scores = math.prod(self.shape)
        self.depth = _depth(max(q.shape[-1], self.width), 16 if self.halves else 32)
        self.shared_dims = [d for d in range(len(self.lead))
                            if self.lead[d] > 1 and _missing(k, self.lead, d)
                            and _missing(v, self.lead, d) and (d > 0 or lengths is None)]
        self.shared = math.prod(self.lead[d] for d in self.shared_dims)
        self._strides: dict[str, list[int]] = {}
        self._row: dict[str, int] = {}
        self._vectors: dict[str, int] = {}
        self.cell: Any = None
        self._draw = (0, 0)
        if options.stream is not None:
            seed, offset, self.cell = source(options.stream)
            self._draw = seed, offset
        for name, array in (("q", self.q), ("k", self.k), ("v", self.v), ("mask", mask)):
            if array is not None:
                self.add(name, array)
        if lengths is not None:
            self._strides["lengths"] = [lengths.strides[0] // lengths.itemsize,
                                        *[0] * (len(self.lead) - 1)]
        self._strides["place"] = [math.prod(self.lead[d + 1:]) for d in range(len(self.lead))]

    def add(self, name: str, array: Any) -> None:
        """Take in where an operand (..., rows, columns) lies."""
        size = array.itemsize
        lead = [0 if self.lead[d] == 1 or _missing(array, self.lead, d) else
                array.strides[d + array.ndim - 2 - len(self.lead)] // size
                for d in range(len(self.lead))]
        self._strides[name] = lead
        self._row[name] = 0 if array.shape[-2] == 1 else array.strides[-2] // size
        if name != "mask":
            self._vectors[name] = _vector(array, lead, self._row[name])

    def vector(self, *names: str) -> int:
        """How many numbers can be moved at once in each of these operands."""
        return min(self._vectors.get(name, 16) for name in names)

    def special(self) -> int:
        return ((_MASKED if self.mask is not None else 0) |
                (_DROPOUT if self.options.dropout else 0))

    def fault(self) -> tuple[Any, int]:
        """Where a length outside the range is reported, and as what."""
        return (None, 0) if self.lengths is None else (fault(), site(OUTSIDE))

    def struct(self) -> Any:
        """All of it, as `ml_attention` in kernels/attention.cuh."""
        a = np.zeros((), _STRUCT)
        sizes, strides = self._merged()
        a["size"] = [1] * (4 - len(sizes)) + sizes
        for index, name in enumerate(_OPERANDS):
            if name in strides:
                a["lead"][index] = [0] * (4 - len(sizes)) + strides[name]
                a["row"][index] = self._row.get(name, 0)
        if self.mask is not None and self.mask.shape[-1] > 1:
            a["mask_column"] = self.mask.strides[-1] // self.mask.itemsize
        options = self.options
        a["seed"], a["offset"] = self._draw
        a["scale"] = options.scale
        a["shared"], a["queries"], a["keys"] = self.shared, self.queries, self.keys
        a["depth"], a["width"], a["causal"] = self.q.shape[-1], self.width, options.causal
        a["long_lengths"] = self.lengths is not None and self.lengths.itemsize == 8
        if options.dropout:
            a["dropped"] = math.ceil(options.dropout * 2.0**32) - 1
            a["kept"] = 1 / (1 - options.dropout) if options.dropout < 1 else 0.0
        return a

    def _merged(self) -> tuple[list[int], dict[str, list[int]]]:
        """The leading dimensions, the shared ones last, neighbours in one where strides allow."""
        dims = [d for d, n in enumerate(self.lead) if n > 1]
        order = ([d for d in dims if d not in self.shared_dims] +
                 [d for d in dims if d in self.shared_dims])
        merged: list[int] = []  # sizes
        last: list[int] = []  # the innermost dimension of each
        for d in order:
            if merged and (last[-1] in self.shared_dims) == (d in self.shared_dims) and all(
                    s[last[-1]] == s[d] * self.lead[d] for s in self._strides.values()):
                merged[-1] *= self.lead[d]
                last[-1] = d
            else:
                merged.append(self.lead[d])
                last.append(d)
        return merged, {name: [s[d] for d in last] for name, s in self._strides.items()}


def _missing(array: Any, lead: Shape, d: int) -> bool:
    """Whether an operand is broadcast along a leading dimension."""
    own = d + array.ndim - 2 - len(lead)
    return own < 0 or (array.shape[own] == 1 and lead[d] != 1)


def _rows(array: Any) -> Any:
    """The array, or a copy where neighbours in a row are apart."""
    apart = array.shape[-1] > 1 and array.strides[-1] != array.itemsize
    return runtime.copy(array) if apart else array


def _depth(columns: int, least: int) -> int:
    return next(n for n in (16, 32, 64, 96, 128, 192, 256) if n >= max(columns, least))


def _vector(array: Any, lead: Sequence[int], row: int) -> int:
    """The most numbers, up to 16 bytes, that every row is a multiple of and aligned to."""
    size = array.itemsize
    steps = [array.data.ptr // size, array.shape[-1], row, *lead, 16 // size]
    return math.gcd(*steps) if array.data.ptr % size == 0 else 1


def _maybe(array: Any) -> Any:
    return None if array is None else Strided(array)


def _interleaved(lead: Shape, rows: int, columns: int, dtype: Any) -> Any:
    """(*lead, rows, columns) with the heads of a row next to each other in memory.

    So that joining the heads, which every transformer does next, is a view.
    """
    n = len(lead)
    if n < 2:
        return runtime.empty((*lead, rows, columns), dtype)
    flat = runtime.empty((lead[0], rows, *lead[1:], columns), dtype)
    return flat.transpose(0, *range(2, n + 1), 1, n + 1)


def _like(array: Any, lead: Shape) -> Any:
    """Room for (*lead, rows, columns), its dimensions in memory ordered as those of `array`."""
    shape = (*lead, *array.shape[-2:])
    if array.shape != shape or array.flags.c_contiguous:
        return runtime.empty(shape, array.dtype)
    order = sorted(range(array.ndim - 1), key=lambda d: -abs(array.strides[d]))
    flat = runtime.empty([shape[d] for d in order] + [shape[-1]], array.dtype)
    return flat.transpose(*[order.index(d) for d in range(array.ndim - 1)], array.ndim - 1)


def _shared_limit() -> int:
    """Bytes of shared memory that a block of the current device may have."""
    from mlgpu.cuda.arrays import cupy

    return _shared_of(cupy.cuda.runtime.getDevice())


@functools.cache
def _shared_of(device: int) -> int:
    from mlgpu.cuda.arrays import cupy

    return int(cupy.cuda.Device(device).attributes["MaxSharedMemoryPerBlockOptin"])
