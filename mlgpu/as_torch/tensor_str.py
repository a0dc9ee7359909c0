"""torch._tensor_str: how tensors are written, for what prints its own."""

from __future__ import annotations

from typing import Any

from mlgpu import Tensor
from mlgpu.printing import get_printoptions


def __getattr__(name: str) -> Any:
    if name == "PRINT_OPTS":
        return get_printoptions()
    raise AttributeError(name)


def _tensor_str(self: Tensor, indent: int) -> str:
    """The numbers, each line after the first moved in."""
    text = repr(self.detach()).removeprefix("tensor(").removesuffix(")")
    return text.replace("\n", "\n" + " " * max(indent - len("tensor("), 0))
