"""Tensor: an array view on a Storage, with device, dtype, gradient and copies out.  No maths."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from mlgpu import dtypes
from mlgpu.autograd import graph
from mlgpu.autograd.mode import mode
from mlgpu.device import CPU, Device, runtime
from mlgpu.errors import DeviceError, DTypeError, GraphError, ReleasedError, ShapeError
from mlgpu.storage import Exported, Layout, Storage, address, root_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from mlgpu.methods import TensorMethods  # declarations of what api.py binds
    from mlgpu.op import ViewOp
else:
    TensorMethods = object


class Size(tuple[int, ...]):
    """A tensor's shape: a tuple of ints that also answers `numel()`, as torch.Size."""

    def numel(self) -> int:
        """The number of elements of a tensor of this shape."""
        n = 1
        for length in self:
            n *= length
        return n

    def __repr__(self) -> str:
        return f"{dtypes.library}.Size({list(self)})"


class Tensor(TensorMethods):
    """A multi-dimensional array on a device that can take part in automatic differentiation.

    Made by `mlgpu.tensor`, `mlgpu.zeros` and the like.  `mlgpu.Tensor(data)` makes a float tensor,
    `mlgpu.Tensor(2, 3)` an uninitialised one of that size.
    """

    # These are set as a tensor is made; what a user sets on one goes into its dict.
    __slots__ = ("__dict__", "__weakref__", "_array", "_base", "_grad", "_layout", "_node",
                 "_requires", "_storage")

    _array: Any
    _storage: Storage
    _layout: Layout | None  # of a small CPU tensor, once asked for: see `mlgpu.ops.pointwise`
    _node: graph.Node | None
    _requires: bool
    _grad: Tensor | None
    _base: Tensor | None
    # What few tensors have goes into the dict, too.
    _index: int = 0
    _leaf: Tensor | None = None  # the leaf a saved alias stands for
    _chain: tuple[ViewOp, ...] = ()
    _history: int = 0
    _hooks: dict[int, graph.Hook] | None = None
    _accumulated_hooks: dict[int, Callable[[Tensor], Any]] | None = None
    _regenerate: Callable[[Tensor], None]

    __array_priority__ = 1000  # NumPy's operators leave mixed expressions to us

    def __new__(cls, *data: Any, **options: Any) -> Self:
        from mlgpu.ops.creation import empty, tensor

        options.setdefault("dtype", dtypes.get_default_dtype())
        if all(isinstance(n, int) for n in data):
            made = empty(*data or (0,), **options)
        else:
            made = tensor(*data, **options)
        return cls._make(made._array, made._storage)

    @classmethod
    def _make(cls, array: Any, storage: Storage) -> Self:
        self = object.__new__(cls)
        self._array = array
        self._storage = storage
        self._node = self._grad = self._base = self._layout = None
        self._requires = False
        if storage.first is None:  # as `Storage.join`, without a call
            storage.first = weakref.ref(self)
        else:
            storage.join(self)
        return self

    # --- what it is -------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """The lengths of its dimensions."""
        return Size(self._array.shape)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self._array.ndim  # type: ignore[no-any-return]

    @property
    def dtype(self) -> dtypes.dtype:
        """The element type."""
        return dtypes.from_numpy(self._array.dtype)

    @property
    def device(self) -> Device:
        """Where its memory is."""
        return self._storage.device

    @property
    def is_cuda(self) -> bool:
        """Whether it is on a CUDA device."""
        return self._storage.device.type == "cuda"

    @property
    def is_cpu(self) -> bool:
        """Whether it is on the CPU."""
        return self._storage.device.type == "cpu"

    # Kinds of tensors that PyTorch's programs ask about, and that mlgpu does not have.
    is_meta = is_mps = is_nested = is_quantized = is_sparse = is_xpu = False

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of its elements (not of the storage behind a view)."""
        return self.numel() * self.itemsize

    def numel(self) -> int:
        """The number of elements."""
        return int(self._array.size)

    nelement = numel

    def dim(self) -> int:
        """The number of dimensions."""
        return self._array.ndim  # type: ignore[no-any-return]

    @overload
    def size(self, dim: None = None) -> Size: ...
    @overload
    def size(self, dim: int) -> int: ...
    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one dimension.  IndexError if there is no such dimension."""
        if dim is None:
            return self.shape
        return self._array.shape[self._dim(dim)]

    def _dim(self, dim: int) -> int:
        n: int = max(self._array.ndim, 1)
        if not -n <= dim < n:
            raise IndexError(f"dimension out of range: {dim} for a tensor with {self.ndim} "
                             f"dimensions (expected {-n} to {n - 1})")
        return dim % n

    def element_size(self) -> int:
        """Bytes per element."""
        return self.itemsize

    @overload
    def stride(self, dim: None = None) -> tuple[int, ...]: ...
    @overload
    def stride(self, dim: int) -> int: ...
    def stride(self, dim: int | None = None) -> Any:
        """Steps in elements between neighbours along each dimension, or along one."""
        strides = tuple(s // self._array.itemsize for s in self._array.strides)
        return strides if dim is None else strides[self._dim(dim)]

    def storage_offset(self) -> int:
        """Elements between the start of the memory and the first element."""
        root = root_of(self._array)
        start = address(root) if self.is_cpu else int(root.ptr)
        return (self.data_ptr() - start) // self.itemsize

    def is_contiguous(self) -> bool:
        """Whether the elements lie in memory in order, without gaps."""
        return bool(self._array.flags.c_contiguous)

    def data_ptr(self) -> int:
        """The address of the first element."""
        return address(self._array)

    def is_floating_point(self) -> bool:
        """Whether the dtype is floating."""
        return self.dtype.is_floating_point

    def is_complex(self) -> bool:
        """Whether the dtype is complex."""
        return self.dtype.is_complex

    def is_signed(self) -> bool:
        """Whether the dtype has negative values."""
        return self.dtype.is_signed

    def get_device(self) -> int:
        """The CUDA device's index, -1 on the CPU."""
        index = self._storage.device.index
        return -1 if index is None else index

    def is_inference(self) -> bool:
        """Whether it was made in inference_mode."""
        return self._storage.inference

    @property
    def _version(self) -> int:
        return self._storage.version

    # --- autograd ---------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded.  Can be set on leaves."""
        base = self._base
        if base is not None and base._history != self._history:
            Tensor._regenerate(self)
        return self._requires

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Record operations on this leaf from now on, or stop; returns itself.

        Raises GraphError for a result of recorded operations, DTypeError for an integer tensor.
        """
        if self.grad_fn is not None:
            if requires_grad:
                return self
            raise GraphError("requires_grad_: only leaves can stop requiring grad; detach() this")
        if requires_grad and not (self.dtype.is_floating_point or self.dtype.is_complex):
            raise DTypeError("requires_grad_: only floating and complex tensors can require "
                             f"gradients, got {self.dtype!r}")
        if requires_grad and self._storage.inference and not mode.inference:
            raise GraphError("requires_grad_: the tensor was made in inference_mode; clone() it")
        self._requires = requires_grad
        return self

    @property
    def grad_fn(self) -> graph.Node | None:
        """The node that made it, None for a leaf."""
        return self._node if self.requires_grad else None

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by the user rather than by a recorded operation."""
        return self.grad_fn is None

    @property
    def output_nr(self) -> int:
        """Which output of its node it is."""
        return self._index

    def _edge(self) -> tuple[Any, int]:
        """Where its gradient goes; call only when it requires one (which syncs a stale view)."""
        if self._node is not None:
            return self._node, self._index
        return (self if self._leaf is None else self._leaf), 0

    def _is_view(self) -> bool:
        return self._base is not None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward()` added up, None before."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad: expected a Tensor or None, got {type(value).__name__}")
            if value is self:
                raise GraphError("grad: a tensor cannot be its own gradient")
            value._check()
            if value.shape != self.shape:
                raise ShapeError(f"grad: must have the tensor's shape {tuple(self.shape)}, "
                                 f"got {tuple(value.shape)}")
            if value.dtype is not self.dtype:
                raise DTypeError(f"grad: must be {self.dtype!r} as the tensor, got {value.dtype!r}")
            if value.device != self.device:
                raise DeviceError(f"grad: must be on {self.device} as the tensor, "
                                  f"got {value.device}")
        self._grad = value

    def backward(self, gradient: Tensor | None = None, retain_graph: bool | None = None,
                 create_graph: bool = False, inputs: Sequence[Tensor] | Tensor | None = None
                 ) -> None:
        """Add the gradient of this tensor to `.grad` of the leaves it was made from.

        `gradient` (this tensor's shape) may be left out for a tensor with one element.
        Raises GraphError without a graph, or where its saved values are gone or changed.
        """
        from mlgpu.autograd import backward

        backward(self, gradient, retain_graph, create_graph, inputs)

    def register_hook(self, hook: graph.Hook) -> RemovableHandle:
        """Call `hook(grad)` whenever this tensor's gradient is computed; it may return another."""
        if not self.requires_grad:
            raise GraphError("register_hook: the tensor does not require grad")
        if self._node is None:
            if self._hooks is None:
                self._hooks = {}
            return RemovableHandle(self._hooks, hook)
        if self._node.hooks is None:
            self._node.hooks = {}
        return RemovableHandle(self._node.hooks.setdefault(self._index, {}), hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], Any]) -> RemovableHandle:
        """Call `hook(tensor)` after a backward pass has added to this leaf's `.grad`."""
        if not self.requires_grad or self._node is not None:
            raise GraphError("register_post_accumulate_grad_hook: only for leaves that require "
                             "grad")
        if self._accumulated_hooks is None:
            self._accumulated_hooks = {}
        return RemovableHandle(self._accumulated_hooks, hook)

    def retain_grad(self) -> None:
        """Keep `.grad` of this non-leaf in the next backward passes."""
        if not self.requires_grad:
            raise GraphError("retain_grad: the tensor does not require grad")
        if self._node is not None:
            if self._node.retained is None:
                self._node.retained = {}
            self._node.retained[self._index] = weakref.ref(self)

    @property
    def retains_grad(self) -> bool:
        """Whether this non-leaf keeps its gradient."""
        kept = None if self._node is None else self._node.retained
        return kept is not None and self._index in kept

    def detach(self) -> Tensor:
        """The same memory outside the graph; in-place changes show in both."""
        self._check()
        self._storage.exclusive = False
        return Tensor._make(self._array, self._storage)

    def detach_(self) -> Tensor:
        """Take this tensor itself out of the graph."""
        if self._base is not None:
            raise GraphError("detach_: a view cannot be detached in place; use detach()")
        self._node, self._index, self._requires = None, 0, False
        return self

    @property
    def data(self) -> Tensor:
        """As `detach()`.  Assigning gives this tensor other memory, of any shape."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: expected a Tensor, got {type(value).__name__}")
        value._check()
        value._storage.exclusive = False
        self._array, self._storage, self._layout = value._array, value._storage, None
        self._storage.join(self)

    # --- memory -----------------------------------------------------------------------------

    def _check(self) -> None:
        if self._storage.released:
            raise ReleasedError(f"tensor: use of a tensor of shape {tuple(self._array.shape)} "
                                "after release()")

    def release(self) -> None:
        """Give its memory back now.  Every tensor on the same memory raises ReleasedError after."""
        self._storage.release()

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """The values as a NumPy array on the same memory (CPU only).

        Raises DeviceError on CUDA, GraphError where a gradient is required; `force=True` is
        `.detach().cpu().numpy()`.
        """
        self._check()
        if force:
            return self.detach().cpu().numpy()
        if self.device is not CPU and self.device.type != "cpu":
            raise DeviceError(f"numpy: the tensor is on {self.device}; use .cpu().numpy()")
        if self.requires_grad:
            raise GraphError("numpy: the tensor requires grad; use .detach().numpy()")
        self._storage.exclusive = False
        self._storage.settle()
        lent = np.asarray(Exported(self._array, self._storage.charge))
        return lent if lent.dtype == self._array.dtype else lent.view(self._array.dtype)

    def item(self) -> Any:
        """The only element as a Python number.  ShapeError unless there is exactly one."""
        if self.numel() != 1:
            raise ShapeError(f"item: only a tensor with one element is a number, got "
                             f"{self.numel()} elements")
        return self._host().item() if self.dtype is not dtypes.bfloat16 else float(
            self._host().reshape(()))

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers, or a number for 0 dimensions."""
        array = self._host()
        if self.dtype is dtypes.bfloat16:
            array = array.astype(np.float32)
        return array.tolist()

    def _host(self) -> np.ndarray[Any, Any]:
        self._check()
        if self._storage.device.type == "cpu":
            self._storage.settle()
            return self._array  # type: ignore[no-any-return]
        array: np.ndarray[Any, Any] = runtime(self._storage.device).to_host(self._array, False)[0]
        return array

    # --- Python -----------------------------------------------------------------------------

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise ShapeError("bool: the truth of a tensor with more than one element (or none) is "
                             "ambiguous; use any() or all()")
        return bool(self._host().reshape(())[()])

    def __float__(self) -> float:
        return float(self._real_item())

    def __int__(self) -> int:
        return int(self._real_item())

    def _real_item(self) -> Any:
        value = self.item()
        if isinstance(value, complex):
            if value.imag:
                raise DTypeError(f"item: {value} has an imaginary part; take .real")
            return value.real
        return value

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        if self.numel() != 1 or self.dtype.kind not in ("int", "bool"):
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.item())

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self._array.shape[0]  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        from mlgpu.printing import tensor_str

        return tensor_str(self)

    def __format__(self, spec: str) -> str:
        if self.ndim == 0:
            return format(self.item(), spec)
        return object.__format__(self, spec)

    def __copy__(self) -> Tensor:
        self._check_leaf("copy")
        twin: Tensor = type(self)._make(self._array, self._storage)
        twin._requires = self._requires
        twin.__dict__.update(self._attributes())
        return twin

    def _check_leaf(self, what: str) -> None:
        if self.grad_fn is not None:
            raise GraphError(f"{what}: only leaves can be copied or pickled; detach() the tensor")
        self._check()

    def _attributes(self) -> dict[str, Any]:
        """What the user has set on it."""
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        self._check_leaf("deepcopy")
        from copy import deepcopy

        copied = self.detach().clone()
        twin: Tensor = type(self)._make(copied._array, copied._storage)
        memo[id(self)] = twin
        twin._requires = self._requires
        twin._grad = deepcopy(self._grad, memo)
        twin.__dict__.update(deepcopy(self._attributes(), memo))
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._check_leaf("pickle")
        return _unpickle, (type(self), self.detach()._host(), str(self.device), self._requires)


def _unpickle(cls: type[Tensor], array: np.ndarray[Any, Any], device: str, requires: bool
              ) -> Tensor:
    from mlgpu.ops.creation import tensor

    made = tensor(array, device=device)
    loaded: Tensor = cls._make(made._array, made._storage)
    loaded._requires = requires
    return loaded


_hook_ids = itertools.count()


class RemovableHandle:
    """What registering a hook returns; `remove()` takes the hook away again."""

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self.id = next(_hook_ids)
        self._dict = hooks
        hooks[self.id] = hook

    def remove(self) -> None:
        """Take the hook away; doing so twice is harmless."""
        self._dict.pop(self.id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
