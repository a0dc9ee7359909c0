"""Which lane and register of a warp hold which element of a matrix, from the PTX manual's figures.

A register of W warps is an array (W, 32).  A lane's registers hold its elements in order, the first
one in the low bits of the first register.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LANES = np.arange(32)
QUAD, MEMBER = LANES >> 2, LANES & 3  # "groupID" and "threadID_in_group" in the manual
WORD = 32  # bits


@dataclass(frozen=True, eq=False)
class Fragment:
    """The elements that each lane holds of a matrix.

    `rows` and `cols` are (32, elements of a lane); `packed` elements share a register.  The
    elements of a register follow each other along the columns, or along the rows where `upright`.
    """

    rows: Array
    cols: Array
    packed: int
    upright: bool = False

    @property
    def registers(self) -> int:
        """How many registers of a lane it takes."""
        return int(self.rows.shape[1]) // self.packed

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return int(self.rows.max()) + 1, int(self.cols.max()) + 1

    def gather(self) -> Array:
        """Where each register's worth of the matrix is: `register * 32 + lane`, as a matrix.

        The matrix is (rows, cols / packed), or (cols, rows / packed) where `upright`.
        """
        rows, cols = self.rows[:, ::self.packed], self.cols[:, ::self.packed]
        height, width = self.shape
        if self.upright:
            rows, cols, height, width = cols, rows, width, height
        where = np.empty((height, width // self.packed), np.intp)
        where[rows, cols // self.packed] = np.arange(self.registers) * len(LANES) + LANES[:, None]
        return where

    def scatter(self) -> list[Array]:
        """Of each register, where its elements are in the matrix laid out row by row.

        An array of (32 * packed) places for each register.
        """
        places = self.rows * self.shape[1] + self.cols
        return [places[:, r * self.packed:(r + 1) * self.packed].reshape(-1)
                for r in range(self.registers)]


def _tiles(length: int, k: int, packed: int, tile: int) -> tuple[Array, Array]:
    """Places along the outer dimension and along K of a multiplicand's elements.

    A quad holds a row of 4 registers' worth along K; registers go first through the halves of a
    tile (8 rows each), then along K, then to the next tile.
    """
    outer, inner = [], []
    for start in range(0, length, tile):
        for step in range(0, k, 4 * packed):
            for half in range(start, start + tile, 8):
                for element in range(packed):
                    outer.append(half + QUAD)
                    inner.append(step + packed * MEMBER + element)
    return np.stack(outer, 1), np.stack(inner, 1)


def multiplicand_a(m: int, k: int, packed: int) -> Fragment:
    """A (m x k) of every `mma` but m8n8k4 of f16."""
    rows, cols = _tiles(m, k, packed, min(m, 16))
    return Fragment(rows, cols, packed)


def multiplicand_b(k: int, n: int, packed: int) -> Fragment:
    """B (k x n) of every `mma` but m8n8k4 of f16."""
    cols, rows = _tiles(n, k, packed, 8)
    return Fragment(rows, cols, packed, upright=True)


def accumulator(m: int, n: int, packed: int) -> Fragment:
    """C and D (m x n) of every `mma` but m8n8k4 of f16."""
    tile = min(m, 16)
    rows, cols = [], []
    for top in range(0, m, tile):
        for left in range(0, n, 8):
            for half in range(top, top + tile, 8):
                for element in range(2):
                    rows.append(half + QUAD)
                    cols.append(left + 2 * MEMBER + element)
    return Fragment(np.stack(rows, 1), np.stack(cols, 1), packed)


# m8n8k4 of f16 is four products at once, each by a quad and the quad 16 lanes on.  The four
# matrices lie below each other (A, C, D) or beside each other (B).

_PRODUCT, _UPPER = QUAD % 4, QUAD // 4


def volta_a(layout: str) -> Fragment:
    """The four A (8 x 4 each) of m8n8k4 of f16; layout "row" or "col"."""
    long, short = 4 * _UPPER[:, None] + np.arange(4), MEMBER[:, None] + np.zeros(4, int)
    if layout == "col":
        return Fragment(8 * _PRODUCT[:, None] + long, short, 2, upright=True)
    return Fragment((8 * _PRODUCT + 4 * _UPPER + MEMBER)[:, None] + np.zeros(4, int),
                    np.zeros((32, 1), int) + np.arange(4), 2)


def volta_b(layout: str) -> Fragment:
    """The four B (4 x 8 each) of m8n8k4 of f16; layout "row" or "col"."""
    mirror = volta_a("row" if layout == "col" else "col")
    return Fragment(mirror.cols, mirror.rows, 2, upright=layout == "col")


def volta_accumulator(type: str) -> Fragment:
    """The four C or D (8 x 8 each) of m8n8k4 of f16; type "f16" or "f32"."""
    i, first = np.arange(8), 8 * _PRODUCT + 4 * _UPPER
    if type == "f16":
        return Fragment((first + MEMBER)[:, None] + np.zeros(8, int), np.zeros((32, 1), int) + i, 2)
    return Fragment(first[:, None] + (LANES & 1)[:, None] + (i & 2),
                    (LANES & 2)[:, None] + (i & 4) + (i & 1), 1)


# -- wmma ------------------------------------------------------------------------------------------

_BITS = {"f16": 16, "bf16": 16, "tf32": 32, "f32": 32, "s32": 32, "f64": 64,
         "s8": 8, "u8": 8, "s4": 4, "u4": 4, "b1": 1}
_K16 = ("m16n16k16", "m32n8k16", "m8n32k16")
_WMMA = {"f16": _K16, "bf16": _K16, "s8": _K16, "u8": _K16, "tf32": ("m16n16k8",),
         "f64": ("m8n8k4",), "s4": ("m8n8k32",), "u4": ("m8n8k32",), "b1": ("m8n8k128",)}
_ACCUMULATORS = {"f16": _K16, "f32": (*_K16, "m16n16k8"), "f64": ("m8n8k4",),
                 "s32": (*_K16, "m8n8k32", "m8n8k128")}
_REGISTER = {"f32": "f4", "f64": "f8", "s32": "i4"}  # the dtypes of registers; others are uint32


def extents(shape: str) -> tuple[int, int, int]:
    """M, N and K of a shape: "m16n8k16" -> (16, 8, 16).  ValueError where it is none."""
    parts = shape.replace("n", "m").replace("k", "m").split("m")
    if len(parts) != 4 or parts[0] or not all(part.isdecimal() for part in parts[1:]):
        raise ValueError(f"{shape} is not the shape of a matrix product")
    return int(parts[1]), int(parts[2]), int(parts[3])


@dataclass(frozen=True, eq=False)
class Wmma:
    """A fragment of wmma.load and wmma.store: what each lane moves between memory and registers.

    The manual leaves the layout open; this is `mma`'s, tile after tile.  Each lane moves the items
    (rows[lane, i], cols[lane, i]), which are `item` bytes wide: an element, or a word of 8 or 32
    elements for s4, u4 and b1 (then rows and cols count words along K).
    """

    matrix: str  # "a", "b" or "c"; D is a "c"
    fragment: Fragment  # of the items
    type: str
    item: int  # bytes
    copies: int  # how often the registers repeat: f16 multiplicands take 8 whatever the shape

    @property
    def registers(self) -> int:
        """How many registers of a lane it takes."""
        return self.fragment.registers * self.copies

    @property
    def elements(self) -> int:
        """Elements in an item."""
        return 8 * self.item // _BITS[self.type]

    def default_stride(self, layout: str) -> int:
        """Elements from one row (or column) to the next where the instruction names no stride."""
        rows, cols = self.fragment.shape
        if self.elements > 1:
            return self.elements * (cols if self.matrix == "a" else rows)
        return cols if layout == "row" else rows

    def offsets(self, layout: str, stride: Array | int) -> Array:
        """Byte offsets (…, 32, items) from the matrix's address; the stride (…) is in elements."""
        outer, inner = self.fragment.rows, self.fragment.cols
        if layout == "col":
            outer, inner = inner, outer
        step = np.asarray(stride, np.int64)[..., None, None] * self.item // self.elements
        offsets: Array = outer * step + inner * self.item
        return offsets

    def run(self, layout: str) -> int:
        """How many items in succession are neighbours in memory: they may move as one access."""
        lies = self.fragment.upright == (layout == "col")
        return self.fragment.packed if lies else 1

    def pack(self, items: Array) -> list[Array]:
        """Registers from the loaded items: (W, 32, items) of any dtype of `item` bytes."""
        words = np.ascontiguousarray(items).view(_REGISTER.get(self.type, "u4"))
        return [np.ascontiguousarray(words[..., r]) for r in range(words.shape[-1])] * self.copies

    def unpack(self, registers: Sequence[Array]) -> Array:
        """The items (W, 32, items) that the registers hold, of an unsigned dtype."""
        words = np.stack(registers[:self.fragment.registers], axis=-1)
        return words.view(f"u{self.item}")


def wmma_fragment(matrix: str, shape: str, type: str) -> Wmma:
    """The fragment of a wmma instruction: matrix "a", "b", "c" or "d", as in `wmma.load.a`.

    ValueError where there is no such instruction.
    """
    m, n, k = extents(shape)
    if matrix in ("a", "b"):
        if shape not in _WMMA.get(type, ()):
            raise ValueError(f"there is no wmma {matrix} of {type} for {shape}")
        bits = _BITS[type] if _BITS[type] >= 8 else WORD  # of an item
        packed = max(1, WORD // bits)
        k //= bits // _BITS[type]
        fragment = (multiplicand_a(m, k, packed) if matrix == "a"
                    else multiplicand_b(k, n, packed))
        copies = 8 // fragment.registers if type == "f16" else 1
        return Wmma(matrix, fragment, type, bits // 8, copies)
    if matrix not in ("c", "d") or shape not in _ACCUMULATORS.get(type, ()):
        raise ValueError(f"there is no wmma {matrix} of {type} for {shape}")
    packed = 2 if type == "f16" else 1
    return Wmma("c", accumulator(m, n, packed), type, _BITS[type] // 8, 1)


# -- 8 x 8 matrices of 16-bit elements: ldmatrix, stmatrix, movmatrix ------------------------------

def ldmatrix_registers(rows: Array, num: int, trans: bool) -> list[Array]:
    """The `num` registers (W, 32) of ldmatrix .m8n8 .b16.

    `rows` is (W, 8 * num, 8) of uint16: row r is the 16 bytes at the address in lane r; rows 0 to 7
    make the first matrix, 8 to 15 the second.  Lanes from 8 * num on have no say.
    """
    matrices = rows.reshape(-1, num, 8, 8)
    if trans:
        matrices = matrices.swapaxes(2, 3)
    words = np.ascontiguousarray(matrices).view(np.uint32).reshape(-1, num, len(LANES))
    return [words[:, i] for i in range(num)]


def stmatrix_rows(registers: Sequence[Array], trans: bool) -> Array:
    """The rows (W, 8 * num, 8) of uint16 that stmatrix .m8n8 .b16 stores: row r goes to lane r's
    address.  The inverse of ldmatrix_registers."""
    matrices = np.stack(registers, axis=1).view(np.uint16).reshape(-1, len(registers), 8, 8)
    if trans:
        matrices = np.ascontiguousarray(matrices.swapaxes(2, 3))
    return matrices.reshape(-1, 8 * len(registers), 8)


def movmatrix(register: Array) -> Array:
    """movmatrix .m8n8 .trans .b16: the matrix in a register, transposed."""
    return ldmatrix_registers(stmatrix_rows([register], trans=False), 1, trans=True)[0]
