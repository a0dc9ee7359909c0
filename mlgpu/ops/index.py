"""Indexing with [] and its named forms: index_select, index_put, take, nonzero.

Ints, slices, None and `...` give views.  Index tensors and masks gather, with PyTorch's rules for
where the gathered dimensions go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import runtime as cpu
from mlgpu.cuda import mask as cuda_mask
from mlgpu.cuda import runtime as gpu
from mlgpu.cuda.index import Along, Entry, Places
from mlgpu.device import runtime
from mlgpu.errors import DeviceError, DTypeError, PositionError, ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op, run
from mlgpu.ops.cast import cast
from mlgpu.ops.part import Part, unbind
from mlgpu.ops.view import dim_index, reshape, unsqueeze
from mlgpu.storage import may_share_memory
from mlgpu.tensor import Tensor

__all__ = ["argwhere", "index_copy", "index_put", "index_select", "nonzero", "take"]

# On the CPU one entry per dimension: an integer array, or slice(None).
Index = tuple[Any, ...] | Places | Along


class Gather(Op):
    """x[index] for index arrays."""

    name = "index"

    def __init__(self, index: Index) -> None:
        self.index: Any = index

    def forward(self, x: Any) -> Any:
        return x[self.index]

    def forward_cuda(self, x: Any) -> Any:
        if self.recording:  # the gradient is to find the indices as they were
            self.index = self.index.kept()
        return self.index.gather(x)

    def backward(self, dy: Tensor) -> Tensor:
        return run(Accumulate(self._inputs_meta[0][0], self.index), dy)  # type: ignore[no-any-return]


class Accumulate(Op):
    """Zeros with the input added at index arrays: the transpose of `Gather`."""

    name = "index_add"

    def __init__(self, shape: tuple[int, ...], index: Index) -> None:
        self.shape = shape
        self.index: Any = index

    def forward(self, x: Any) -> Any:
        compute = dtypes.compute_dtype(dtypes.from_numpy(x.dtype)).numpy
        out = cpu.zeros(self.shape, compute)
        np.add.at(out, self.index, x.astype(compute, copy=False))
        return _narrowed(out, x.dtype)

    def forward_cuda(self, x: Any) -> Any:
        return self.index.accumulate(x, self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return run(Gather(self.index), dy)  # type: ignore[no-any-return]


def _narrowed(array: Any, dtype: Any) -> Any:
    """`array`, or a copy rounded to a half dtype."""
    if array.dtype == dtype:
        return array
    out = cpu.empty(array.shape, dtype)
    np.copyto(out, array, casting="unsafe")
    return out


class Put(Op):
    """x with x[index] replaced by (or increased by) values."""

    name = "index_put"

    def __init__(self, index: Index, accumulate: bool) -> None:
        self.index: Any = index
        self.accumulate = accumulate

    def forward(self, x: Any, values: Any) -> Any:
        out = cpu.copy(x)
        self.forward_into(out, x, values)
        return out

    def forward_into(self, out: Any, x: Any, values: Any) -> None:
        if np.may_share_memory(out, values):
            values = cpu.copy(values)
        if not self.accumulate:
            out[self.index] = values
        elif out.dtype == np.bool_:
            np.logical_or.at(out, self.index, values)
        else:
            compute = dtypes.compute_dtype(dtypes.from_numpy(out.dtype)).numpy
            total = out.astype(compute, copy=False)
            np.add.at(total, self.index, values.astype(compute, copy=False))
            if total is not out:
                np.copyto(out, total, casting="unsafe")

    def forward_cuda(self, x: Any, values: Any) -> Any:
        out = gpu.copy(x)
        self.forward_into_cuda(out, x, values)
        return out

    def forward_into_cuda(self, out: Any, x: Any, values: Any) -> None:
        if self.recording:
            self.index = self.index.kept()
        if may_share_memory(out, values):
            values = gpu.copy(values)
        self.index.put(out, values, self.accumulate)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        kept = dy if self.accumulate or not self.needs[0] else run(Clear(self.index), dy)
        return kept, run(Gather(self.index), dy) if self.needs[1] else None


class Clear(Op):
    """x with zeros at index arrays."""

    name = "index_clear"

    def __init__(self, index: Index) -> None:
        self.index: Any = index

    def forward(self, x: Any) -> Any:
        out = cpu.copy(x)
        out[self.index] = 0
        return out

    def forward_cuda(self, x: Any) -> Any:
        out = gpu.copy(x)
        self.index.put(out, gpu.zeros((), x.dtype), False)
        return out

    def backward(self, dy: Tensor) -> Tensor:
        return run(Clear(self.index), dy)  # type: ignore[no-any-return]


# --- the [] operators -----------------------------------------------------------------------------


def getitem(self: Tensor, index: Any) -> Tensor:
    """self[index]: a view for ints, slices, None and `...`; a copy for index tensors and masks."""
    view, arrays = _split_index(self, index)
    if arrays is None:
        return view
    return run(Gather(arrays), view)  # type: ignore[no-any-return]


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """self[index] = value, in place; the value is broadcast and cast, its gradient flows."""
    from mlgpu.ops.cast import copy_
    from mlgpu.ops.creation import tensor
    from mlgpu.ops.fill import fill_

    view, arrays = _split_index(self, index)
    if not isinstance(value, Tensor):
        if arrays is None and not isinstance(value, (list, tuple, np.ndarray)):
            fill_(view, value)
            return
        value = tensor(value, dtype=self.dtype, device=self.device)
    if arrays is None:
        while value.ndim > view.ndim and value.shape[0] == 1:
            value = reshape(value, value.shape[1:])
        copy_(view, value)
        return
    _put(view, arrays, value, False)


_ALL = slice(None)


def _put(target: Tensor, arrays: Index, values: Tensor, accumulate: bool) -> Tensor:
    values = cast(values, target.dtype)
    shape = _result_shape(tuple(target.shape), arrays)
    while values.ndim > len(shape) and values.shape[0] == 1:
        values = reshape(values, values.shape[1:])
    try:
        fits = np.broadcast_shapes(shape, tuple(values.shape)) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"index_put_: values of shape {tuple(values.shape)} do not broadcast to "
                         f"the indexed shape {shape}")
    return run_inplace(Put(arrays, accumulate), target, values)


def _result_shape(shape: tuple[int, ...], arrays: Index) -> tuple[int, ...]:
    if not isinstance(arrays, tuple):
        return arrays.result_shape(shape)
    shapes = [a.shape for a in arrays if a is not _ALL]
    try:
        region = np.broadcast_shapes(*shapes)
    except ValueError:
        listed = ", ".join(map(str, shapes))
        raise IndexError(f"index: index tensors of shapes {listed} do not broadcast") from None
    indexed = [d for d, a in enumerate(arrays) if a is not _ALL]
    kept = [d for d in range(len(shape)) if d not in indexed]
    first = indexed[0] if indexed == list(range(indexed[0], indexed[-1] + 1)) else 0
    before = [shape[d] for d in kept if d < first] if first else []
    after = [shape[d] for d in kept][len(before):]
    return (*before, *region, *after)


def _split_index(x: Tensor, index: Any) -> tuple[Tensor, Index | None]:
    """The view that the basic part of an index makes, and index arrays for its dimensions."""
    entries = list(index) if isinstance(index, tuple) else [index]
    entries = [_entry(e, x) for e in entries]
    used = sum(_dims_used(e) for e in entries)
    if used > x.ndim:
        raise IndexError(f"index: too many indices ({used}) for a tensor with {x.ndim} dimensions")
    ellipses = [i for i, e in enumerate(entries) if e is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("index: an index can have only one '...'")
    fill = [_ALL] * (x.ndim - used)
    if ellipses:
        entries[ellipses[0]:ellipses[0] + 1] = fill
    else:
        entries += fill
    named = _on_device if x.device.type != "cpu" else _on_host
    basic: list[Any] = []
    arrays: list[Any] = []
    dim = 0
    for entry in entries:
        if _is_array(entry):
            covers = _dims_used(entry)
            _check_mask(entry, x, dim)
            arrays += named(entry, x, dim)
            basic += [_ALL] * covers or [None]
            dim += covers
        elif entry is None:
            basic.append(None)
            arrays.append(_ALL)
        else:
            basic.append(_checked(entry, x, dim))
            if isinstance(entry, slice):
                arrays.append(_ALL)
            dim += 1
    trivial = all(e is _ALL for e in basic)
    has_arrays = any(a is not _ALL for a in arrays)
    view = x if trivial and has_arrays else run(Part(tuple(basic)), x)
    if not has_arrays:
        return view, None
    return view, tuple(arrays) if x.device.type == "cpu" else _places(arrays)


def _on_host(entry: Any, x: Tensor, dim: int) -> list[Any]:
    """The index arrays that an array among the indices stands for: of a mask, its true places."""
    if entry.dtype == np.bool_:
        return list(entry.nonzero()) if entry.ndim else [np.zeros(int(entry), np.int64)]
    _check_range(entry, x, dim)
    return [entry]


def _on_device(entry: Any, x: Tensor, dim: int) -> list[Any]:
    """The same as entries of `Places`: masks as one vector of flat places."""
    engine, host = runtime(x.device), isinstance(entry, np.ndarray)
    if entry.dtype == np.bool_:
        if host:
            found = np.flatnonzero(entry) if entry.ndim else np.zeros(int(entry), np.int64)
            places = engine.from_host(found, x.device, False)[0]
        else:
            places = engine.call(cuda_mask.places, (entry,), x.device)
        return [Entry(places, max(1, entry.ndim), unique=bool(entry.ndim))]
    if host:
        _check_range(entry, x, dim)
        return [Entry(engine.from_host(entry, x.device, False)[0])]
    return [Entry(entry, message="index: {value} is out of range for dimension "
                                 f"{dim} of length {{bound}}")]


def _places(arrays: list[Any]) -> Places:
    places = Places([None if a is _ALL else a for a in arrays])
    try:
        places.region()
    except ValueError as error:
        raise IndexError(f"index: index tensors do not broadcast: {error}") from None
    return places


def host_index(x: Tensor, array: Any) -> Index:
    """An index of x's first dimension, known to be in range, from a NumPy array."""
    if x.device.type == "cpu":
        return (array,)
    rest = [None] * (x.ndim - 1)
    return Places([Entry(runtime(x.device).from_host(array, x.device, False)[0]), *rest])


def _is_array(entry: Any) -> bool:
    return not (entry is None or entry is Ellipsis or isinstance(entry, (int, slice)))


def _entry(entry: Any, x: Tensor) -> Any:
    """One index entry as int, slice, None, Ellipsis or an array, of NumPy or on x's device."""
    if entry is None or entry is Ellipsis:
        return entry
    if isinstance(entry, slice):
        return _ALL if entry == _ALL else slice(*[None if v is None else _integer(v) for v in (
            entry.start, entry.stop, entry.step)])
    if isinstance(entry, (bool, np.bool_)):
        return np.asarray(bool(entry))
    if isinstance(entry, (int, np.integer)):
        return int(entry)
    if isinstance(entry, Tensor):
        if entry.ndim == 0 and entry.dtype.kind in ("int", "uint"):
            return int(entry)
        if entry.device != x.device:
            raise DeviceError(f"index: an index tensor on {entry.device} cannot index a tensor on "
                              f"{x.device}; move it with .to()")
        entry._check()
        array = entry.detach()._host() if x.device.type == "cpu" else entry._array
    elif isinstance(entry, (list, tuple, range, np.ndarray)):
        array = np.asarray([int(e) if isinstance(e, Tensor) else e for e in entry]
                           if isinstance(entry, (list, tuple)) and entry
                           and isinstance(entry[0], Tensor) else entry)
        if array.size == 0 and array.dtype.kind == "f":
            array = array.astype(np.int64)
    else:
        refused = IndexError if isinstance(entry, float) else TypeError  # as PyTorch
        raise refused("index: expected ints, slices, None, ..., integer or bool tensors, got "
                        f"{type(entry).__name__}")
    if array.dtype.kind not in "iub":
        raise IndexError("index: tensors used as indices must be integer or bool, got "
                         f"{array.dtype}")
    # uint8 counts as an index here as in NumPy; PyTorch's old use of it as a mask is gone.
    if array.dtype == np.bool_ or (x.device.type != "cpu" and array.dtype in _INDEX):
        return array
    if isinstance(array, np.ndarray):
        return array.astype(np.int64)
    return cast(entry, dtypes.int64)._array


_INDEX = (np.dtype(np.int32), np.dtype(np.int64))  # what kernels take as it is


def _integer(value: Any) -> int:
    return int(value.item()) if isinstance(value, Tensor) else value.__index__()


def _dims_used(entry: Any) -> int:
    if entry is None or entry is Ellipsis:
        return 0
    if _is_array(entry) and entry.dtype == np.bool_:
        return int(entry.ndim)
    return 1


def _checked(entry: Any, x: Tensor, dim: int) -> Any:
    if isinstance(entry, slice):
        if entry.step is not None and entry.step <= 0:
            raise ShapeError(f"index: a slice's step must be positive, got {entry.step}; use flip")
        return entry
    n = x.shape[dim]
    if not -n <= entry < n:
        raise IndexError(f"index: {entry} is out of range for dimension {dim} of length {n}")
    return entry


def _check_mask(entry: Any, x: Tensor, dim: int) -> None:
    if entry.dtype != np.bool_:
        return
    want = tuple(x.shape[dim:dim + entry.ndim])
    if entry.shape != want:
        raise IndexError(f"index: a mask of shape {entry.shape} does not fit the tensor's "
                         f"dimensions from {dim} on, {want}")


def _check_range(entry: Any, x: Tensor, dim: int) -> None:
    n = x.shape[dim]
    if entry.size and (entry.min() < -n or entry.max() >= n):
        bad = entry[(entry < -n) | (entry >= n)].flat[0]
        raise IndexError(f"index: {bad} is out of range for dimension {dim} of length {n}")


# --- named forms ----------------------------------------------------------------------------------


def index_array(name: str, input: Tensor, index: Tensor, n: int, negative: bool = False) -> Any:
    """An index tensor's array, checked against the length it indexes.  IndexError out of range.

    On CUDA kernels check.
    """
    if index.dtype not in (dtypes.int64, dtypes.int32):
        raise DTypeError(f"{name}: index must be int32 or int64, got {index.dtype!r}")
    if index.device != input.device:
        raise DeviceError(f"{name}: input is on {input.device} but index on {index.device}; move "
                          "one with .to()")
    if index.device.type != "cpu":
        index._check()
        return index._array
    array = index.detach()._host()
    low = -n if negative else 0
    if array.size and (array.min() < low or array.max() >= n):
        bad = array[(array < low) | (array >= n)].flat[0]
        raise PositionError(f"{name}: index {bad} is out of range for length {n}")
    return array


def vector_index(name: str, input: Tensor, dim: int, index: Tensor) -> tuple[int, Index]:
    """The dimension and the index arrays of a 1-d index along it."""
    if index.ndim > 1:
        raise IndexError(f"{name}: index must be a vector, got {index.ndim} dimensions")
    at = dim_index(name, dim, input.ndim)
    n = input.shape[at] if input.ndim else 1
    array = index_array(name, input, index, n).reshape(-1)
    if input.device.type == "cpu":
        return at, (*(_ALL,) * at, array.astype(np.int64))
    entry = Entry(array, message=wrong_index(name), wrap=False)
    return at, Places([*[None] * at, entry, *[None] * (input.ndim - 1 - at)])


def wrong_index(name: str) -> str:
    """What kernels report of an index out of range."""
    return name + ": index {value} is out of range for length {bound}"


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The positions `index` (a vector) of one dimension, copied."""
    source = input if input.ndim else unsqueeze(input, 0)
    _, arrays = vector_index("index_select", source, dim, index)
    result = run(Gather(arrays), source)
    return result if input.ndim else reshape(result, ())


def index_put_(self: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False
               ) -> Tensor:
    """self[indices] = values, or += with `accumulate` (where an index may repeat)."""
    if self.dtype is not values.dtype:
        raise DTypeError(f"index_put_: self is {self.dtype!r} but values are {values.dtype!r}")
    view, arrays = _split_index(self, tuple(indices))
    if arrays is None:
        raise ShapeError("index_put_: at least one index tensor is needed")
    _put(view, arrays, values, accumulate)
    return self


def index_put(input: Tensor, indices: Sequence[Any], values: Tensor, accumulate: bool = False
              ) -> Tensor:
    """A copy of `input` with input[indices] replaced by values, or increased with `accumulate`."""
    from mlgpu.ops.cast import clone

    return index_put_(clone(input), indices, values, accumulate)


def index_copy_(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Positions `index` of a dimension overwritten by `source`, whose length there matches."""
    at, arrays = vector_index("index_copy_", self, dim, index)
    _check_source("index_copy_", self, at, index, source)
    return run_inplace(Put(arrays, False), self, source)


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy of `input` with positions `index` of a dimension replaced by `source`."""
    if not input.ndim:
        return reshape(index_copy(reshape(input, 1), dim, index, reshape(source, -1)), ())
    at, arrays = vector_index("index_copy", input, dim, index)
    _check_source("index_copy", input, at, index, source)
    return run(Put(arrays, False), input, source)  # type: ignore[no-any-return]


def _check_source(name: str, x: Tensor, dim: int, index: Tensor, source: Tensor) -> None:
    if source.dtype is not x.dtype:
        raise DTypeError(f"{name}: self is {x.dtype!r} but source is {source.dtype!r}")
    want = (*x.shape[:dim], index.numel(), *x.shape[dim + 1:])
    if tuple(source.shape) != want:
        raise ShapeError(f"{name}: source must have shape {want}, got {tuple(source.shape)}")


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at positions `index` of the flattened input, in the shape of `index`."""
    if not index.ndim:
        return reshape(take(input, reshape(index, 1)), ())
    array = index_array("take", input, index, input.numel(), negative=True)
    places: Index = (array,) if input.device.type == "cpu" else Places(
        [Entry(array, message=wrong_index("take"))])
    return run(Gather(places), reshape(input, -1))  # type: ignore[no-any-return]


@overload
def nonzero(input: Tensor, *, as_tuple: Literal[False] = False) -> Tensor: ...
@overload
def nonzero(input: Tensor, *, as_tuple: Literal[True]) -> tuple[Tensor, ...]: ...
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Where the elements are not zero: (count, ndim) int64, or one vector per dimension."""
    from mlgpu.op import wrap

    if input.device.type != "cpu":
        return _nonzero(input, as_tuple)
    found = input.detach()._host().nonzero() if input.ndim else (
        np.zeros(int(bool(input)), np.int64),)
    if as_tuple:
        return tuple(wrap(a.copy(), input.device) for a in found)
    stacked = np.stack(found, axis=-1) if input.ndim else np.zeros((len(found[0]), 0), np.int64)
    return wrap(np.ascontiguousarray(stacked.astype(np.int64)), input.device)


def _nonzero(input: Tensor, as_tuple: bool) -> Any:
    from mlgpu.op import check_inputs, wrap

    device = input.device
    check_inputs(Gather(()), (input,))
    found = wrap(runtime(device).call(
        lambda x: cuda_mask.nonzero(x, as_tuple), (input._array,), device), device)
    if not as_tuple:
        return found
    if not input.ndim:
        return (found.new_zeros(int(bool(input))),)
    return unbind(found)


def argwhere(input: Tensor) -> Tensor:
    """As `nonzero`: (count, ndim) int64."""
    return nonzero(input)
