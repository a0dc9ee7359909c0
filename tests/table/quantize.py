"""Rows for mlgpu/ops/quantize.py; the gradient, which is not its derivative, is in
test_quantization.py.
"""

from __future__ import annotations

import numpy as np
from table.case import In, both

SCALES, ZEROS = np.array([0.25, 0.5, 0.125]), np.array([0, -3, 5])
PER_CHANNEL = (In((3,), dtype="float32", make=lambda rng, shape: SCALES),
               In((3,), dtype="int32", make=lambda rng, shape: ZEROS))


def rounded(x, scale, zero, low, high):
    return (np.clip(np.rint(x / scale) + zero, low, high) - zero) * scale


def per_tensor(tag, *settings, shape=(3, 5)):
    return both(f"fake_quantize_per_tensor_affine{tag}",
                lambda lib, x: lib.fake_quantize_per_tensor_affine(x, *settings),
                lambda x: rounded(x, *settings), (In(shape, -4, 4),), gradient=False)


def per_channel(tag, axis, shape):
    wide = [-1 if i == axis else 1 for i in range(len(shape))]
    return both(f"fake_quantize_per_channel_affine{tag}",
                lambda lib, x, s, z: lib.fake_quantize_per_channel_affine(x, s, z, axis, -8, 7),
                lambda x, s, z: rounded(x, s.reshape(wide), z.reshape(wide), -8, 7),
                (In(shape, -4, 4), *PER_CHANNEL), gradient=False)


CASES = [
    per_tensor("", 0.25, 0, -8, 7),
    per_tensor("-zero", 0.0625, 3, 0, 31),
    per_tensor("-scalar", 0.5, -1, -2, 7, shape=()),
    per_tensor("-empty", 0.5, 0, -2, 7, shape=(0, 3)),
    per_channel("", 0, (3, 5)),
    per_channel("-last", 1, (2, 3)),
    per_channel("-middle", 1, (2, 3, 4)),
]
