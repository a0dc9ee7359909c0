"""What elementwise functions take: tensors and Python's numbers."""

from __future__ import annotations

from mlgpu.tensor import Tensor

Number = complex | float | int | bool
Operand = Tensor | Number
