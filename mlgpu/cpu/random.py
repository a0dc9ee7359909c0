"""From the words of a draw to numbers in an array, in blocks on the parallel loop.

The words are cut into unsigned integers u of 16, 32 or 64 bits, low bits first, in the order of the
elements (C order); an element's number is a function of its own u, or of its pair's:

    uniform        u's high bits / 2**bits, as many as the dtype's significand has: 53 of 64, 24 of
                   32, 11 (float16) or 8 (bfloat16) of 16; then * (high - low) + low in float32 or
                   float64, without fused multiply-add
    normal         Box-Muller: elements 2i and 2i+1 are sqrt(-2 log a) cos and sin of 2 pi b, with
                   a = (u[2i] + 1/2) / 2**bits, b = u[2i+1] / 2**bits, of the 53 high bits where
                   there are 64, each step rounded to float32 or float64
    integers       floor(u * n / 2**64), or of 128 bits for n > 2**32: within 2**-32 of uniform
    bernoulli      u < p * 2**32, 32 bits; dropout drops exactly there
    permutation    the order of n 64-bit words

All but the normal are the same bits wherever they are computed; that differs by what log, sin and
cos do, less than 2e-6 (float32) or 1e-14 (float64) from exact ones on the same a and 2 pi b.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.cpu.rows import wide
from mlgpu.cpu.runtime import empty
from mlgpu.cpu.threads import parallel
from mlgpu.random import Stream

Array = np.ndarray[Any, Any]

BLOCK = 1 << 17  # elements; whole blocks of words, so that no pair is torn


def unsigned(stream: Stream, bits: int, first: int, count: int) -> Array:
    """Integers first ... first + count - 1 of a draw; `first` at the start of a word."""
    per_word = 64 // bits
    words = stream.words(first // per_word, -(-count // per_word))
    return words.astype("<u8", copy=False).view(f"<u{bits // 8}")[:count]


def words_for(count: int, bits: int) -> int:
    """Words that `count` integers of `bits` bits take."""
    return -(-count * bits // 64)


def width(dtype: Any) -> int:
    """Bits that one uniform number of this dtype is made from."""
    return {2: 16, 4: 32, 8: 64}[dtype.itemsize]


def pair_width(dtype: Any) -> int:
    """Bits that one normal number of this dtype is made from, and any function of (0, 1)."""
    return 64 if dtype.itemsize == 8 else 32


def _each(out: Array, function: Callable[[Array, int], None]) -> None:
    """`function(block, first)` for blocks of `out` in C order."""
    flat = out.reshape(-1) if out.flags.c_contiguous else empty((out.size,), out.dtype)

    def body(task: int) -> None:
        first = task * BLOCK
        function(flat[first:first + BLOCK], first)

    parallel(-(-flat.size // BLOCK), lambda: body, flat.size)
    if not out.flags.c_contiguous:
        np.copyto(out, flat.reshape(out.shape))


def _parts(out: Array) -> Array:
    """A complex array as its real and imaginary parts."""
    if out.dtype.kind != "c":
        return out
    return out.view(out.real.dtype) if out.ndim else out.reshape(1).view(out.real.dtype)


def _real(function: Callable[..., None]) -> Callable[..., None]:
    """Let a function that fills real arrays fill complex ones too, real before imaginary."""
    @functools.wraps(function)
    def filled(out: Array, *args: Any) -> None:
        if out.dtype.kind == "c" and not out.flags.c_contiguous:
            dense = empty(out.shape, out.dtype)
            function(_parts(dense), *args)
            np.copyto(out, dense)
        else:
            function(_parts(out), *args)
    return filled


def _computed(block: Array) -> Array:
    """Where a block is computed: in place, or in float32 for the half types."""
    return block if block.dtype == wide(block.dtype) else np.empty(block.shape, np.float32)


_DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}


@_real
def uniform(out: Array, stream: Stream, low: float, high: float) -> None:
    """Uniform in [low, high)."""
    bits, digits = width(out.dtype), _DIGITS[out.dtype.name]
    compute = wide(out.dtype).type
    bottom, scale = compute(low), compute(high) - compute(low)

    def fill(block: Array, first: int) -> None:
        raw = unsigned(stream, bits, first, block.size)
        np.right_shift(raw, bits - digits, out=raw)
        x = _computed(block)
        x[...] = raw.view(f"<i{bits // 8}")  # a signed integer converts faster
        np.multiply(x, compute(2.0 ** -digits), out=x)
        if bottom or scale != 1:
            np.multiply(x, scale, out=x)
            np.add(x, bottom, out=x)
        if x is not block:
            block[...] = x
        if bottom or scale != 1:  # rounding may have reached the end, which is not included
            block[block == block.dtype.type(high)] = low

    _each(out, fill)


def opened(raw: Array, compute: Any = np.float64) -> Array:
    """Numbers in (0, 1] from 32- or 64-bit integers: (u + 1/2) / 2**bits."""
    if raw.dtype.itemsize == 8:
        x = (raw >> 11).astype(np.float64)
        return (x + 0.5) * 2.0 ** -53
    x = raw.astype(compute)
    np.multiply(x, compute(2.0 ** -32), out=x)
    return np.add(x, compute(2.0 ** -33), out=x)  # type: ignore[no-any-return]


def _cos_sin(angle: Array) -> tuple[Array, Array]:
    if angle.dtype == np.float32:
        return np.cos(angle), np.sin(angle)
    # By the tangent of half the angle: NumPy's sin and cos of float64 take ten times as long.
    tangent = np.tan(0.5 * angle)
    square = tangent * tangent
    share = 1 / (1 + square)
    return (1 - square) * share, 2 * tangent * share


@_real
def normal(out: Array, stream: Stream, mean: float, std: float) -> None:
    """Normal with this mean and standard deviation."""
    bits, compute = pair_width(out.dtype), wide(out.dtype).type

    def fill(block: Array, first: int) -> None:
        pairs = -(-block.size // 2)
        raw = unsigned(stream, bits, first, 2 * pairs)
        radius = opened(raw[0::2], compute)
        np.log(radius, out=radius)
        np.multiply(radius, compute(-2), out=radius)
        np.sqrt(radius, out=radius)
        turns = raw[1::2] >> 11 if bits == 64 else raw[1::2]
        angle = turns.astype(compute)
        np.multiply(angle, compute(2 * math.pi * 2.0 ** -(53 if bits == 64 else 32)), out=angle)
        z = np.empty((pairs, 2), compute)
        cosine, sine = _cos_sin(angle)
        np.multiply(radius, cosine, out=z[:, 0])
        np.multiply(radius, sine, out=z[:, 1])
        if std != 1:
            np.multiply(z, compute(std), out=z)
        if mean != 0:
            np.add(z, compute(mean), out=z)
        block[...] = z.reshape(-1)[:block.size]

    _each(out, fill)


def transformed(out: Array, stream: Stream, function: Callable[[Array], Array]) -> None:
    """`function` of numbers uniform in (0, 1]: float64 for float64, else float32."""
    bits = pair_width(out.dtype)
    compute = np.float64 if bits == 64 else np.float32

    def fill(block: Array, first: int) -> None:
        block[...] = function(opened(unsigned(stream, bits, first, block.size), compute))

    _each(out, fill)


def bernoulli(out: Array, stream: Stream, p: float) -> None:
    """1 with probability p, else 0."""
    threshold = math.ceil(p * 2.0 ** 32)

    def fill(block: Array, first: int) -> None:
        if threshold == 0:
            block.fill(0)
        else:
            raw = unsigned(stream, 32, first, block.size)
            block[...] = np.less_equal(raw, np.uint32(threshold - 1))

    _each(out, fill)


def limit(p: float) -> int:
    """The largest of 32-bit integers that drop with probability p, 0 < p."""
    return math.ceil(p * 2.0 ** 32) - 1


def kept(stream: Stream, p: float, first: int, count: int) -> Array:
    """False with probability p (0 < p), else True, for elements first ... first + count - 1."""
    return np.greater(unsigned(stream, 32, first, count), np.uint32(limit(p)))


def bernoulli_each(out: Array, stream: Stream, p: Array) -> None:
    """1 with the probability in the same place of `p`, else 0."""
    flat = np.ascontiguousarray(p).reshape(-1)

    def fill(block: Array, first: int) -> None:
        threshold = flat[first:first + block.size].astype(np.float64) * 2.0 ** 32
        block[...] = unsigned(stream, 32, first, block.size) < threshold

    _each(out, fill)


def integer_words(count: int, n: int) -> int:
    """Words that `integers` takes."""
    return count if n <= 2**32 or n == 2**64 else 2 * count


def integers(out: Array, stream: Stream, low: int, n: int) -> None:
    """Integers in [low, low + n), n <= 2**64, in any real dtype that can hold them."""
    def fill(block: Array, first: int) -> None:
        if n <= 2**32:
            x = _scaled(stream.words(first, block.size), n)
        elif n == 2**64:
            x = stream.words(first, block.size)
        else:
            x = _scaled_wide(stream.words(2 * first, 2 * block.size).reshape(-1, 2), n)
        np.add(x, np.uint64(low % 2**64), out=x)
        if block.dtype.kind == "b":
            block[...] = x != 0
        else:
            block[...] = x.view(np.int64)

    _each(out, fill)


def _scaled(words: Array, n: int) -> Array:
    """floor(words * n / 2**64) for n <= 2**32, in 64-bit arithmetic."""
    factor, half = np.uint64(n), np.uint64(32)
    low = words & np.uint64(2**32 - 1)
    np.multiply(low, factor, out=low)
    np.right_shift(low, half, out=low)
    np.right_shift(words, half, out=words)
    np.multiply(words, factor, out=words)
    np.add(words, low, out=words)
    return np.right_shift(words, half, out=words)


def _scaled_wide(words: Array, n: int) -> Array:
    """floor((words[:, 0] + 2**64 words[:, 1]) * n / 2**128), n < 2**64."""
    carry, _ = _product(words[:, 0], n)
    high, low = _product(words[:, 1], n)
    total = low + carry
    return high + (total < low)


def _product(a: Array, n: int) -> tuple[Array, Array]:
    """The high and the low 64 bits of a * n, by schoolbook multiplication of 32-bit halves."""
    half, mask = np.uint64(32), np.uint64(2**32 - 1)
    n0, n1 = np.uint64(n & 0xFFFFFFFF), np.uint64(n >> 32)
    a0, a1 = a & mask, a >> half
    low, cross, other = a0 * n0, a1 * n0, a0 * n1
    middle = (low >> half) + (cross & mask) + (other & mask)
    high = a1 * n1 + (cross >> half) + (other >> half) + (middle >> half)
    return high, (middle << half) | (low & mask)


def permutation(stream: Stream, n: int) -> Array:
    """0 ... n-1 in random order, int64."""
    words = stream.words(0, n)
    order = np.argsort(words)
    ordered = words[order]
    if (ordered[1:] == ordered[:-1]).any():  # about once in 2**65 / n**2: equal words by position
        order = np.argsort(words, kind="stable")
    return order
