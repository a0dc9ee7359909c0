"""Philox4x64-10 in compiled loops: the words of `mlgpu.random.philox`, made where they are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mlgpu.cpu.fast.compiler import compiled, inlined

u32, u64 = np.uint32, np.uint64

_typed: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic


@_typed
def _product(context: Any, a: Any, b: Any) -> Any:
    """The high and the low 64 bits of the product of two uint64, by one instruction."""
    def multiply(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
        wide, word = ir.IntType(128), ir.IntType(64)
        product = builder.mul(*[builder.zext(x, wide) for x in operands])
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), word)
        return context.make_tuple(builder, signature.return_type,
                                  [high, builder.trunc(product, word)])

    return types.UniTuple(types.uint64, 2)(types.uint64, types.uint64), multiply


# Multipliers and key steps of Salmon et al. 2011.
_M0, _M1 = u64(0xD2E7470EE14C6C93), u64(0xCA5A826395121157)
_W0, _W1 = u64(0x9E3779B97F4A7C15), u64(0xBB67AE8584CAA73B)


@inlined
def philox(seed: Any, block: Any) -> Any:
    """The four words of the counter (block, 0, 0, 0) under the key (seed, 0)."""
    a, b, c, d = block, u64(0), u64(0), u64(0)
    k0, k1 = seed, u64(0)
    for _ in range(10):
        high0, low0 = _product(_M0, a)
        high1, low1 = _product(_M1, c)
        a, b, c, d = high1 ^ b ^ k0, low1, high0 ^ d ^ k1, low0
        k0 += _W0
        k1 += _W1
    return a, b, c, d


@compiled
def words(out: Any, seed: Any, block: Any) -> None:
    """Fill `out` (uint64, a multiple of 4) with the words from a block on."""
    for i in range(out.size // 4):
        a, b, c, d = philox(seed, block + u64(i))
        out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3] = a, b, c, d


@compiled
def dropout(out: Any, x: Any, seed: Any, block: Any, limit: Any, dropped: Any, kept: Any) -> None:
    """out = x * (kept if its 32 bits are above `limit`, else dropped), eight elements a block."""
    n = out.size
    for i in range(n // 8):
        a, b, c, d = philox(seed, block + u64(i))
        at = 8 * i
        out[at] = x[at] * (kept if u32(a) > limit else dropped)
        out[at + 1] = x[at + 1] * (kept if u32(a >> u64(32)) > limit else dropped)
        out[at + 2] = x[at + 2] * (kept if u32(b) > limit else dropped)
        out[at + 3] = x[at + 3] * (kept if u32(b >> u64(32)) > limit else dropped)
        out[at + 4] = x[at + 4] * (kept if u32(c) > limit else dropped)
        out[at + 5] = x[at + 5] * (kept if u32(c >> u64(32)) > limit else dropped)
        out[at + 6] = x[at + 6] * (kept if u32(d) > limit else dropped)
        out[at + 7] = x[at + 7] * (kept if u32(d >> u64(32)) > limit else dropped)
    if n % 8:
        last = philox(seed, block + u64(n // 8))
        for j in range(n % 8):
            bits = u32(last[j // 2] >> u64(32 * (j % 2)))
            at = n // 8 * 8 + j
            out[at] = x[at] * (kept if bits > limit else dropped)
