"""New tensors: from data, from sizes, from ranges."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cuda import sequence
from mlgpu.device import CPU, Device, DeviceLike, resolve, runtime
from mlgpu.dtypes import DTypeLike
from mlgpu.dtypes import dtype as DType
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import wrap
from mlgpu.ops.cast import convert
from mlgpu.ops.view import size_arguments
from mlgpu.storage import Storage, as_strided, may_share_memory
from mlgpu.tensor import Tensor

__all__ = ["arange", "as_tensor", "asarray", "empty", "empty_like", "empty_permuted",
           "empty_strided", "eye", "full", "full_like", "linspace", "logspace", "new_empty",
           "new_empty_strided", "new_full", "new_ones", "new_tensor", "new_zeros", "ones",
           "ones_like", "range", "scalar_tensor", "tensor", "zeros", "zeros_like"]


def _finish(array: Any, device: Device, requires_grad: bool) -> Tensor:
    made = wrap(array, device)
    return made.requires_grad_() if requires_grad else made


def _allocate(shape: Sequence[int], dtype: DType, device: Any) -> tuple[Any, Device]:
    for n in shape:
        if n < 0:
            raise ShapeError(f"a size cannot be negative, got {tuple(shape)}")
    place = resolve(device)
    return runtime(place).empty(shape, dtype.numpy, place), place


def _dtype(dtype: Any) -> DType:
    return dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)


# --- from data ------------------------------------------------------------------------------------


def _infer(data: Any, wanted: DType | None) -> np.ndarray[Any, Any]:
    """Python data as a NumPy array, Python floats in the default dtype unless one is `wanted`."""
    if isinstance(data, (np.ndarray, np.generic)):
        return np.asarray(data)
    if isinstance(data, (list, tuple)) and _holds_tensors(data):
        data = _untensored(data)
    if hasattr(data, "__array__") and not isinstance(data, (list, tuple)):
        return np.asarray(data)
    try:
        array = np.asarray(data)
    except OverflowError as error:
        raise DTypeError(f"tensor: {error}") from None
    except ValueError as error:
        raise ShapeError("tensor: nested lists must have equal lengths and depths") from error
    if wanted is not None and array.dtype.kind in "fc":
        return array  # in double precision until it is converted
    of_numpy = _numpy_dtype(data) if isinstance(data, (list, tuple)) else None
    if of_numpy is not None and array.dtype.kind not in "OUSmM":
        return array.astype(of_numpy.numpy)
    if array.dtype.kind == "f" or (array.size == 0 and isinstance(data, (list, tuple))):
        return array.astype(dtypes.get_default_dtype().numpy)
    if array.dtype.kind == "c":
        return array.astype(dtypes.get_default_dtype().to_complex().numpy)
    if array.dtype.kind in "iu" and not hasattr(data, "dtype"):
        if array.dtype == np.uint64:
            raise DTypeError("tensor: an integer does not fit int64")
        return array.astype(np.int64)
    if array.dtype.kind in "OUSmM":
        raise DTypeError(f"tensor: expected numbers, got {type(data).__name__} with elements of "
                         f"NumPy dtype {array.dtype}")
    return array


def _numpy_dtype(data: Sequence[Any]) -> DType | None:
    """The dtype of nested lists with NumPy's numbers or arrays in them; None without any."""
    kinds = _kinds(data)
    if not any(isinstance(kind, np.dtype) for kind in kinds):
        return None
    found = [dtypes.from_numpy(kind) if isinstance(kind, np.dtype) else dtypes.scalar_dtype(kind())
             for kind in kinds if isinstance(kind, np.dtype) or kind in (bool, int, float, complex)]
    return functools.reduce(dtypes.promote_types, found)


def _kinds(data: Sequence[Any]) -> set[Any]:
    """The Python types and the NumPy dtypes of what nested lists hold."""
    found: set[Any] = set()
    for kind in set(map(type, data)):
        if issubclass(kind, (list, tuple)):
            found.update(*[_kinds(item) for item in data if type(item) is kind])
        elif issubclass(kind, np.ndarray):
            found.update(item.dtype for item in data if type(item) is kind)
        else:
            found.add(np.dtype(kind) if issubclass(kind, np.generic) else kind)
    return found


def _holds_tensors(data: Any) -> bool:
    first = data
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    return isinstance(first, Tensor)


def _untensored(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.tolist()
    return [_untensored(item) for item in data] if isinstance(data, (list, tuple)) else data


def tensor(data: Any, *, dtype: DTypeLike | None = None, device: DeviceLike | None = None,
           requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A new tensor with a copy of `data`: numbers, nested lists, NumPy arrays, tensors.

    Python floats become the default dtype, ints int64.  Raises ShapeError for ragged lists,
    DTypeError for what is not numbers.
    """
    if hasattr(data, "__cuda_array_interface__") and not isinstance(data, Tensor):
        from mlgpu.ops.cast import to

        made = to(as_tensor(data), device=device, dtype=dtype, copy=True).detach()
        return made.requires_grad_() if requires_grad else made
    place = resolve(device if device is not None or not isinstance(data, Tensor) else data.device)
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    source = data.detach()._host() if isinstance(data, Tensor) else _infer(data, wanted)
    kind = dtypes.from_numpy(source.dtype) if wanted is None else wanted
    host = runtime(CPU).empty(source.shape, kind.numpy, CPU)
    _check_range(data, source, kind)
    with np.errstate(all="ignore"):
        np.copyto(host, convert(source, kind), casting="unsafe")
    if pin_memory:
        host = runtime(CPU).pin(host)
    return _finish(_placed(host, place), place, requires_grad)


def _placed(host: Any, place: Device) -> Any:
    """An array of the host's, on a device."""
    return host if place.type == "cpu" else runtime(place).from_host(host, place, False)[0]


def _check_range(data: Any, source: Any, kind: DType) -> None:
    """Python numbers that do not fit the dtype asked for are an error, not a wrap-around."""
    if not source.size or isinstance(data, (np.ndarray, Tensor)):
        return
    if source.dtype.kind == "c" and not kind.is_complex:
        raise DTypeError(f"tensor: complex numbers do not fit {kind!r}")
    if kind.kind != "int" or source.dtype.kind not in "iuf":
        return
    if source.dtype.kind == "f" and not np.isfinite(source).all():
        raise DTypeError(f"tensor: inf and NaN do not fit {kind!r}")
    for value in (int(source.min()), int(source.max())):
        if not fits(value, kind) or (source.dtype.kind == "f" and value < dtypes.iinfo(kind).min):
            raise DTypeError(f"tensor: value {value} does not fit {kind!r}")


def fits(value: int, kind: DType) -> bool:
    """Whether an integer dtype takes the value; negative ones wrap in uint8, as in PyTorch."""
    info = dtypes.iinfo(kind)
    return (info.min or -info.max) <= value <= info.max


def as_tensor(data: Any, dtype: DTypeLike | None = None, device: DeviceLike | None = None
              ) -> Tensor:
    """`data` as a tensor, on the same memory where it is a tensor or a NumPy array that fits."""
    if isinstance(data, Tensor):
        from mlgpu.ops.cast import to

        return to(data, device=device, dtype=dtype)
    place = resolve(device)
    if hasattr(data, "__cuda_array_interface__") and not isinstance(data, Tensor):
        from mlgpu.cuda.arrays import cupy
        from mlgpu.cuda.interop import borrow
        from mlgpu.ops.cast import to
        from mlgpu.ops.interop import from_borrowed

        borrowed = from_borrowed(*borrow(cupy.asarray(data)))
        return to(borrowed, device=device, dtype=dtype)
    if isinstance(data, np.ndarray) and place.type == "cpu" and (
            dtype is None or dtypes.as_dtype(dtype).numpy == data.dtype):
        from mlgpu.ops.interop import from_numpy

        return from_numpy(data)
    return tensor(data, dtype=dtype, device=device)


def asarray(obj: Any, *, dtype: DTypeLike | None = None, device: DeviceLike | None = None,
            copy: bool | None = None, requires_grad: bool = False) -> Tensor:
    """`as_tensor`; with `copy` always in fresh memory, without it (False) never.

    Raises ShapeError where `copy=False` and it cannot be had without one.
    """
    made = as_tensor(obj, dtype=dtype, device=device)
    shares = made is obj or (isinstance(obj, (Tensor, np.ndarray))
                             and may_share_memory(made._array, getattr(obj, "_array", obj)))
    if copy is False and not shares:
        raise ShapeError("asarray: with copy=False an object's own memory is wanted, and this has "
                         "none that fits")
    if copy and shares:
        from mlgpu.ops.cast import clone

        made = clone(made)
    return made.requires_grad_() if requires_grad else made


def scalar_tensor(s: Any, *, dtype: DTypeLike | None = None, device: DeviceLike | None = None,
                  requires_grad: bool = False) -> Tensor:
    """A 0-dim tensor of the default dtype."""
    return full((), s, dtype=_dtype(dtype), device=device, requires_grad=requires_grad)


def constant(value: Any, dtype: DType, device: Device) -> Tensor:
    """A 0-dim tensor on `device`, for functions that mix numbers with tensors."""
    return full((), value, dtype=dtype, device=device)


# --- from sizes -----------------------------------------------------------------------------------


def empty(*size: Any, dtype: DTypeLike | None = None, device: DeviceLike | None = None,
          requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None
          ) -> Tensor:
    """An uninitialised tensor."""
    array, place = _allocate(size_arguments("empty", size), _dtype(dtype), device)
    if pin_memory:
        array = runtime(place).pin(array)
    return _finish(array, place, requires_grad)


def empty_strided(size: Sequence[int], stride: Sequence[int], *, dtype: DTypeLike | None = None,
                  device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """An uninitialised tensor with the given strides (in elements)."""
    if len(size) != len(stride):
        raise ShapeError(f"empty_strided: {len(size)} sizes but {len(stride)} strides")
    kind = _dtype(dtype)
    extent = 0 if 0 in size else 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    flat, place = _allocate((extent,), kind, device)
    view = as_strided(flat, tuple(size), tuple(s * kind.itemsize for s in stride))
    made = Tensor._make(view, Storage.owning(flat, place))
    return made.requires_grad_() if requires_grad else made


def empty_permuted(size: Sequence[int], physical_layout: Sequence[int], *,
                   dtype: DTypeLike | None = None, device: DeviceLike | None = None,
                   requires_grad: bool = False) -> Tensor:
    """An uninitialised tensor whose dimensions lie in memory in the order of `physical_layout`.

    The last of them lies in order without gaps.  Raises ShapeError unless that is a permutation.
    """
    order = list(physical_layout)
    if len(order) != len(size) or sorted(order) != [d for d, _ in enumerate(size)]:
        raise ShapeError(f"empty_permuted: expected a permutation of {len(size)} dimensions, got "
                         f"{order}")
    strides, step = [0] * len(order), 1
    for d in reversed(order):
        strides[d] = step
        step *= max(size[d], 1)
    return empty_strided(size, strides, dtype=dtype, device=device, requires_grad=requires_grad)


def full(size: Any, fill_value: Any, *, dtype: DTypeLike | None = None,
         device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """A tensor of one value, in the value's own dtype by default."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    kind = dtypes.scalar_dtype(fill_value) if dtype is None else dtypes.as_dtype(dtype)
    shape = (size,) if isinstance(size, int) else size
    array, place = _allocate(size_arguments("full", (shape,)), kind, device)
    runtime(place).fill(array, fill_number(fill_value, kind))
    return _finish(array, place, requires_grad)


def fill_number(value: Any, kind: DType) -> Any:
    """A Python number converted to what fills an array of that dtype, as PyTorch converts it."""
    if not isinstance(value, (bool, int, float, complex, np.number, np.bool_)):
        raise TypeError(f"fill: expected a number, got {type(value).__name__}")
    if isinstance(value, complex) and not kind.is_complex:
        raise DTypeError(f"fill: a complex number does not fit {kind!r}")
    if kind.kind == "bool":
        value = bool(value)
    elif kind.kind == "int":
        value = int(value)  # type: ignore[arg-type]  # not complex: refused above
        if not fits(value, kind):
            raise DTypeError(f"fill: value {value} does not fit {kind!r}")
        value = value if kind.is_signed else value % 256
    return value


def zeros(*size: Any, dtype: DTypeLike | None = None, device: DeviceLike | None = None,
          requires_grad: bool = False) -> Tensor:
    """A tensor of zeros."""
    return full(size_arguments("zeros", size), 0, dtype=_dtype(dtype), device=device,
                requires_grad=requires_grad)


def ones(*size: Any, dtype: DTypeLike | None = None, device: DeviceLike | None = None,
         requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return full(size_arguments("ones", size), 1, dtype=_dtype(dtype), device=device,
                requires_grad=requires_grad)


def eye(n: int, m: int | None = None, *, dtype: DTypeLike | None = None,
        device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an n x m matrix (n x n by default), zeros elsewhere."""
    array, place = _allocate((n, n if m is None else m), _dtype(dtype), device)
    runtime(place).fill(array, 0)
    side = min(array.shape)
    if side:
        diagonal = as_strided(array, (side,), (sum(array.strides),))
        runtime(place).fill(diagonal, 1)
    return _finish(array, place, requires_grad)


# --- like another tensor --------------------------------------------------------------------------


def full_like(input: Tensor, fill_value: Any, *, dtype: DTypeLike | None = None,
              device: DeviceLike | None = None, requires_grad: bool = False,
              memory_format: Any = None) -> Tensor:
    """`full` with the shape, dtype and device of `input`, unless given."""
    return full(tuple(input.shape), fill_value, dtype=input.dtype if dtype is None else dtype,
                device=input.device if device is None else device, requires_grad=requires_grad)


def empty_like(input: Tensor, *, dtype: DTypeLike | None = None, device: DeviceLike | None = None,
               requires_grad: bool = False, memory_format: Any = None) -> Tensor:
    """`empty` with the shape, dtype and device of `input`, unless given."""
    return empty(tuple(input.shape), dtype=input.dtype if dtype is None else dtype,
                 device=input.device if device is None else device, requires_grad=requires_grad)


def zeros_like(input: Tensor, *, dtype: DTypeLike | None = None, device: DeviceLike | None = None,
               requires_grad: bool = False, memory_format: Any = None) -> Tensor:
    """Zeros with the shape, dtype and device of `input`, unless given."""
    return full_like(input, 0, dtype=dtype, device=device, requires_grad=requires_grad)


def ones_like(input: Tensor, *, dtype: DTypeLike | None = None, device: DeviceLike | None = None,
              requires_grad: bool = False, memory_format: Any = None) -> Tensor:
    """Ones with the shape, dtype and device of `input`, unless given."""
    return full_like(input, 1, dtype=dtype, device=device, requires_grad=requires_grad)


def new_full(self: Tensor, size: Any, fill_value: Any, *, dtype: DTypeLike | None = None,
             device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """`full` of another size with this tensor's dtype and device, unless given."""
    return full(size, fill_value, dtype=self.dtype if dtype is None else dtype,
                device=self.device if device is None else device, requires_grad=requires_grad)


def new_zeros(self: Tensor, *size: Any, dtype: DTypeLike | None = None,
              device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """Zeros of another size with this tensor's dtype and device, unless given."""
    return new_full(self, size_arguments("new_zeros", size), 0, dtype=dtype, device=device,
                    requires_grad=requires_grad)


def new_ones(self: Tensor, *size: Any, dtype: DTypeLike | None = None,
             device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """Ones of another size with this tensor's dtype and device, unless given."""
    return new_full(self, size_arguments("new_ones", size), 1, dtype=dtype, device=device,
                    requires_grad=requires_grad)


def new_empty(self: Tensor, *size: Any, dtype: DTypeLike | None = None,
              device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """`empty` of another size with this tensor's dtype and device, unless given."""
    return empty(size_arguments("new_empty", size), dtype=self.dtype if dtype is None else dtype,
                 device=self.device if device is None else device, requires_grad=requires_grad)


def new_empty_strided(self: Tensor, size: Sequence[int], stride: Sequence[int], *,
                      dtype: DTypeLike | None = None, device: DeviceLike | None = None,
                      requires_grad: bool = False) -> Tensor:
    """`empty_strided` with this tensor's dtype and device, unless given."""
    return empty_strided(size, stride, dtype=self.dtype if dtype is None else dtype,
                         device=self.device if device is None else device,
                         requires_grad=requires_grad)


def new_tensor(self: Tensor, data: Any, *, dtype: DTypeLike | None = None,
               device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """`tensor(data)` with this tensor's dtype and device, unless given."""
    return tensor(data, dtype=self.dtype if dtype is None else dtype,
                  device=self.device if device is None else device, requires_grad=requires_grad)


# --- ranges ---------------------------------------------------------------------------------------


def _number(x: Any) -> Any:
    return x.item() if isinstance(x, Tensor) else x


def arange(start: Any, end: Any = None, step: Any = 1, *, dtype: DTypeLike | None = None,
           device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """start, start + step, ... below `end` (`arange(end)` starts at 0).

    int64 for ints, else the default dtype.  Raises ShapeError for a step of 0 or the wrong sign.
    """
    if end is None:
        start, end = 0, start
    start, end, step = _number(start), _number(end), _number(step)
    for value in (start, end, step):
        if not isinstance(value, (int, float, np.number)):
            raise TypeError(f"arange: expected numbers, got {type(value).__name__}")
    if step == 0:
        raise ShapeError("arange: step must not be 0")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ShapeError(f"arange: bounds must be finite, got {start} to {end}")
    if (end - start) * step < 0:
        raise ShapeError(f"arange: step {step} leads away from {end}, starting at {start}")
    whole = all(isinstance(x, (int, np.integer)) for x in (start, end, step))
    kind = (dtypes.int64 if whole else dtypes.get_default_dtype()) if dtype is None else _dtype(
        dtype)
    count = -((start - end) // step) if whole else math.ceil((end - start) / step)
    place = resolve(device)
    if place.type == "cuda":
        first, each = (int(start), int(step)) if whole else (float(start), float(step))
        return _finish(runtime(place).call(
            lambda: sequence.arange(first, each, count, kind.numpy), (), place), place,
            requires_grad)
    exact = np.int64 if whole else np.float64
    host = np.arange(count, dtype=exact)
    np.multiply(host, exact(step), out=host)
    np.add(host, exact(start), out=host)
    return _finish(_converted(host, kind, place), place, requires_grad)


def _converted(values: Any, kind: DType, place: Device) -> Any:
    """Values computed on the host, as an array of a dtype on a device."""
    host = runtime(CPU).empty(values.shape, kind.numpy, CPU)
    np.copyto(host, values, casting="unsafe")
    return _placed(host, place)


def range(start: Any, end: Any = None, step: Any = 1, **options: Any) -> Tensor:
    """As `arange` but with `end` included, in the default dtype (deprecated in PyTorch)."""
    if end is None:
        start, end = 0, start
    count = int((end - start) / step) + 1
    options.setdefault("dtype", dtypes.get_default_dtype())
    return arange(start, start + count * step, step, **options)


def linspace(start: Any, end: Any, steps: int, *, dtype: DTypeLike | None = None,
             device: DeviceLike | None = None, requires_grad: bool = False) -> Tensor:
    """`steps` evenly spaced values from `start` to `end`, both included."""
    place, steps = resolve(device), _count("linspace", steps)
    if place.type == "cuda" and steps > 0 and not any(
            isinstance(_number(x), complex) for x in (start, end)):
        first, last = float(_number(start)), float(_number(end))
        step = (last - first) / (steps - 1) if steps > 1 else 0.0
        return _finish(runtime(place).call(
            lambda: sequence.linspace(first, last, step, steps, _dtype(dtype).numpy), (), place),
            place, requires_grad)
    kind, host = _spaced("linspace", start, end, steps, dtype)
    return _finish(_converted(host, kind, place), place, requires_grad)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *,
             dtype: DTypeLike | None = None, device: DeviceLike | None = None,
             requires_grad: bool = False) -> Tensor:
    """`base` to the power of `steps` evenly spaced values from `start` to `end`."""
    kind, host = _spaced("logspace", start, end, steps, dtype)
    place = resolve(device)
    return _finish(_converted(np.power(base, host), kind, place), place, requires_grad)


def _count(name: str, steps: Any) -> int:
    if isinstance(steps, float):
        raise TypeError(f"{name}: steps must be a whole number, got {steps!r}")
    if steps < 0:
        raise ShapeError(f"{name}: steps must be >= 0, got {steps}")
    return int(steps)


def _spaced(name: str, start: Any, end: Any, steps: int, dtype: Any) -> tuple[DType, Any]:
    steps = _count(name, steps)
    start, end = _number(start), _number(end)
    kind = _dtype(dtype)
    if dtype is None and (isinstance(start, complex) or isinstance(end, complex)):
        kind = kind.to_complex()
    # From both ends towards the middle, as PyTorch: symmetric, and both ends exact.
    step = (end - start) / (steps - 1) if steps > 1 else 0.0
    index = np.arange(steps)
    return kind, np.where(index < steps / 2, start + step * index, end - step * (steps - 1 - index)
                          if steps > 1 else start)

