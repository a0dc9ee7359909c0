"""torch.overrides: which classes have a say in what a function does, and asking them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mlgpu import Tensor
from mlgpu.as_torch.dispatch import ask, overloaded
from mlgpu.errors import MissingNameError


def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Whether the class of one of these objects is to be asked."""
    return bool(overloaded(relevant_args))


def has_torch_function_unary(obj: Any) -> bool:
    """Whether the class of the object is to be asked."""
    return bool(overloaded((obj,)))


def has_torch_function_variadic(*args: Any) -> bool:
    """Whether the class of one of these objects is to be asked."""
    return bool(overloaded(args))


def handle_torch_function(public_api: Callable[..., Any], relevant_args: Iterable[Any], *args: Any,
                          **kwargs: Any) -> Any:
    """What the classes of the objects say to a call of `public_api`; TypeError if nothing."""
    return ask(public_api, overloaded(relevant_args), args, kwargs)


def is_tensor_like(inp: Any) -> bool:
    """Whether it is a Tensor, or its class has `__torch_function__`."""
    return isinstance(inp, Tensor) or hasattr(type(inp), "__torch_function__")


class TorchFunctionMode:
    """A block that is asked about every function; programs derive from it, entering one raises."""

    def __enter__(self) -> Any:
        raise MissingNameError("torch.overrides.TorchFunctionMode: mlgpu asks the classes of "
                               "arguments (__torch_function__), and no blocks")

    def __exit__(self, *exception: object) -> None: ...


BaseTorchFunctionMode = TorchFunctionMode
