"""Products of matrices spread over a warp: `mma` and `wmma.mma`.

Factors are exact, sums are float32 in the BLAS's order (the hardware's is unspecified), a float16
accumulator rounds once at the end, integers are exact.  Inputs of tf32 lose their low 13 bits, as
on hardware, so that a forgotten `cvt.rna.tf32` shows.

Compared with an H200, everything is the same but the last bits of float32 sums.  Both err by at
most 5 * 2^-24 times the sum of the sizes of what is added; the H200 cuts its sums, so that they are
too small by 0.2 to 0.5 such units on average, while these err either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from mlgpu.sim.numeric import double, fp8, half
from mlgpu.sim.numeric.fragments import Fragment

Array = np.ndarray[Any, Any]
Registers = Sequence[Array]  # each (W, 32)


@cache
def _table(type: str, bits: int) -> Array:
    """The float32 values of each code of a cell, by the type and the bits of its container.

    A cell is 16 or 8 bits and holds one element, or two of 4 bits (then two values lie in one item
    of 64 bits).  In a container of 8 bits, e2m1 sits in the middle, e3m2 and e2m3 at the bottom.
    """
    codes: Array = np.arange(256)
    values: Array
    if type == "f16":
        values = np.arange(65536, dtype="u2").view("f2").astype("f4")
        return values
    if type in ("s8", "u8"):
        values = codes.astype("u1").view("i1" if type == "s8" else "u1").astype("f4")
        return values
    if type in ("s4", "u4"):
        values = np.arange(16, dtype="f4")
        values[8:] -= 16 * (type == "s4")
    else:
        values = fp8.values(type)
    if bits == 4:
        pairs: Array = np.stack([values[codes & 15], values[codes >> 4]], axis=1).view("u8")
        return pairs[:, 0]
    place = codes >> 2 if type == "e2m1" else codes
    values = values[place & (len(values) - 1)]
    return values


@dataclass(frozen=True, eq=False)
class Operand:
    """A matrix of a product: where its elements are, what their bits are worth, its registers."""

    fragment: Fragment
    type: str
    bits: int  # of an element's container
    registers: int  # of a lane; more than the fragment's where they repeat

    @cached_property
    def _where(self) -> Array:
        return self.fragment.gather()

    @cached_property
    def _places(self) -> list[Array]:
        return self.fragment.scatter()

    @property
    def register(self) -> str:
        """The type of its registers."""
        return self.type if self.type in ("f32", "s32", "f64") else "b32"

    def read(self, registers: Registers) -> Array:
        """The matrices (W, rows, columns); rows of A and columns of B of b1 are words of 32."""
        cells = np.concatenate(registers[:self.fragment.registers], axis=1)
        cells = cells.take(self._where, axis=1)
        if self.type == "bf16":
            cells = (cells.view("u2").astype("u4") << 16).view("f4")
        elif self.type == "tf32":
            cells = (cells & np.uint32(0xFFFFE000)).view("f4")
        elif self.register == "b32" and self.type != "b1":
            codes = cells.view("u2" if self.bits == 16 else "u1")
            cells = _table(self.type, self.bits).take(codes).view("f4")
        return cells.swapaxes(1, 2) if self.fragment.upright else cells

    def write(self, matrices: Array) -> list[Array]:
        """The registers that hold matrices (W, …): of D only."""
        flat = matrices.reshape(len(matrices), -1)
        if self.type != "f16":
            return [flat.take(places, axis=1) for places in self._places]
        codes = half.float_to_half(flat)
        return [codes.take(places, axis=1).view("u4") for places in self._places]


@dataclass(frozen=True, eq=False)
class Product:
    """D = A B + C for every warp; calling it with the registers of A, B and C gives those of D."""

    a: Operand
    b: Operand
    c: Operand
    d: Operand
    count: int = 1  # products at once; their A, C and D lie below each other, their B side by side
    saturate: bool = False
    bits: str = ""  # "xor" or "and" where the elements are single bits
    chunks: int = 0  # scales of a row of A and of a column of B; 0: not scaled
    scale: str = ""  # the type of the scales
    in_halves: bool = False  # two products, of the pairs k % 4 < 2 and of the others, and C last

    def __call__(self, a: Registers, b: Registers, c: Registers,
                 scales: Registers = ()) -> list[Array]:
        left, right, start = self.a.read(a), self.b.read(b), self.c.read(c)
        if self.bits:
            product = self._bitwise(left, right)
        elif self.chunks:
            product = self._scaled(left, right, scales)
        elif self.count > 1:
            left = left.reshape(len(left), self.count, -1, left.shape[2])
            right = right.reshape(*right.shape[:2], self.count, -1).swapaxes(1, 2)
            product = (left @ right).reshape(start.shape)
        elif self.d.type == "f64":
            return self.d.write(_fused(left, right, start))
        elif self.in_halves:
            product = _in_halves(left, right)
        else:
            product = left @ right
        if self.d.type == "s32":  # a float32 holds these products exactly
            product = product.astype("i4")
            if self.saturate:
                exact = start.astype("i8") + product
                return self.d.write(exact.clip(-1 << 31, (1 << 31) - 1).astype("i4"))
        total = start + product
        if self.a.type in ("bf16", "tf32") and not np.isfinite(total).all():
            _again(total, left, right, start)
        return self.d.write(total)

    def flat(self, registers: list[Array]) -> list[Array]:
        """The same with the registers of A, B, C and the scales in one list."""
        b = self.a.registers
        c = b + self.b.registers
        end = c + self.c.registers
        return self(registers[:b], registers[b:c], registers[c:end], registers[end:])

    def _bitwise(self, left: Array, right: Array) -> Array:
        columns = right.swapaxes(1, 2)[:, None]
        both = left[:, :, None] & columns if self.bits == "and" else left[:, :, None] ^ columns
        ones: Array = np.bitwise_count(both).sum(axis=3, dtype="i4")
        return ones

    def _scaled(self, left: Array, right: Array, scales: Registers) -> Array:
        """The sum over the chunks of K; scales are (data, byte-id, thread-id) of A, then of B."""
        warps, k = len(left), left.shape[2]
        left = left.reshape(warps, -1, self.chunks, k // self.chunks).swapaxes(1, 2)
        right = right.reshape(warps, self.chunks, k // self.chunks, -1)
        rows, columns = np.arange(16), np.arange(8)
        of_a = self._factors(scales[:3], 4 * (rows % 8) + rows // 8, 2)
        of_b = self._factors(scales[3:], 4 * columns, 1)
        chunks = (left @ right) * of_a[..., None] * of_b[:, :, None]
        total: Array = chunks.sum(axis=1).astype("f4")
        return total

    def _factors(self, scales: Registers, lanes: Array, step: int) -> Array:
        """The scales (W, chunks, rows or columns): of thread-id 0 in `lanes`, of the next one in
        the lanes a step on."""
        data, byte, thread = scales
        members = lanes + step * (thread[:, :1].astype("i8") & (4 // step - 1))
        words = np.take_along_axis(data, members, axis=1)
        shifts = 8 * (byte[:, :1].astype("u4") & 3) + 8 * np.arange(self.chunks, dtype="u4")
        codes = words[:, None] >> shifts[:, :, None]
        signed, mask = ("ue8m0", 255) if self.scale == "ue8m0" else ("e4m3", 127)
        factors: Array = fp8.values(signed).astype("f8").take(codes & np.uint32(mask))
        return factors


# -- sums as hardware has them --------------------------------------------------------------------

def _fused(left: Array, right: Array, start: Array) -> Array:
    """float64: one fused multiply-add after the other, as on an H200."""
    for k in range(left.shape[2]):
        start = double.fma64(left[:, :, k, None], right[:, k, None], start)
    return start


def _in_halves(left: Array, right: Array) -> Array:
    """The product of 8-bit floats for float16 accumulators, rounded after each half of K.

    An H200 converts to float16 two of four elements at a time, and does two products; so a sum may
    overflow half way.
    """
    first = np.arange(left.shape[2]) % 4 < 2
    total = _rounded(left[:, :, first] @ right[:, first])
    return _rounded(total + left[:, :, ~first] @ right[:, ~first])


def _rounded(x: Array) -> Array:
    return half.half_to_float(half.float_to_half(x))


def _again(total: Array, left: Array, right: Array, start: Array) -> None:
    """Compute anew, in float64, the warps where float32 has overflowed, perhaps only on the way:
    hardware's sums have a wider exponent."""
    warps = np.flatnonzero(~np.isfinite(total).all(axis=(1, 2)))
    exact = left[warps].astype("f8") @ right[warps].astype("f8") + start[warps]
    total[warps] = exact.astype("f4")
