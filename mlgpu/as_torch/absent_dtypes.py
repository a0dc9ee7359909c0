"""Dtypes of PyTorch's that mlgpu does not have: programs put them in tables; using one raises."""

from __future__ import annotations

import ml_dtypes
import numpy as np


class AbsentDType:
    """The name of a dtype; whatever takes a dtype refuses it with DTypeError, naming it."""

    is_complex = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_floating_point = name.startswith("float")
        self.is_signed = not name.startswith(("uint", "quint"))
        found = getattr(ml_dtypes, name, None)
        self.numpy = None if found is None else np.dtype(found)  # for torch.finfo

    def to_real(self) -> AbsentDType:
        """Itself: none of those with a NumPy dtype is complex."""
        return self

    def __repr__(self) -> str:
        return f"torch.{self.name}"


ABSENT = {name: AbsentDType(name) for name in """complex32 float8_e4m3fn float8_e4m3fnuz float8_e5m2
    float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2 qint8 qint32 quint8 uint16 uint32 uint64
    """.split()}
