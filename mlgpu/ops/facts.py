"""What a tensor is, asked by functions; and the block of memory that it lies on."""

from __future__ import annotations

from typing import Any

from mlgpu.cuda import is_available as cuda_available
from mlgpu.errors import ShapeError
from mlgpu.storage import address, root_of
from mlgpu.tensor import Tensor

__all__ = ["as_subclass", "detach", "is_floating_point", "is_nonzero", "is_same_size", "is_signed",
           "is_tensor", "ndimension", "new", "numel", "untyped_storage"]


def is_tensor(obj: Any) -> bool:
    """Whether it is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is floating."""
    return input.is_floating_point()


def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative values."""
    return input.is_signed()


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not 0.  ShapeError unless there is exactly one."""
    if input.numel() != 1:
        raise ShapeError(f"is_nonzero: expected one element, got {input.numel()}")
    return bool(input.item() != 0)


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape."""
    return input.shape == other.shape


def numel(input: Tensor) -> int:
    """The number of elements."""
    return input.numel()


def detach(input: Tensor) -> Tensor:
    """The same memory outside the graph."""
    return input.detach()


def as_subclass(self: Tensor, cls: type[Tensor]) -> Tensor:
    """The same memory and history as an instance of a subclass of Tensor."""
    if not (isinstance(cls, type) and issubclass(cls, Tensor)):
        raise TypeError(f"as_subclass: expected a subclass of Tensor, got {cls!r}")
    made = cls._make(self._array, self._storage)
    made._node, made._index, made._requires = self._node, self._index, self.requires_grad
    made._leaf = self if self._requires and self._node is None else self._leaf
    return made


class UntypedStorage:
    """The block of memory that a tensor and its views lie on: where it is, and its bytes."""

    def __init__(self, tensor: Tensor) -> None:
        root = root_of(tensor._array)
        self.device = tensor.device
        self._start = address(root) if tensor.is_cpu else int(root.ptr)
        self._bytes = int(root.nbytes if tensor.is_cpu else root.size)

    def data_ptr(self) -> int:
        """The address of its first byte."""
        return self._start

    def nbytes(self) -> int:
        """Its size in bytes."""
        return self._bytes

    size = __len__ = nbytes


def untyped_storage(self: Tensor) -> UntypedStorage:
    """The block of memory that the tensor lies on."""
    return UntypedStorage(self)


def is_pinned(self: Tensor) -> bool:
    """Whether it is in page-locked memory of the host."""
    if not self.is_cpu or not cuda_available():
        return False
    from mlgpu.cuda.transfer import is_pinned

    return is_pinned(self._array)


def new(self: Tensor, *data: Any) -> Tensor:
    """A tensor of the same dtype and device: of these sizes, or of this data."""
    if len(data) == 1 and not isinstance(data[0], int):
        return self.new_tensor(data[0])
    return self.new_empty(data or (0,))


def ndimension(self: Tensor) -> int:
    """The number of dimensions."""
    return self.ndim
