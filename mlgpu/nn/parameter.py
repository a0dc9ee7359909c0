"""Parameter and Buffer: tensors that a Module registers when they are assigned to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlgpu.tensor import Tensor

if TYPE_CHECKING:
    from typing import Self


class Parameter(Tensor):
    """`data` (on the same memory) as a leaf that a Module registers when it is assigned to it.

    Raises DTypeError for integer data unless `requires_grad=False`.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Self:
        if data is None:
            from mlgpu.ops.creation import empty

            data = empty(0)
        elif not isinstance(data, Tensor):
            raise TypeError(f"Parameter: data must be a Tensor, got {type(data).__name__}")
        data._check()
        data._storage.exclusive = False
        made: Self = cls._make(data._array, data._storage)
        return made.requires_grad_() if requires_grad else made  # type: ignore[return-value]

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        """Everything is done by `__new__`; declared for the signature."""


class Buffer(Tensor):
    """`data` as a tensor that a Module registers as a buffer when it is assigned to it.

    It is part of the module's state_dict if `persistent`.
    """

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Self:
        if data is None:
            from mlgpu.ops.creation import empty

            data = empty(0)
        elif not isinstance(data, Tensor):
            raise TypeError(f"Buffer: data must be a Tensor, got {type(data).__name__}")
        made: Self = data.detach().as_subclass(cls)  # type: ignore[assignment]
        made.persistent = persistent
        return made

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        """Everything is done by `__new__`; declared for the signature."""


def describe(value: Any) -> str:
    """A tensor in one line, for the tree that a Module prints."""
    size = "x".join(map(str, value.shape))
    place = f" ({value.device})" if value.is_cuda else ""
    return f"[{value.dtype!r} of size {size}{place}]"
