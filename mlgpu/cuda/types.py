"""How a dtype is written in the CUDA sources."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes

CTYPES: dict[dtypes.dtype, str] = {
    dtypes.float32: "float", dtypes.float64: "double", dtypes.float16: "__half",
    dtypes.bfloat16: "__nv_bfloat16", dtypes.int8: "signed char", dtypes.int16: "short",
    dtypes.int32: "int", dtypes.int64: "long long", dtypes.uint8: "unsigned char",
    dtypes.bool_: "bool", dtypes.complex64: "ml_complex<float>",
    dtypes.complex128: "ml_complex<double>",
}
_NAMES: dict[Any, str] = {dtype.numpy: name for dtype, name in CTYPES.items()}

# Names that stand for numbers in sources, with what NumPy calls them.
NUMPY: dict[str, Any] = {
    **{name: dtype.numpy for dtype, name in CTYPES.items()},
    "char": np.dtype(np.int8), "ml_index": np.dtype(np.int64), "unsigned": np.dtype(np.uint32),
    "unsigned int": np.dtype(np.uint32), "unsigned short": np.dtype(np.uint16),
    "unsigned long long": np.dtype(np.uint64), "half": dtypes.float16.numpy,
    "__nv_bfloat162": None, "__half2": None,
}


def ctype(dtype: Any) -> str:
    """The C++ name of a NumPy dtype: float, double, __half, long long ..."""
    return _NAMES[dtype]
