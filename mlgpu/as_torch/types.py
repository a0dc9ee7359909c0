"""torch.types: names for annotations."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

from mlgpu import Device as _device
from mlgpu import Size as Size
from mlgpu import Tensor as Tensor
from mlgpu.dtypes import dtype as _dtype

_bool, _int, _float, _complex = builtins.bool, builtins.int, builtins.float, builtins.complex
Number = int | float | bool
_size = Size | list[int] | tuple[int, ...]
Device = _device | str | int | None
TensorLike = Tensor | Sequence[Any]
_TensorOrTensors = Tensor | Sequence[Tensor]
__all__ = ["Device", "Number", "Size", "Tensor", "_dtype"]
