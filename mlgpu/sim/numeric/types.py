"""How values of each PTX type lie in NumPy arrays.

bfloat16, tf32 and the packed types have no arithmetic in NumPy: they are held as their bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(code) for name, code in {
    "pred": "?",
    "b8": "u1", "u8": "u1", "s8": "i1", "e4m3": "u1", "e5m2": "u1",
    "e2m1": "u1", "e2m1x2": "u1", "e3m2": "u1", "e2m3": "u1", "ue8m0": "u1",
    "b16": "u2", "u16": "u2", "s16": "i2", "f16": "f2", "bf16": "u2", "e4m3x2": "u2",
    "e5m2x2": "u2", "e3m2x2": "u2", "e2m3x2": "u2", "ue8m0x2": "u2",
    "b32": "u4", "u32": "u4", "s32": "i4", "f32": "f4", "tf32": "u4", "f16x2": "u4",
    "bf16x2": "u4", "u16x2": "u4", "s16x2": "u4",
    "b64": "u8", "u64": "u8", "s64": "i8", "f64": "f8", "f32x2": "u8",
}.items()}
