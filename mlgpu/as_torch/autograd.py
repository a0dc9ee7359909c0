"""torch.autograd beside mlgpu.autograd: what old programs and debugging sessions call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlgpu import Tensor
from mlgpu.errors import DerivativeError


def Variable(data: Tensor, requires_grad: bool = False, volatile: bool = False) -> Tensor:
    """The tensor itself, outside its graph: what a Variable has been since PyTorch 0.4."""
    return data.detach().requires_grad_() if requires_grad else data


class set_detect_anomaly:
    """Nothing: an error in backward names the operation, and a gradient is never dropped."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        """Take PyTorch's arguments."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exception: object) -> None: ...


class detect_anomaly(set_detect_anomaly):
    """Nothing, as `set_detect_anomaly`."""

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(True, check_nan)


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """`backward` of a Function without a derivative of its own: DerivativeError where one is asked.
    """
    from mlgpu import is_grad_enabled, no_grad

    def once(ctx: Any, *grads: Any) -> Any:
        if is_grad_enabled() and any(isinstance(g, Tensor) and g.requires_grad for g in grads):
            raise DerivativeError(f"{type(ctx).__name__}: backward is marked as differentiable "
                                  "only once; call it without create_graph")
        with no_grad():
            return backward(ctx, *grads)

    return once
