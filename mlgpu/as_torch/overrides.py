"""torch.overrides: functions are not dispatched to subclasses, so nothing overrides them."""

from __future__ import annotations

from typing import Any

from mlgpu import Tensor


def has_torch_function(relevant_args: Any) -> bool:
    """False."""
    return False


def has_torch_function_variadic(*args: Any) -> bool:
    """False."""
    return False


has_torch_function_unary = has_torch_function


def is_tensor_like(inp: Any) -> bool:
    """Whether it is a Tensor."""
    return isinstance(inp, Tensor)
