"""Types and roundings of NVIDIA's libraries, in NumPy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# The letters in the names of BLAS and LAPACK functions.
LETTERS: dict[str, np.dtype[Any]] = {
    "s": np.dtype("f4"), "d": np.dtype("f8"), "c": np.dtype("c8"), "z": np.dtype("c16"),
    "sc": np.dtype("c8"), "dz": np.dtype("c16"), "cs": np.dtype("c8"), "zd": np.dtype("c16")}
# cudaDataType
BFLOAT16 = 14
TYPES = {0: "f4", 1: "f8", 2: "f2", 3: "i1", 4: "c8", 5: "c16", 8: "u1", 10: "i4", 12: "u4"}


def dtype_of(cuda_type: int) -> np.dtype[Any] | None:
    """NumPy's type for a cudaDataType; None where it has none."""
    name: Any = TYPES.get(cuda_type)
    if cuda_type == BFLOAT16:
        name = import_module("ml_dtypes").bfloat16
    return None if name is None else np.dtype(name)


def real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of a complex number's parts."""
    return np.empty(0, dtype).real.dtype


def tf32(values: Array) -> Array:
    """Rounded to TF32's 10 bits of mantissa, ties away from zero (the PTX ISA's cvt.rna.tf32)."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    finite = (bits & 0x7F80_0000) != 0x7F80_0000
    rounded = np.where(finite, (bits + np.uint32(0x1000)) & np.uint32(0xFFFF_E000), bits)
    return rounded.view(values.dtype)
