"""Joining tensors: cat, stack, grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import runtime as cpu
from mlgpu.cuda import join as cuda_join
from mlgpu.errors import ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.cast import cast
from mlgpu.ops.part import narrow
from mlgpu.ops.view import broadcast_tensors, dim_index, reshape, unsqueeze
from mlgpu.tensor import Tensor

__all__ = ["atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "cartesian_prod", "cat",
           "column_stack", "combinations", "concat", "concatenate", "dstack", "hstack", "meshgrid",
           "row_stack", "stack", "vstack"]


class Cat(Op):
    """Tensors one after the other along a dimension; empty vectors, which join anything, add none.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, *arrays: Any) -> Any:
        arrays = tuple(a for a in arrays if a.shape != (0,)) or arrays[:1]
        shape = list(arrays[0].shape)
        shape[self.dim] = sum(a.shape[self.dim] for a in arrays)
        out = cpu.empty(shape, arrays[0].dtype)
        return np.concatenate(arrays, axis=self.dim, out=out)

    def forward_cuda(self, *arrays: Any) -> Any:
        return cuda_join.cat([a for a in arrays if a.shape != (0,)] or arrays[:1], self.dim)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        grads: list[Tensor | None] = []
        first = 0
        for (shape, _), needed in zip(self._inputs_meta, self.needs, strict=True):
            n = 0 if shape == (0,) else shape[self.dim]
            if not needed:
                grads.append(None)
            else:
                grads.append(narrow(dy, self.dim, first, n) if n else dy.new_zeros(shape))
            first += n
        return tuple(grads)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an existing dimension; their dtypes are promoted.

    All other lengths must agree; empty 1-d tensors are skipped, as in PyTorch.
    """
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"cat: expected a list or tuple of tensors, got {type(tensors).__name__}")
    parts = list(tensors)
    if not parts:
        raise ShapeError("cat: expected at least one tensor")
    for part in parts:
        if not isinstance(part, Tensor):
            raise TypeError(f"cat: expected tensors, got {type(part).__name__}")
        if part.ndim == 0:
            raise ShapeError("cat: 0-d tensors cannot be joined; use stack")
    kind = dtypes.result_type(*parts)
    full = [p for p in parts if tuple(p.shape) != (0,)] or parts[:1]
    at = dim_index("cat", dim, full[0].ndim)
    want = tuple(full[0].shape)
    for part in full:
        have = tuple(part.shape)
        if len(have) != len(want) or have[:at] + have[at + 1:] != want[:at] + want[at + 1:]:
            raise ShapeError(f"cat: shapes {want} and {have} differ outside dimension {at}")
    return run(Cat(at), *[cast(p, kind) for p in parts])  # type: ignore[no-any-return]


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension."""
    parts = list(tensors)
    if not parts:
        raise ShapeError("stack: expected at least one tensor")
    for part in parts:
        if part.shape != parts[0].shape:
            raise ShapeError(f"stack: shapes must be equal, got {tuple(parts[0].shape)} and "
                             f"{tuple(part.shape)}")
    at = dim_index("stack", dim, parts[0].ndim + 1)
    if parts[0].shape == (0,):  # which cat would skip
        shape = [0]
        shape.insert(at, len(parts))
        return reshape(cat(parts), shape)
    return cat([unsqueeze(p, at) for p in parts], at)


def _each(function: Any, tensors: tuple[Any, ...]) -> Any:
    if len(tensors) == 1 and not isinstance(tensors[0], Tensor):
        return tuple(function(x) for x in tensors[0])
    if len(tensors) == 1:
        return function(tensors[0])
    return tuple(function(x) for x in tensors)


def atleast_1d(*tensors: Any) -> Any:
    """The tensor, or each of them, with at least one dimension."""
    return _each(lambda x: reshape(x, 1) if x.ndim == 0 else x, tensors)


def _two(x: Tensor) -> Tensor:
    return x if x.ndim >= 2 else unsqueeze(atleast_1d(x), 0)


def atleast_2d(*tensors: Any) -> Any:
    """The tensor, or each of them, with at least two dimensions."""
    return _each(_two, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """The tensor, or each of them, with at least three dimensions."""
    return _each(lambda x: x if x.ndim >= 3 else unsqueeze(_two(x), 2), tensors)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the columns: dimension 1, or 0 for vectors."""
    parts = [atleast_1d(x) for x in tensors]
    return cat(parts, 0 if parts and parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the rows; vectors are rows."""
    return cat([_two(x) for x in tensors], 0)


row_stack = vstack


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along dimension 2."""
    return cat([atleast_3d(x) for x in tensors], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the columns; vectors are columns."""
    return cat([reshape(x, -1, 1) if x.ndim < 2 else x for x in tensors], 1)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Grids of coordinates from vectors: "ij" (matrix order) or "xy" (the first two swapped)."""
    if len(tensors) == 1 and not isinstance(tensors[0], Tensor):
        tensors = tuple(tensors[0])
    if not tensors:
        raise ShapeError("meshgrid: expected at least one tensor")
    if indexing not in ("ij", "xy"):
        raise ShapeError(f"meshgrid: indexing must be 'ij' or 'xy', got {indexing!r}")
    for x in tensors:
        if x.ndim > 1:
            raise ShapeError(f"meshgrid: expected vectors, got shape {tuple(x.shape)}")
    order = list(range(len(tensors)))
    if indexing == "xy" and len(tensors) > 1:
        order[0], order[1] = 1, 0
    return broadcast_tensors(*[
        reshape(x, [-1 if order[i] == d else 1 for d in range(len(tensors))]
                if x.numel() else [x.numel() if order[i] == d else 1 for d in range(len(tensors))])
        for i, x in enumerate(tensors)])


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of vectors, as rows; one vector as it is."""
    if len(tensors) == 1:
        return tensors[0]
    return stack([reshape(g, -1) for g in meshgrid(*tensors)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of `r` elements of a vector, in order, as rows."""
    import itertools

    if input.ndim != 1:
        raise ShapeError(f"combinations: expected a vector, got shape {tuple(input.shape)}")
    pick = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(pick(range(input.numel()), r)), np.int64).reshape(-1, r)
    from mlgpu.ops.index import Gather, host_index

    return run(Gather(host_index(input, rows)), input)  # type: ignore[no-any-return]


def block_diag(*tensors: Tensor) -> Tensor:
    """Matrices along the diagonal of a larger one, zeros elsewhere."""
    from mlgpu.ops.creation import zeros

    parts = [_two(x) for x in tensors]
    kind = dtypes.result_type(*parts)
    width = sum(p.shape[1] for p in parts)
    rows, first = [], 0
    for part in parts:
        height, n = part.shape
        left = zeros(height, first, dtype=kind, device=part.device)
        right = zeros(height, width - first - n, dtype=kind, device=part.device)
        rows.append(cat((left, part, right), 1))
        first += n
    return cat(rows, 0)
