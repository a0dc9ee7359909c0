"""Rows for mlgpu/ops/rotary.py."""

from __future__ import annotations

import numpy as np
from table.case import Case, In

import mlgpu


def rotated(x, cos, sin, interleaved):
    """By complex multiplication."""
    y, pairs = x.copy(), cos.shape[-1]
    first, second = ((slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)) if interleaved else
                     (slice(pairs), slice(pairs, 2 * pairs)))
    z = (x[..., first] + 1j * x[..., second]) * (cos + 1j * sin)
    y[..., first], y[..., second] = z.real, z.imag
    return y


def rotary(tag, x, angles, interleaved=False, **options):
    return Case(f"rotary_embedding{'-' if tag else ''}{tag}",
                lambda *xs: mlgpu.nn.functional.rotary_embedding(*xs, interleaved=interleaved),
                (In(x), In(angles), In(angles)),
                lambda *xs: rotated(*xs, interleaved), **options)


def transposed(x, angles):
    """Heads before positions, as attention takes them."""
    def call(x, cos, sin):
        return mlgpu.nn.functional.rotary_embedding(x.transpose(1, 2), cos, sin)

    return Case("rotary_embedding-transposed", call, (In(x), In(angles), In(angles)),
                lambda x, cos, sin: rotated(np.swapaxes(x, 1, 2), cos, sin, False))


CASES = [
    rotary("", (2, 3, 5, 16), (5, 8)),
    rotary("interleaved", (2, 3, 5, 16), (5, 8), True),
    rotary("part", (2, 5, 12), (5, 4)),
    rotary("part-interleaved", (2, 5, 11), (5, 3), True),
    rotary("odd", (3, 7), (3, 3)),
    rotary("batch", (2, 3, 4, 6), (2, 1, 4, 3)),
    rotary("one-angle", (2, 3, 6), (1, 3)),
    rotary("row", (8,), (4,)),
    rotary("many", (2, 1, 2, 3, 2, 3, 2, 8), (2, 3, 1, 3, 1, 4)),
    rotary("none", (2, 0, 4), (2, 1, 2)),
    rotary("no-pairs", (2, 3), (2, 0)),
    transposed((2, 5, 3, 32), (5, 16)),
]
