"""Wrong use, call by call: the type of the error, and what its message says.

Where PyTorch is installed, it must refuse the same call, with a built-in type that ours derives
from: code that catches its errors catches ours.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

import mlgpu
import mlgpu.nn.functional
from mlgpu import errors, memory
from mlgpu.errors import (
    DerivativeError,
    DeviceError,
    DTypeError,
    GraphError,
    LinAlgError,
    MlgpuError,
    OutOfMemoryError,
    PositionError,
    ReleasedError,
    ShapeError,
)

# Each function gives rows for a library `m`: name -> (call, our error, words of its message).


def graph(m):
    """Calls of several steps."""
    def changed_output():
        x = m.ones(3, requires_grad=True)
        y = x.exp()
        y.add_(1)
        y.sum().backward()

    def changed_input():
        w = m.ones(3)
        y = m.ones(3, requires_grad=True) * w
        w.add_(1)
        y.sum().backward()

    def changed_by_a_view():
        w = m.ones(3)
        y = m.ones(3, requires_grad=True) * w
        w[0] = 5
        y.sum().backward()

    def backward_twice():
        x = m.ones(3, requires_grad=True)
        y = (x * x).sum()
        y.backward()
        y.backward()

    def saved_in_inference_mode():
        with m.inference_mode():
            x = m.ones(2)
        return x * m.ones(2, requires_grad=True)

    def changed_after_inference_mode():
        with m.inference_mode():
            x = m.ones(2)
        x.add_(1)

    def required_after_inference_mode():
        with m.inference_mode():
            x = m.ones(2)
        x.requires_grad_()

    changed = "a value saved for backward, of shape (3,), was changed in place"
    return {
        "changed output": (changed_output, GraphError, f"exp: {changed}"),
        "changed input": (changed_input, GraphError, f"mul: {changed}"),
        "changed by a view": (changed_by_a_view, GraphError, f"mul: {changed}"),
        "backward twice": (backward_twice, GraphError, "mul: backward a second time"),
        "inference saved": (saved_in_inference_mode, GraphError, "mul: a tensor made in inference"),
        "inference changed": (changed_after_inference_mode, GraphError, "add_: a tensor made in"),
        "inference required": (required_after_inference_mode, GraphError, "requires_grad_: the"),
    }


def state(m):
    """Loading a state_dict that does not fit."""
    def load(**changes):
        layer = m.nn.Linear(3, 4)
        new = {**layer.state_dict(), **changes}
        layer.load_state_dict({k: v for k, v in new.items() if v is not None})

    return {
        "unknown key": (lambda: load(extra=m.ones(1)), MlgpuError, "extra"),
        "missing key": (lambda: load(bias=None), MlgpuError, "bias"),
        "wrong shape": (lambda: load(bias=m.ones(5)), MlgpuError, "bias"),
    }


def shapes(m):
    o = m.ones
    return {
        "add shapes": (lambda: o(2) + o(3), ShapeError, "add: shapes (2,), (3,) do not broadcast"),
        "add_ shapes": (
            lambda: o(2).add_(o(2, 2)),
            ShapeError, "add_: operands of shapes (2,), (2, 2) do not broadcast to"),
        "mul shapes": (
            lambda: o(2, 3) * o(3, 2),
            ShapeError, "mul: shapes (2, 3), (3, 2) do not broadcast"),
        "eq shapes": (lambda: o(2) == o(3), ShapeError, "eq: shapes (2,), (3,) do not broadcast"),
        "where shapes": (
            lambda: m.where(o(2) > 0, o(3), o(2)),
            ShapeError, "where: shapes (2,), (3,), (2,) do not broadcast"),
        "clamp shapes": (
            lambda: o(2).clamp(o(3)),
            ShapeError, "clamp_min: shapes (2,), (3,) do not broadcast"),
        "lerp shapes": (
            lambda: m.lerp(o(2), o(3), 0.5),
            ShapeError, "lerp_far: shapes (2,), (3,) do not broadcast"),
        "addcmul shapes": (
            lambda: m.addcmul(o(2), o(3), o(2)),
            ShapeError, "addcmul: shapes (2,), (3,), (2,) do not broadcast"),
        "matmul shapes": (
            lambda: o(2, 3) @ o(2, 3),
            ShapeError, "matmul: columns of the first must equal rows of the second, got"),
        "matmul batch": (
            lambda: o(2, 3, 4) @ o(3, 4, 5),
            ShapeError, "matmul: batch dimensions must broadcast, got shapes (2, 3, 4)"),
        "matmul 0d": (
            lambda: o(()) @ o(2),
            ShapeError, "matmul: both arguments must have at least 1 dimension, got"),
        "mm 3d": (
            lambda: m.mm(o(2, 3, 4), o(2, 3)),
            ShapeError, "mm: input must have 2 dimensions, got shape (2, 3, 4)"),
        "mm shapes": (
            lambda: m.mm(o(2, 3), o(2, 3)),
            ShapeError, "mm: columns of the first must equal rows of the second, got"),
        "bmm": (
            lambda: m.bmm(o(2, 3, 4), o(3, 4, 2)),
            ShapeError, "bmm: both must hold the same number of matrices, got shapes (2,"),
        "bmm 2d": (
            lambda: m.bmm(o(2, 3), o(3, 4)),
            ShapeError, "bmm: input must have 3 dimensions, got shape (2, 3)"),
        "mv": (
            lambda: m.mv(o(2, 3), o(2)),
            ShapeError, "mv: the vector must have 3 elements to match the matrix (2, 3),"),
        "dot": (
            lambda: m.dot(o(2), o(3)),
            ShapeError, "dot: both vectors must have the same length, got 2 and 3"),
        "dot 2d": (
            lambda: m.dot(o(2, 2), o(2, 2)),
            ShapeError, "dot: input must have 1 dimension, got shape (2, 2)"),
        "outer": (
            lambda: m.outer(o(2, 2), o(3)),
            ShapeError, "outer: input must have 1 dimension, got shape (2, 2)"),
        "addmm": (
            lambda: m.addmm(o(3, 3), o(2, 3), o(3, 2)),
            ShapeError, "addmm: input must expand to the product's shape (2, 2), got (3,"),
        "einsum shapes": (
            lambda: m.einsum("ij,jk", o(2, 3), o(2, 3)),
            ShapeError, "einsum: the lengths of subscript 'j' must agree or be 1, 3 and"),
        "einsum eq": (
            lambda: m.einsum("ij,j->q", o(2, 3), o(3)),
            ShapeError, "einsum: output subscript 'q' appears in no operand, got"),
        "einsum ndim": (
            lambda: m.einsum("ijk->i", o(2, 3)),
            ShapeError, "einsum: operand 0 has 2 dimensions, but the equation names 3,"),
        "einsum n": (
            lambda: m.einsum("ij,jk", o(2, 3)),
            ShapeError, "einsum: the equation names 2 operands, 1 were given, got"),
        "tensordot": (
            lambda: m.tensordot(o(2, 3), o(2, 3), 1),
            ShapeError, "tensordot: contracted lengths must agree, got 3 in dim 1 of the"),
        "reshape": (
            lambda: o(2, 3).reshape(4, 2),
            ShapeError, "reshape: (4, 2) does not fit 6 elements"),
        "reshape -1-1": (
            lambda: o(2, 3).reshape(-1, -1),
            ShapeError, "reshape: at most one size may be -1 and none less, got (-1, -1)"),
        "reshape neg": (
            lambda: o(2, 3).reshape(-2, 3),
            ShapeError, "reshape: at most one size may be -1 and none less, got (-2, 3)"),
        "reshape 0 -1": (
            lambda: o(0, 3).reshape(0, -1),
            ShapeError, "reshape: (0, -1) does not fit 0 elements"),
        "view noncontig": (
            lambda: o(2, 3).t().view(6),
            ShapeError, "view: a tensor of shape (3, 2) and strides (1, 3) cannot be"),
        "view": (lambda: o(2, 3).view(5), ShapeError, "view: (5,) does not fit 6 elements"),
        "expand": (
            lambda: o(2, 3).expand(2, 4),
            ShapeError, "expand: (2, 4) does not fit a tensor of shape (2, 3) at"),
        "expand fewer": (
            lambda: o(2, 3).expand(3),
            ShapeError, "expand: 1 sizes for a tensor with 2 dimensions"),
        "expand -1": (
            lambda: o(3).expand(-1, 3),
            ShapeError, "expand: (-1, 3) does not fit a tensor of shape (3,) at"),
        "permute": (
            lambda: o(2, 3).permute(0, 0),
            ShapeError, "permute: a dimension appears twice in (0, 0)"),
        "permute n": (
            lambda: o(2, 3).permute(0),
            ShapeError, "permute: 1 dimensions given for a tensor with 2"),
        "permute range": (
            lambda: o(2, 3).permute(0, 2),
            IndexError, "permute: dimension out of range: 2 (expected -2 to 1)"),
        "transpose": (
            lambda: o(2, 3).transpose(0, 2),
            IndexError, "transpose: dimension out of range: 2 (expected -2 to 1)"),
        "t 3d": (
            lambda: o(2, 3, 4).t(),
            ShapeError, "t: expected at most 2 dimensions, got 3; use mT or permute"),
        "squeeze": (
            lambda: o(2, 3).squeeze(2),
            IndexError, "squeeze: dimension out of range: 2 (expected -2 to 1)"),
        "unsqueeze": (
            lambda: o(2, 3).unsqueeze(4),
            IndexError, "unsqueeze: dimension out of range: 4 (expected -3 to 2)"),
        "flatten": (
            lambda: o(2, 3).flatten(1, 0),
            ShapeError, "flatten: start_dim 1 comes after end_dim 0"),
        "unflatten": (
            lambda: o(2, 6).unflatten(1, (4, 2)),
            ShapeError, "unflatten: (4, 2) does not fit 6 elements"),
        "movedim": (
            lambda: o(2, 3).movedim((0, 1), (0, 0)),
            ShapeError, "movedim: a dimension is repeated in (0, 1) or (0, 0)"),
        "cat shapes": (
            lambda: m.cat([o(2, 3), o(3, 2)]),
            ShapeError, "cat: shapes (2, 3) and (3, 2) differ outside dimension 0"),
        "cat ndim": (
            lambda: m.cat([o(2, 3), o(3)]),
            ShapeError, "cat: shapes (2, 3) and (3,) differ outside dimension 0"),
        "cat empty list": (lambda: m.cat([]), ShapeError, "cat: expected at least one tensor"),
        "cat tensor": (
            lambda: m.cat(3),
            TypeError, "cat: expected a list or tuple of tensors, got int"),
        "cat 0d": (
            lambda: m.cat([o(()), o(())]),
            ShapeError, "cat: 0-d tensors cannot be joined; use stack"),
        "cat dim": (
            lambda: m.cat([o(2), o(2)], dim=1),
            IndexError, "cat: dimension out of range: 1 (expected -1 to 0)"),
        "stack shapes": (
            lambda: m.stack([o(2), o(3)]),
            ShapeError, "stack: shapes must be equal, got (2,) and (3,)"),
        "stack empty": (lambda: m.stack([]), ShapeError, "stack: expected at least one tensor"),
        "stack dim": (
            lambda: m.stack([o(2), o(2)], dim=3),
            IndexError, "stack: dimension out of range: 3 (expected -2 to 1)"),
        "split sizes": (
            lambda: o(5).split([2, 2]),
            ShapeError, "split: sizes (2, 2) must be >= 0 and add up to 5, the length of"),
        "split neg": (
            lambda: o(5).split(-1),
            ShapeError, "split: split_size must be positive, got -1"),
        "chunk 0": (lambda: o(5).chunk(0), ShapeError, "chunk: chunks must be positive, got 0"),
        "narrow": (
            lambda: o(5).narrow(0, 3, 4),
            ShapeError, "narrow: start 3 + length 4 exceeds length 5 of dimension 0"),
        "narrow start": (
            lambda: o(5).narrow(0, 7, 1),
            IndexError, "narrow: start 7 is out of range for length 5"),
        "select": (
            lambda: o(5).select(0, 5),
            IndexError, "select: index 5 is out of range for dimension 0 of length 5"),
        "select dim": (
            lambda: o(5).select(1, 0),
            IndexError, "select: dimension out of range: 1 (expected -1 to 0)"),
        "diag": (
            lambda: m.diag(o(2, 2, 2)),
            ShapeError, "diag: expected a vector or a matrix, got 3 dimensions"),
        "diagonal": (
            lambda: o(2, 2).diagonal(0, 0, 0),
            ShapeError, "diagonal: dim1 and dim2 must differ, both are 0"),
        "tril 1d": (
            lambda: m.tril(o(2)),
            ShapeError, "tril: expected at least 2 dimensions, got 1"),
        "repeat": (
            lambda: o(2, 3).repeat(2),
            ShapeError, "repeat: 1 counts for a tensor with 2 dimensions"),
        "tile neg": (
            lambda: o(2, 3).repeat(-1, 1),
            ShapeError, "repeat: counts must be >= 0, got (-1, 1)"),
        "roll": (lambda: m.roll(o(2, 3), (1, 2), (0,)), ShapeError, "roll: 2 shifts but 1 dims"),
        "roll dim": (
            lambda: m.roll(o(2, 3), 1, 3),
            IndexError, "roll: dimension out of range: 3 (expected -2 to 1)"),
        "flip dim": (
            lambda: m.flip(o(2, 3), (2,)),
            IndexError, "flip: dimension out of range: 2 (expected -2 to 1)"),
        "flip twice": (
            lambda: m.flip(o(2, 3), (0, 0)),
            ShapeError, "flip: a dimension appears twice in (0, 0)"),
        "meshgrid": (
            lambda: m.meshgrid(o(2, 2), o(2), indexing="ij"),
            ShapeError, "meshgrid: expected vectors, got shape (2, 2)"),
        "meshgrid idx": (
            lambda: m.meshgrid(o(2), indexing="zz"),
            ShapeError, "meshgrid: indexing must be 'ij' or 'xy', got 'zz'"),
        "unfold": (
            lambda: o(5).unfold(0, 6, 1),
            ShapeError, "unfold: needs 0 <= size <= 5 (the dimension's length) and step"),
        "unfold step": (
            lambda: o(5).unfold(0, 2, 0),
            ShapeError, "unfold: needs 0 <= size <= 5 (the dimension's length) and step"),
    }


def reductions(m):
    o, z = m.ones, m.zeros

    def i(*shape):
        return m.zeros(*shape, dtype=m.int64)

    return {
        "sum dim": (
            lambda: o(2, 3).sum(2),
            IndexError, "sum: dimension out of range: 2 (expected -2 to 1)"),
        "sum dims twice": (
            lambda: o(2, 3).sum((0, 0)),
            ShapeError, "sum: dimensions must be different, got (0, 0)"),
        "mean int": (
            lambda: i(3).mean(),
            DTypeError, "mean: expected a floating or complex tensor, got int64; cast it"),
        "std int": (
            lambda: i(3).std(),
            DTypeError, "std: expected a floating or complex tensor, got int64; cast it"),
        "var dim": (
            lambda: o(2, 3).var(5),
            IndexError, "var: dimension out of range: 5 (expected -2 to 1)"),
        "max empty": (
            lambda: z(0).max(),
            ShapeError, "max: must have an element to choose, got shape (0,); name a"),
        "argmax empty": (
            lambda: z(0).argmax(),
            PositionError, "argmax: must have an element to choose, got shape (0,) and"),
        "amax empty": (
            lambda: z(0, 3).amax(0),
            PositionError, "amax: must have an element to choose, got shape (0, 3) and"),
        "max dim": (
            lambda: o(2).max(1),
            IndexError, "max: dimension out of range: 1 (expected -1 to 0)"),
        "median empty dim": (
            lambda: z(2, 0).median(1),
            PositionError, "median: must have an element to choose, got shape (2, 0) and"),
        "logsumexp dim": (
            lambda: o(2).logsumexp(1),
            IndexError, "logsumexp: dimension out of range: 1 (expected -1 to 0)"),
        "softmax dim": (
            lambda: o(2).softmax(1),
            IndexError, "softmax: dimension out of range: 1 (expected -1 to 0)"),
        "softmax int": (
            lambda: i(2).softmax(0),
            DTypeError, "softmax: expected a floating tensor, got int64; pass dtype="),
        "cumsum dim": (
            lambda: o(2).cumsum(1),
            IndexError, "cumsum: dimension out of range: 1 (expected -1 to 0)"),
        "prod dim": (
            lambda: o(2).prod(1),
            IndexError, "prod: dimension out of range: 1 (expected -1 to 0)"),
        "norm p": (
            lambda: o(2).norm("bad"),
            ShapeError, "linalg.matrix_norm: expected at least 2 dimensions, got shape"),
        "norm int": (
            lambda: i(2).norm(),
            DTypeError, "linalg.vector_norm: expected a floating or complex tensor, got"),
        "quantile q": (
            lambda: m.quantile(o(3), 1.5),
            ShapeError, "quantile: q must be in [0, 1], got 1.5"),
        "quantile int": (
            lambda: m.quantile(i(3), 0.5),
            DTypeError, "quantile: expected float32 or float64, got int64; cast it"),
        "kthvalue": (
            lambda: o(3).kthvalue(4),
            ShapeError, "kthvalue: k must be in 1..3 for dimension 0, got 4"),
        "topk": (
            lambda: o(3).topk(4),
            ShapeError, "topk: k must be in 0..3 for dimension 0, got 4"),
        "topk neg": (
            lambda: o(3).topk(-1),
            ShapeError, "topk: k must be in 0..3 for dimension 0, got -1"),
        "sort dim": (
            lambda: o(3).sort(1),
            IndexError, "sort: dimension out of range: 1 (expected -1 to 0)"),
        "max complex": (
            lambda: o(3, dtype=m.complex64).max(),
            DTypeError, "max: not defined for complex64; cast the input first"),
        "sort complex": (
            lambda: o(3, dtype=m.complex64).sort(),
            DTypeError, "sort: complex numbers have no order, got complex64"),
        "all dim": (
            lambda: o(3).all(2),
            IndexError, "all: dimension out of range: 2 (expected -1 to 0)"),
        "count_nonzero dim": (
            lambda: m.count_nonzero(o(3), 2),
            IndexError, "count_nonzero: dimension out of range: 2 (expected -1 to 0)"),
        "histc": (lambda: m.histc(o(3), bins=0), ShapeError, "histc: bins must be positive, got 0"),
        "bincount neg": (
            lambda: m.bincount(m.tensor([-1])),
            MlgpuError, "bincount: elements must not be negative, got -1"),
        "bincount float": (
            lambda: m.bincount(o(3)),
            DTypeError, "bincount: expected integers, got float32"),
        "bincount 2d": (
            lambda: m.bincount(i(3, 3)),
            ShapeError, "bincount: expected a 1-d tensor, got shape (3, 3)"),
        "diff dim": (
            lambda: m.diff(o(3), dim=2),
            IndexError, "diff: dimension out of range: 2 (expected -1 to 0)"),
        "searchsorted": (
            lambda: m.searchsorted(o(2, 3), o(3, 3)),
            ShapeError, "searchsorted: all dimensions but the last must agree, got a"),
    }


def indexing(m):
    o, z = m.ones, m.zeros

    def i(*shape):
        return m.zeros(*shape, dtype=m.int64)

    return {
        "index range": (
            lambda: o(3)[3],
            IndexError, "index: 3 is out of range for dimension 0 of length 3"),
        "index neg": (
            lambda: o(3)[-4],
            IndexError, "index: -4 is out of range for dimension 0 of length 3"),
        "index too many": (
            lambda: o(3)[0, 0],
            IndexError, "index: too many indices (2) for a tensor with 1 dimensions"),
        "index float": (
            lambda: o(3)[1.5],
            IndexError, "index: expected ints, slices, None, ..., integer or bool"),
        "index tensor range": (
            lambda: o(3)[m.tensor([3])],
            IndexError, "index: 3 is out of range for dimension 0 of length 3"),
        "index float tensor": (
            lambda: o(3)[m.tensor([1.0])],
            IndexError, "index: tensors used as indices must be integer or bool, got"),
        "index mask shape": (
            lambda: o(3)[m.tensor([True, False])],
            IndexError, "index: a mask of shape (2,) does not fit the tensor's"),
        "index str": (
            lambda: o(3)["a"],
            TypeError, "index: expected ints, slices, None, ..., integer or bool"),
        "index 0d": (
            lambda: o(())[0],
            IndexError, "index: too many indices (1) for a tensor with 0 dimensions"),
        "index step neg": (
            lambda: o(3)[::-1],
            ShapeError, "index: a slice's step must be positive, got -1; use flip"),
        "index step 0": (
            lambda: o(3)[::0],
            ShapeError, "index: a slice's step must be positive, got 0; use flip"),
        "index bc": (
            lambda: o(3, 3)[m.tensor([0, 1]), m.tensor([0, 1, 2])],
            IndexError, "shape mismatch: indexing arrays could not be broadcast together"),
        "setitem shape": (
            lambda: o(3).__setitem__(slice(0, 2), o(3)),
            ShapeError, "copy_: a source of shape (3,) does not broadcast to (2,)"),
        "setitem range": (
            lambda: o(3).__setitem__(5, 1),
            IndexError, "index: 5 is out of range for dimension 0 of length 3"),
        "setitem str": (
            lambda: o(3).__setitem__(0, "a"),
            TypeError, "fill: expected a number, got str"),
        "setitem mask": (
            lambda: o(3).__setitem__(m.tensor([True, True, False]), o(3)),
            ShapeError, "index_put_: values of shape (3,) do not broadcast to the"),
        "gather shape": (
            lambda: o(3, 3).gather(0, i(4, 4)),
            ShapeError, "gather: index of shape (4, 4) is longer than the tensor (3, 3)"),
        "gather dtype": (
            lambda: o(3, 3).gather(0, o(3, 3)),
            DTypeError, "gather: index must be int32 or int64, got mlgpu.float32"),
        "gather range": (
            lambda: o(3).gather(0, m.tensor([3])),
            PositionError, "gather: index 3 is out of range for length 3"),
        "gather ndim": (
            lambda: o(3, 3).gather(0, i(3)),
            ShapeError, "gather: index must have as many dimensions as the tensor (2),"),
        "scatter_ range": (
            lambda: z(3).scatter_(0, m.tensor([3]), o(1)),
            PositionError, "scatter_: index 3 is out of range for length 3"),
        "scatter_ dtype": (
            lambda: z(3).scatter_(0, i(1), i(1)),
            DTypeError, "scatter_: self is mlgpu.float32 but src is mlgpu.int64; cast one"),
        "scatter reduce": (
            lambda: z(3).scatter_reduce(0, i(1), o(1), "bad"),
            ShapeError, "scatter_reduce: reduce must be one of sum, mean, prod, amax,"),
        "index_select range": (
            lambda: o(3).index_select(0, m.tensor([3])),
            PositionError, "index_select: index 3 is out of range for length 3"),
        "index_select 2d": (
            lambda: o(3).index_select(0, i(2, 2)),
            IndexError, "index_select: index must be a vector, got 2 dimensions"),
        "index_select dtype": (
            lambda: o(3).index_select(0, o(1)),
            DTypeError, "index_select: index must be int32 or int64, got mlgpu.float32"),
        "index_add shape": (
            lambda: o(3).index_add(0, i(2), o(3)),
            ShapeError, "index_add_: source must have shape (2,), got (3,)"),
        "index_copy": (
            lambda: o(3).index_copy(0, i(2), o(3)),
            ShapeError, "index_copy: source must have shape (2,), got (3,)"),
        "index_fill": (
            lambda: o(3).index_fill(0, m.tensor([7]), 1.0),
            PositionError, "index_fill_: index 7 is out of range for length 3"),
        "take range": (
            lambda: m.take(o(3), m.tensor([5])),
            PositionError, "take: index 5 is out of range for length 3"),
        "masked_fill dtype": (
            lambda: o(3).masked_fill(i(3), 1.0),
            DTypeError, "masked_fill: mask must be bool, got mlgpu.int64"),
        "masked_fill shape": (
            lambda: o(3).masked_fill(i(2) > 0, 1.0),
            ShapeError, "masked_fill: shapes (3,), (2,) do not broadcast"),
        "masked_fill val": (
            lambda: o(3).masked_fill(i(3) > 0, o(3)),
            ShapeError, "masked_fill: the value must have no dimensions, got (3,)"),
        "masked_select": (
            lambda: m.masked_select(o(3), i(2) > 0),
            ShapeError, "masked_select: shapes (3,), (2,) do not broadcast"),
        "masked_scatter": (
            lambda: m.masked_scatter(o(3), o(3) > 0, o(2)),
            ShapeError, "masked_scatter: the mask selects 3 elements but source has 2"),
    }


def types(m):
    o = m.ones

    def i(*shape):
        return m.zeros(*shape, dtype=m.int64)

    return {
        "sub bool": (
            lambda: m.tensor([True]) - m.tensor([True]),
            DTypeError, "sub: not defined for bool; use logical_not, logical_xor or cast"),
        "neg bool": (
            lambda: -m.tensor([True]),
            DTypeError, "neg: not defined for bool; use logical_not, logical_xor or cast"),
        "bitwise float": (
            lambda: o(2) & o(2),
            DTypeError, "bitwise_and: expected bool or integers, got mlgpu.float32"),
        "invert float": (
            lambda: ~o(2),
            DTypeError, "bitwise_not: expected bool or integers, got mlgpu.float32"),
        "shift float": (
            lambda: o(2) << 1,
            DTypeError, "bitwise_left_shift: expected bool or integers, got mlgpu.float32"),
        "iadd float into int": (
            lambda: i(2).add_(1.5),
            DTypeError, "add_: the result is mlgpu.float32, which cannot be written into"),
        "itruediv int": (
            lambda: i(2).div_(2),
            DTypeError, "div_: the result is mlgpu.float32, which cannot be written into"),
        "isub bool": (
            lambda: m.tensor([True]).sub_(1),
            DTypeError, "sub: not defined for bool; use logical_not, logical_xor or cast"),
        "lt complex": (
            lambda: o(2, dtype=m.complex64) < o(2),
            DTypeError, "lt: not defined for complex numbers, got mlgpu.complex64"),
        "floor complex": (
            lambda: o(2, dtype=m.complex64).floor(),
            DTypeError, "floor: not defined for complex numbers, got mlgpu.complex64"),
        "mod complex": (
            lambda: o(2, dtype=m.complex64) % 2,
            DTypeError, "remainder: not defined for complex numbers, got mlgpu.complex64"),
        "relu bool": (
            lambda: m.relu(m.tensor([True])),
            DTypeError, "relu: not defined for bool; use logical_not, logical_xor or"),
        "abs bool": (
            lambda: m.tensor([True]).abs(),
            DTypeError, "abs: not defined for bool; cast first"),
        "hypot int": (
            lambda: m.hypot(i(2), i(2)),
            DTypeError, "hypot: expected a floating dtype, got mlgpu.int64"),
        "logaddexp int": (
            lambda: m.logaddexp(i(2), i(2)),
            DTypeError, "logaddexp: expected a floating dtype, got mlgpu.int64"),
        "matmul dtypes": (
            lambda: o(2, 2) @ i(2, 2),
            DTypeError, "matmul: all arguments must have one dtype, got float32 and"),
        "matmul bool": (
            lambda: m.tensor([[True]]) @ m.tensor([[True]]),
            DTypeError, "matmul: not defined for bool; convert with .to(), e.g. to int64"),
        "int div 0": (
            lambda: m.tensor([1]) // m.tensor([0]),
            MlgpuError, "ZeroDivisionError: integer division by zero"),
        "int mod 0": (
            lambda: m.tensor([1]) % 0,
            MlgpuError, "ZeroDivisionError: integer division by zero"),
        "int pow neg": (
            lambda: m.tensor([2]) ** (-1),
            MlgpuError, "pow: integers to negative integer powers are not allowed; cast"),
        "polygamma": (
            lambda: m.polygamma(-1, o(2)),
            ShapeError, "polygamma: n must not be negative, got -1"),
        "erf complex": (
            lambda: m.erf(o(2, dtype=m.complex64)),
            DTypeError, "erf: not defined for complex numbers, got mlgpu.complex64"),
        "arange dtype": (
            lambda: m.arange(3, dtype="x"),
            DTypeError, "dtype: expected an mlgpu dtype such as mlgpu.float32, got 'x'"),
        "zeros dtype": (
            lambda: m.zeros(3, dtype="float32"),
            DTypeError, "dtype: expected an mlgpu dtype such as mlgpu.float32, got"),
        "to bad": (
            lambda: o(2).to("nope"),
            DeviceError, "device: unknown type 'nope' in 'nope'; use one of cpu, cuda,"),
        "set_default_dtype": (
            lambda: m.set_default_dtype(m.int64),
            DTypeError, "set_default_dtype: only floating dtypes can be the default, got"),
        "finfo int": (
            lambda: m.finfo(m.int64),
            DTypeError, "finfo: expected a floating or complex dtype, got mlgpu.int64;"),
        "iinfo float": (
            lambda: m.iinfo(m.float32),
            DTypeError, "iinfo: expected an integer dtype, got mlgpu.float32; use finfo"),
        "can_cast str": (
            lambda: m.can_cast("a", "b"),
            DTypeError, "can_cast: expected dtypes such as mlgpu.float32, got 'a'"),
        "promote str": (
            lambda: m.promote_types("a", m.int8),
            DTypeError, "promote_types: expected dtypes such as mlgpu.float32, got 'a'"),
        "result_type str": (
            lambda: m.result_type("a", 1),
            DTypeError, "expected a Tensor or a number, got str"),
        "view_as_real": (
            lambda: m.view_as_real(o(2)),
            DTypeError, "view_as_real: expected a complex tensor, got float32"),
        "view_as_complex": (
            lambda: m.view_as_complex(o(3)),
            ShapeError, "view_as_complex: the last dimension must have length 2, got"),
        "complex dtypes": (
            lambda: m.complex(o(2), o(2, dtype=m.float64)),
            DTypeError, "complex: both parts must have one dtype, got float32 and float64"),
        "imag real": (
            lambda: o(2).imag,
            DTypeError, "imag: expected a complex tensor, got float32"),
    }


def creation(m):
    o, z = m.ones, m.zeros
    return {
        "tensor ragged": (
            lambda: m.tensor([[1, 2], [3]]),
            ShapeError, "tensor: nested lists must have equal lengths and depths"),
        "tensor str": (
            lambda: m.tensor("abc"),
            DTypeError, "tensor: expected numbers, got str with elements of NumPy dtype"),
        "tensor str list": (
            lambda: m.tensor(["a"]),
            DTypeError, "tensor: expected numbers, got list with elements of NumPy dtype"),
        "tensor None": (
            lambda: m.tensor(None),
            DTypeError, "tensor: expected numbers, got NoneType with elements of NumPy"),
        "tensor obj": (
            lambda: m.tensor([object()]),
            DTypeError, "tensor: expected numbers, got list with elements of NumPy dtype"),
        "tensor big": (
            lambda: m.tensor(2 ** 70),
            DTypeError, "tensor: expected numbers, got int with elements of NumPy dtype"),
        "tensor uint8 big": (
            lambda: m.tensor(300, dtype=m.uint8),
            DTypeError, "tensor: value 300 does not fit mlgpu.uint8"),
        "tensor dict": (
            lambda: m.tensor({"a": 1}),
            DTypeError, "tensor: expected numbers, got dict with elements of NumPy dtype"),
        "tensor nan int": (
            lambda: m.tensor(float("nan"), dtype=m.int64),
            DTypeError, "tensor: inf and NaN do not fit mlgpu.int64"),
        "tensor rg int": (
            lambda: m.tensor([1], requires_grad=True),
            DTypeError, "requires_grad_: only floating and complex tensors can require"),
        "zeros neg": (lambda: m.zeros(-1), ShapeError, "a size cannot be negative, got (-1,)"),
        "zeros float": (lambda: m.zeros(2.5), TypeError, "zeros: sizes must be ints, got (2.5,)"),
        "zeros str": (lambda: m.zeros("a"), TypeError, "zeros: sizes must be ints, got ('a',)"),
        "full complex": (
            lambda: m.full((2,), 1j, dtype=m.float32),
            DTypeError, "fill: a complex number does not fit mlgpu.float32"),
        "arange step": (lambda: m.arange(0, 5, 0), ShapeError, "arange: step must not be 0"),
        "arange dir": (
            lambda: m.arange(0, 5, -1),
            ShapeError, "arange: step -1 leads away from 5, starting at 0"),
        "arange inf": (
            lambda: m.arange(0, float("inf")),
            ShapeError, "arange: bounds must be finite, got 0 to inf"),
        "arange str": (lambda: m.arange("a"), TypeError, "arange: expected numbers, got str"),
        "linspace": (
            lambda: m.linspace(0, 1, -1),
            ShapeError, "linspace: steps must be >= 0, got -1"),
        "eye": (lambda: m.eye(-1), ShapeError, "a size cannot be negative, got (-1, -1)"),
        "from_numpy": (
            lambda: m.from_numpy([1]),
            TypeError, "from_numpy: expected np.ndarray (got list); use mlgpu.tensor to"),
        "from_numpy neg": (
            lambda: m.from_numpy(np.ones(3)[::-1]),
            ShapeError, "from_numpy: tensors cannot have the strides (-8,) of this"),
        "from_numpy u": (
            lambda: m.from_numpy(np.array(["a"])),
            DTypeError, "dtype: NumPy's <U1 has no counterpart; use one of bool, uint8,"),
        "item many": (
            lambda: o(2).item(),
            ShapeError, "item: only a tensor with one element is a number, got 2 elements"),
        "item none": (
            lambda: z(0).item(),
            ShapeError, "item: only a tensor with one element is a number, got 0 elements"),
        "bool many": (
            lambda: bool(o(2)),
            ShapeError, "bool: the truth of a tensor with more than one element (or"),
        "bool none": (
            lambda: bool(z(0)),
            ShapeError, "bool: the truth of a tensor with more than one element (or"),
        "int many": (
            lambda: int(o(2)),
            ShapeError, "item: only a tensor with one element is a number, got 2 elements"),
        "len 0d": (lambda: len(o(())), TypeError, "len() of a 0-d tensor"),
        "iter 0d": (lambda: list(o(())), TypeError, "iteration over a 0-d tensor"),
        "index float as idx": (
            lambda: [1, 2, 3][m.tensor(1.0)],
            TypeError, "only integer tensors of a single element can be converted to an"),
        "index many as idx": (
            lambda: [1, 2, 3][m.tensor([0, 1])],
            TypeError, "only integer tensors of a single element can be converted to an"),
        "size dim": (
            lambda: o(2).size(1),
            IndexError, "dimension out of range: 1 for a tensor with 1 dimensions"),
        "stride dim": (
            lambda: o(2).stride(1),
            IndexError, "dimension out of range: 1 for a tensor with 1 dimensions"),
    }


def operands(m):
    o = m.ones
    return {
        "add str": (
            lambda: o(2) + "a",
            TypeError, "unsupported operand type(s) for +: 'Tensor' and 'str'"),
        "add None": (
            lambda: o(2) + None,
            TypeError, "unsupported operand type(s) for +: 'Tensor' and 'NoneType'"),
        "m.add str": (
            lambda: m.add(o(2), "a"),
            TypeError, "add: argument 1 must be a Tensor or a number, got str"),
        "add list": (
            lambda: o(2) + [1, 2],
            TypeError, "unsupported operand type(s) for +: 'Tensor' and 'list'"),
        "lt str": (
            lambda: o(2) < "a",
            TypeError, "'<' not supported between instances of 'Tensor' and 'str'"),
        "matmul num": (lambda: o(2) @ 3, DTypeError, "matmul: expected tensors, got int"),
        "exp num": (lambda: m.exp(3), TypeError, "exp: expected at least one Tensor"),
        "sum list": (lambda: m.sum([1, 2]), TypeError, "sum: input must be a Tensor, got list"),
        "mm list": (lambda: m.mm([[1]], [[1]]), TypeError, "mm: input must be a Tensor, got list"),
        "reshape str": (
            lambda: o(2).reshape("a"),
            TypeError, "reshape: sizes must be ints, got ('a',)"),
        "unknown kw": (
            lambda: m.sum(o(2), foo=1),
            TypeError, "sum() got an unexpected keyword argument 'foo'"),
        "missing arg": (
            lambda: m.add(o(2)),
            TypeError, "add() missing 1 required positional argument: 'other'"),
        "clamp none": (
            lambda: o(2).clamp(),
            ShapeError, "clamp: at least one of min and max must be given"),
        "where nontensor": (
            lambda: m.where([True], o(1), o(1)),
            TypeError, "where: argument 0 must be a Tensor or a number, got list"),
        "copy_ shape": (
            lambda: o(2).copy_(o(3)),
            ShapeError, "copy_: a source of shape (3,) does not broadcast to (2,)"),
        "copy_ type": (lambda: o(2).copy_("a"), TypeError, "copy_: src must be a Tensor, got str"),
        "fill_ type": (lambda: o(2).fill_("a"), TypeError, "fill: expected a number, got str"),
        "fill_ tensor": (
            lambda: o(2).fill_(o(2)),
            ShapeError, "fill_: the value must have no dimensions, got (2,)"),
        "type_as": (lambda: o(2).type_as(3), TypeError, "type_as: other must be a Tensor, got int"),
    }


def in_place_and_graph(m):
    o = m.ones

    def i(*shape):
        return m.zeros(*shape, dtype=m.int64)

    return {
        "inplace leaf": (
            lambda: o(2, requires_grad=True).add_(1),
            GraphError, "add_: a leaf that requires grad cannot be changed in place; use"),
        "inplace leaf view": (
            lambda: o(2, requires_grad=True)[0].add_(1),
            GraphError, "add_: a view of a leaf that requires grad cannot be changed in"),
        "inplace expand": (
            lambda: o(1).expand(3).add_(1),
            ShapeError, "add_: several elements of the tensor share one place in memory"),
        "no graph": (
            lambda: o(()).backward(),
            GraphError, "backward: a tensor of shape () does not require grad and has no"),
        "nonscalar": (
            lambda: (o(3, requires_grad=True) * 2).backward(),
            GraphError, "backward: a gradient is created implicitly only for tensors"),
        "grad shape": (
            lambda: (o(3, requires_grad=True) * 2).backward(o(2)),
            ShapeError, "backward: a gradient has shape (2,), its tensor (3,)"),
        "grad unused": (
            lambda: m.autograd.grad(o((), requires_grad=True) * 1, o(2, requires_grad=True)),
            GraphError, "grad: input 0 was not used in the graph of the outputs; pass"),
        "grad nograd in": (
            lambda: m.autograd.grad(o((), requires_grad=True) * 1, o(2)),
            GraphError, "grad: an input of shape (2,) does not require grad"),
        "int grad": (
            lambda: i(2).requires_grad_(),
            DTypeError, "requires_grad_: only floating and complex tensors can require"),
        "nonleaf rg": (
            lambda: (o(2, requires_grad=True) * 1).requires_grad_(False),
            GraphError, "requires_grad_: only leaves can stop requiring grad; detach()"),
        "numpy rg": (
            lambda: o(2, requires_grad=True).numpy(),
            GraphError, "numpy: the tensor requires grad; use .detach().numpy()"),
        "set grad shape": (
            lambda: setattr(o(2), "grad", o(3)),
            ShapeError, "grad: must have the tensor's shape (2,), got (3,)"),
        "set grad type": (
            lambda: setattr(o(2), "grad", 3),
            TypeError, "grad: expected a Tensor or None, got int"),
        "set grad dtype": (
            lambda: setattr(o(2), "grad", o(2, dtype=m.float64)),
            DTypeError, "grad: must be mlgpu.float32 as the tensor, got mlgpu.float64"),
        "deepcopy nonleaf": (
            lambda: copy.deepcopy(o(2, requires_grad=True) * 1),
            GraphError, "deepcopy: only leaves can be copied or pickled; detach() the"),
        "hook norg": (
            lambda: o(2).register_hook(lambda g: g),
            GraphError, "register_hook: the tensor does not require grad"),
        "retain_grad": (
            lambda: o(2).retain_grad(),
            GraphError, "retain_grad: the tensor does not require grad"),
        "detach_ view": (
            lambda: (o(2, requires_grad=True) * 1)[0].detach_(),
            GraphError, "detach_: a view cannot be detached in place; use detach()"),
        "complex bw": (
            lambda: (o((), dtype=m.complex64, requires_grad=True) * 1).backward(),
            GraphError, "backward: a gradient is created implicitly only for real tensors"),
        "data set": (
            lambda: setattr(o(2), "data", 3),
            TypeError, "data: expected a Tensor, got int"),
        **graph(m),
    }


def linear_algebra(m):
    o, z = m.ones, m.zeros

    def i(*shape):
        return m.zeros(*shape, dtype=m.int64)

    return {
        "inverse singular": (
            lambda: m.linalg.inv(z(2, 2)),
            LinAlgError, "linalg.inv: the matrix is singular and has no inverse"),
        "inverse nonsq": (
            lambda: m.linalg.inv(z(2, 3)),
            ShapeError, "linalg.inv: expected square matrices, got shape (2, 3)"),
        "cholesky": (
            lambda: m.linalg.cholesky(-m.eye(2)),
            LinAlgError, "linalg.cholesky: the matrix is not positive definite"),
        "solve shape": (
            lambda: m.linalg.solve(m.eye(2), o(3)),
            ShapeError, "linalg.solve: rows of B must equal the size of A for AX = B,"),
        "solve singular": (
            lambda: m.linalg.solve(z(2, 2), o(2)),
            LinAlgError, "linalg.solve: the matrix is singular, the system has no unique"),
        "det 1d": (
            lambda: m.linalg.det(o(2)),
            ShapeError, "linalg.det: expected at least 2 dimensions, got shape (2,)"),
        "qr mode": (
            lambda: m.linalg.qr(m.eye(2), mode="bad"),
            ShapeError, "linalg.qr: mode must be 'reduced', 'complete' or 'r', got 'bad'"),
        "eigh 1d": (
            lambda: m.linalg.eigh(o(2)),
            ShapeError, "linalg.eigh: expected at least 2 dimensions, got shape (2,)"),
        "svd int": (
            lambda: m.linalg.svd(i(2, 2)),
            DTypeError, "linalg.svd: expected a floating or complex tensor, got int64;"),
        "cross": (
            lambda: m.cross(o(2), o(2), dim=0),
            ShapeError, "linalg.cross: dimension 0 must have length 3, got shapes (2,)"),
        "matrix_power": (
            lambda: m.linalg.matrix_power(o(2, 3), 2),
            ShapeError, "linalg.matrix_power: expected square matrices, got shape (2, 3)"),
        "fft int dim": (
            lambda: m.fft.fft(o(3), dim=2),
            IndexError, "fft: dimension out of range: 2 for a tensor with 1 dimensions"),
        "fft n": (
            lambda: m.fft.fft(o(3), n=0),
            ShapeError, "fft: needs at least 1 data point, got 0"),
        "fft norm": (
            lambda: m.fft.fft(o(3), norm="bad"),
            ShapeError, "fft: norm must be 'backward', 'ortho' or 'forward', got 'bad'"),
    }


def functional(m):
    o, z = m.ones, m.zeros

    def i(*shape):
        return m.zeros(*shape, dtype=m.int64)

    F = m.nn.functional
    return {
        "linear": (
            lambda: F.linear(o(2, 3), o(4, 2)),
            ShapeError, "linear: input must have 2 features in its last dimension to"),
        "linear bias": (
            lambda: F.linear(o(2, 3), o(4, 3), o(3)),
            ShapeError, "linear: bias must be (4,) to match weight (4, 3), got (3,)"),
        "conv1d ch": (
            lambda: F.conv1d(o(1, 3, 8), o(4, 2, 3)),
            ShapeError, "conv1d: weight (4, 2, 3) with groups=1 needs 2 input channels,"),
        "conv2d ndim": (
            lambda: F.conv2d(o(3), o(4, 3, 3, 3)),
            ShapeError, "conv2d: input must have 4 dimensions (3 unbatched), weight 4,"),
        "conv2d big": (
            lambda: F.conv2d(o(1, 3, 2, 2), o(4, 3, 3, 3)),
            ShapeError, "conv2d: the kernel must fit into the padded input of (2, 2),"),
        "conv2d stride": (
            lambda: F.conv2d(o(1, 3, 4, 4), o(4, 3, 3, 3), stride=0),
            ShapeError, "conv2d: stride must be one or 2 ints of at least 1, got 0"),
        "conv2d groups": (
            lambda: F.conv2d(o(1, 3, 4, 4), o(4, 3, 3, 3), groups=2),
            ShapeError, "conv2d: weight (4, 3, 3, 3) with groups=2 needs 6 input"),
        "max_pool2d": (
            lambda: F.max_pool2d(o(1, 1, 2, 2), 3),
            ShapeError, "max_pool2d: the kernel, which spans 3, must fit into the input"),
        "max_pool2d pad": (
            lambda: F.max_pool2d(o(1, 1, 4, 4), 2, padding=2),
            ShapeError, "max_pool2d: padding must be at most half of the kernel, got"),
        "avg_pool2d ndim": (
            lambda: F.avg_pool2d(o(4), 2),
            ShapeError, "avg_pool2d: input must have 3 or 4 dimensions, none empty but"),
        "layer_norm": (
            lambda: F.layer_norm(o(2, 3), (4,)),
            ShapeError, "layer_norm: normalized_shape must be the last dimensions of"),
        "group_norm": (
            lambda: F.group_norm(o(2, 3, 4), 2),
            ShapeError, "group_norm: num_groups must divide the 3 channels of input (2,"),
        "batch_norm": (
            lambda: F.batch_norm(o(2, 3), z(4), o(4)),
            ShapeError, "batch_norm: running_mean must be (3,), one value per channel,"),
        "batch_norm 1": (
            lambda: F.batch_norm(o(1, 3), z(3), o(3), training=True),
            ShapeError, "batch_norm: expected more than 1 value per channel in training,"),
        "embedding dtype": (
            lambda: F.embedding(o(2), o(4, 3)),
            DTypeError, "embedding: the indices must be int64 or int32, got float32"),
        "embedding range": (
            lambda: F.embedding(m.tensor([4]), o(4, 3)),
            IndexError, "embedding: index 4 is out of range for 4 rows"),
        "cross_entropy shape": (
            lambda: F.cross_entropy(o(2, 3), i(3)),
            ShapeError, "cross_entropy: target must have shape (2,) to match input (2,"),
        "cross_entropy range": (
            lambda: F.cross_entropy(o(2, 3), m.tensor([0, 3])),
            IndexError, "cross_entropy: target 3 is out of range for 3 classes"),
        "cross_entropy dtype": (
            lambda: F.cross_entropy(o(2, 3), m.zeros(2, dtype=m.int32)),
            DTypeError, "cross_entropy: classes must be int64 or uint8, got int32;"),
        "nll": (
            lambda: F.nll_loss(o(2, 3), m.tensor([0, -1])),
            IndexError, "nll_loss: target -1 is out of range for 3 classes"),
        "mse reduction": (
            lambda: F.mse_loss(o(2), o(2), reduction="bad"),
            ShapeError, "mse_loss: reduction must be 'none', 'mean' or 'sum', got 'bad'"),
        "bce range": (
            lambda: F.binary_cross_entropy(o(2) * 2, o(2)),
            ShapeError, "binary_cross_entropy: all elements of input must be between 0"),
        "bce shape": (
            lambda: F.binary_cross_entropy(o(2), o(3)),
            ShapeError, "binary_cross_entropy: target must have the input's shape (2,),"),
        "bce logits shape": (
            lambda: F.binary_cross_entropy_with_logits(o(2), o(3)),
            ShapeError, "binary_cross_entropy_with_logits: target must have the input's"),
        "one_hot dtype": (
            lambda: F.one_hot(o(2)),
            DTypeError, "one_hot: classes must be int64, got float32"),
        "one_hot range": (
            lambda: F.one_hot(m.tensor([3]), 2),
            PositionError, "one_hot: class 3 is not below the 2 classes"),
        "dropout p": (
            lambda: F.dropout(o(2), 1.5),
            ShapeError, "dropout: the dropout probability has to be between 0 and 1, but"),
        "pad": (
            lambda: F.pad(o(2), (1, 1, 1)),
            ShapeError, "pad: needs (low, high) for at most 1 axes, got (1, 1, 1)"),
        "pad mode": (
            lambda: F.pad(o(1, 1, 2), (1, 1), mode="bad"),
            ShapeError, "pad: mode must be one of constant, reflect, replicate,"),
        "pad reflect": (
            lambda: F.pad(o(1, 1, 2), (2, 2), mode="reflect"),
            ShapeError, "pad: mode 'reflect' can add at most 1 at an end of axis -1 of"),
        "sdpa": (
            lambda: F.scaled_dot_product_attention(o(1, 2, 3), o(1, 2, 4), o(1, 2, 4)),
            ShapeError, "scaled_dot_product_attention: expected (..., L, E), (..., S, E)"),
        "interpolate": (
            lambda: F.interpolate(o(1, 1, 2, 2), size=3, scale_factor=2.0),
            ShapeError, "interpolate: give either size or scale_factor, got size=3,"),
        "glu": (lambda: F.glu(o(3)), ShapeError, "glu: dimension -1 must be even, got 3"),
        "pixel_shuffle": (
            lambda: F.pixel_shuffle(o(1, 3, 2, 2), 2),
            ShapeError, "pixel_shuffle: input must be (..., C, H, W) with C a multiple"),
        "cosine": (
            lambda: F.cosine_similarity(o(2), o(3)),
            ShapeError, "cosine_similarity: shapes (2,), (3,) do not broadcast"),
        "kl_div": (
            lambda: F.kl_div(o(2), o(2), reduction="bad"),
            ShapeError, "kl_div: reduction must be 'none', 'mean' or 'sum', got 'bad'"),
        "ctc": (
            lambda: F.ctc_loss(o(5, 1, 3), m.tensor([[1]]), m.tensor([6]), m.tensor([1])),
            ShapeError, "ctc_loss: input_lengths must be at most 5, the steps of"),
    }


def modules(m):
    o = m.ones

    def i(*shape):
        return m.zeros(*shape, dtype=m.int64)

    return {
        "Linear in": (
            lambda: m.nn.Linear(3, 4)(o(2, 2)),
            ShapeError, "linear: input must have 3 features in its last dimension to"),
        "param int": (
            lambda: m.nn.Parameter(i(2)),
            DTypeError, "requires_grad_: only floating and complex tensors can require"),
        "register": (
            lambda: m.nn.Linear(2, 2).register_parameter("a.b", None),
            KeyError, "\"register_parameter: the name must not be empty or contain '.',"),
        "seq idx": (
            lambda: m.nn.Sequential(m.nn.ReLU())[3],
            IndexError, "index 3 is out of range for 1 entries"),
        "call forward": (
            lambda: m.nn.Module()(o(2)),
            NotImplementedError, "Module: forward is not defined"),
        "module attr": (
            lambda: m.nn.Module().foo,
            AttributeError, "'Module' object has no attribute 'foo'"),
        "sgd lr": (
            lambda: m.optim.SGD([o(2, requires_grad=True)], lr=-1),
            ShapeError, "SGD: lr must be at least 0, got -1.0"),
        "sgd empty": (
            lambda: m.optim.SGD([], lr=1),
            ShapeError, "SGD: got an empty parameter list"),
        "adam betas": (
            lambda: m.optim.Adam([o(2, requires_grad=True)], betas=(1.5, 0)),
            ShapeError, "Adam: betas[0] must be at least 0 and below 1, got 1.5"),
        "adam nonleaf": (
            lambda: m.optim.Adam([o(2, requires_grad=True) * 1]),
            ShapeError, "Adam: can only optimize leaves, got a result of shape (2,);"),
        "conv groups": (
            lambda: m.nn.Conv2d(3, 4, 3, groups=2),
            ShapeError, "Conv2d: groups must divide both channels, got 2 for 3 and 4"),
        "mha": (
            lambda: m.nn.MultiheadAttention(5, 2),
            ShapeError, "MultiheadAttention: num_heads must divide embed_dim, both"),
        "dropout ctor": (
            lambda: m.nn.Dropout(2),
            ShapeError, "Dropout: p must be a probability, got 2"),
        "lstm in": (
            lambda: m.nn.LSTM(3, 4)(o(5, 2, 2)),
            ShapeError, "LSTM: input must be 2-d or 3-d with 3 features, got (5, 2, 2)"),
        "bn ndim": (
            lambda: m.nn.BatchNorm2d(3)(o(2, 3)),
            ShapeError, "BatchNorm2d: expected 4 dimensions, got (2, 3)"),
        **state(m),
    }


def random(m):
    o = m.ones
    return {
        "multinomial": (
            lambda: m.multinomial(-o(3), 1),
            ShapeError, "multinomial: the weights contain inf, NaN or an element < 0"),
        "multinomial n": (
            lambda: m.multinomial(o(3), 4),
            ShapeError, "multinomial: cannot draw 4 samples from 3 without replacement"),
        "bernoulli": (
            lambda: m.bernoulli(o(3) * 2),
            ShapeError, "bernoulli: expects every p to be in [0, 1], but some are not"),
        "randint": (
            lambda: m.randint(3, 3, (2,)),
            ShapeError, "randint: expects 'from' to be less than 'to', but got from=3 >="),
        "randperm": (lambda: m.randperm(-1), ShapeError, "a size cannot be negative, got (-1,)"),
        "normal std": (
            lambda: m.normal(0.0, -1.0, (2,)),
            ShapeError, "normal: expects std >= 0, but found std -1.0"),
        "rand dtype": (
            lambda: m.rand(2, dtype=m.int64),
            DTypeError, "rand: not available for mlgpu.int64; use a floating dtype"),
        "manual_seed": (
            lambda: m.manual_seed("a"),
            TypeError, "manual_seed: expected an int, got str"),
    }


FAMILIES = (shapes, reductions, indexing, types, creation, operands, in_place_and_graph,
            linear_algebra, functional, modules, random)
ROWS = {name: family for family in FAMILIES for name in family(mlgpu)}

# PyTorch raises another built-in type there, which says less or is an accident of its code.
OTHER_TYPE = {
    "tensor str list", "tensor big", "index_copy", "avg_pool2d ndim", "mha", "manual_seed",
}
BUILTIN = (IndexError, KeyError, AttributeError, TypeError, ValueError, RuntimeError)


def test_the_table_is_long():
    assert len(ROWS) > 300
    assert len(ROWS) == sum(len(family(mlgpu)) for family in FAMILIES)  # no name twice


@pytest.mark.parametrize("name", ROWS)
def test_wrong_use_gets_the_typed_error(name):
    call, error, words = ROWS[name](mlgpu)[name]
    with pytest.raises(error) as raised:
        call()
    assert type(raised.value) is error or issubclass(error, MlgpuError)
    assert words in str(raised.value)
    # Nothing of NumPy's or of the inside shows.
    for inside in ("operands could not be broadcast", "ufunc", "object has no attribute '_",
                   "_array", "ndarray' object"):
        assert inside not in str(raised.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in ROWS if name not in OTHER_TYPE])
def test_code_that_catches_pytorchs_error_catches_ours(name):
    torch = pytest.importorskip("torch")
    with pytest.raises(Exception) as theirs:
        ROWS[name](torch)[name][0]()
    with pytest.raises(Exception) as ours:
        ROWS[name](mlgpu)[name][0]()
    caught_as = next(kind for kind in BUILTIN if isinstance(theirs.value, kind))
    assert isinstance(ours.value, caught_as)


# --- what PyTorch has not -------------------------------------------------------------------------


def released():
    x = mlgpu.ones(3)
    view = x[1:]
    x.release()
    return view


def over_budget():
    with memory.budget("1 KiB"):
        mlgpu.zeros(1000)


def second_derivative():
    class Once(mlgpu.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @mlgpu.autograd.function.once_differentiable
        def backward(ctx, dy):
            return dy * 2

    x = mlgpu.ones((), requires_grad=True)
    (dx,) = mlgpu.autograd.grad(Once.apply(x) ** 2, x, create_graph=True)
    dx.backward()


def needs_released():
    w = mlgpu.ones(3)
    y = (mlgpu.ones(3, requires_grad=True) * w).sum()
    w.release()
    y.backward()


OURS = {
    "released view": (lambda: released() + 1, ReleasedError, "add: argument 0, of shape (2,), was"),
    "released in place": (lambda: released().mul_(2), ReleasedError, "mul: argument 0"),
    "released second": (lambda: mlgpu.ones(2) + released(), ReleasedError, "add: argument 1"),
    "released item": (lambda: released()[0].item(), ReleasedError, "was released"),
    "released numpy": (lambda: released().numpy(), ReleasedError, "after release()"),
    "released saved": (needs_released, ReleasedError, "mul: backward needs a tensor"),
    "over budget": (over_budget, OutOfMemoryError, "3.91 KiB (4000 bytes) asked for on cpu"),
    "cuda": (lambda: mlgpu.ones(2, device="cuda"), DeviceError, "use device='cpu' or"),
    "cuda()": (lambda: mlgpu.ones(2).cuda(), DeviceError, "cuda was asked for, but"),
    "pin": (lambda: mlgpu.ones(2).pin_memory(), DeviceError, "page-locked memory needs CUDA"),
    "no device": (lambda: mlgpu.ones(2, device="tpu"), DeviceError, "unknown type 'tpu'"),
    "no index": (lambda: mlgpu.device("cuda:x"), DeviceError, "the index in 'cuda:x' must be"),
    "no such function": (lambda: mlgpu.nothing, AttributeError, "no attribute 'nothing'"),
    "no second derivative": (second_derivative, DerivativeError, "Once"),
    "no derivative": (lambda: mlgpu.ones(3, requires_grad=True).histc(3).sum().backward(),
                      DerivativeError, "histc: has no derivative"),
}


@pytest.mark.parametrize("name", OURS)
def test_wrong_use_of_what_is_ours(name, no_cuda):
    call, error, words = OURS[name]
    with pytest.raises(error) as raised:
        call()
    assert words in str(raised.value)


def test_every_error_is_caught_as_pytorchs_would_be():
    bases = {
        "ShapeError": ValueError, "DTypeError": TypeError, "OutOfMemoryError": MemoryError,
        "FormatError": ValueError, "MissingExtraError": ImportError, "PositionError": IndexError,
    }
    found = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    for name, kind in found.items():
        assert issubclass(kind, MlgpuError)
        assert issubclass(kind, RuntimeError)
        assert issubclass(kind, bases.get(name, RuntimeError))
        assert getattr(mlgpu, name) is kind
        assert kind.__doc__


def test_arguments_that_should_be_tensors_are_named():
    for call, words in [
        (lambda: mlgpu.mm(mlgpu.ones(2, 2), [[1.0]]), "mm: mat2 must be a Tensor, got list"),
        (lambda: mlgpu.flatten([1.0]), "flatten: input must be a Tensor, got list"),
        (lambda: mlgpu.ones(2, 2).mm(3), "mm: mat2 must be a Tensor, got int"),
        (lambda: mlgpu.nn.functional.linear([1.0], mlgpu.ones(1, 1)), "linear: expected tensors"),
        (lambda: mlgpu.linalg.qr([[1.0]]), "qr: A must be a Tensor, got list"),
        (lambda: mlgpu.fft.fft([1.0]), "fft: input must be a Tensor, got list"),
        (lambda: mlgpu.exp([1.0]), "exp: argument 0 must be a Tensor or a number, got list"),
        (lambda: mlgpu.ones(2).add_("a"), "add_: expected tensors or numbers, got str"),
    ]:
        with pytest.raises(TypeError) as raised:
            call()
        assert words in str(raised.value)


def test_numpys_names_of_arguments():
    x = mlgpu.tensor(np.arange(6.0).reshape(2, 3))
    assert np.sum(x).item() == 15
    assert x.sum(axis=0, keepdims=True).tolist() == [[3, 5, 7]]
    assert mlgpu.mean(x, axis=1).tolist() == [1, 4]
    assert mlgpu.softmax(x, axis=1).shape == (2, 3)
    with pytest.raises(TypeError, match="axes"):
        x.sum(axes=0)


def test_sizes_by_name():
    x = mlgpu.zeros(size=(2, 3))
    assert x.shape == mlgpu.rand(size=[2, 3]).shape == x.new_ones(size=(2, 3)).shape == (2, 3)
    assert x.expand(size=(4, 2, 3)).permute(dims=(2, 1, 0)).shape == (3, 2, 4)
    assert x.repeat(repeats=(1, 2)).shape == x.reshape(shape=(6,)).repeat(2).reshape(2, 6).shape
    with pytest.raises(TypeError, match="size"):
        x.unsqueeze(0, size=(1,))


def test_a_failed_operation_changes_nothing():
    x, y = mlgpu.ones(3, requires_grad=True), mlgpu.zeros(3)
    for call in (lambda: y.add_(mlgpu.ones(4)), lambda: y.__setitem__(slice(None), mlgpu.ones(2)),
                 lambda: y.scatter_(0, mlgpu.tensor([0, 5]), mlgpu.ones(2)),
                 lambda: y.index_add_(0, mlgpu.tensor([0, 5, 1]), mlgpu.ones(3)),
                 lambda: y.index_fill_(0, mlgpu.tensor([0, 5]), 1.0), lambda: y.bitwise_and_(1),
                 lambda: x.add_(1), lambda: y.masked_scatter_(y == 0, mlgpu.ones(2)),
                 lambda: y.copy_(mlgpu.ones(2)), lambda: y.fill_("a"),
                 lambda: y.index_copy_(0, mlgpu.tensor([5]), mlgpu.ones(1))):
        with pytest.raises((MlgpuError, IndexError, TypeError)):
            call()
        assert y.tolist() == [0, 0, 0]
        assert (y._version, x._version) == (0, 0)
        assert y.grad_fn is None
    assert copy.copy(x.detach()).tolist() == [1, 1, 1]


@pytest.mark.parametrize("call", [
    lambda x: mlgpu.maximum(x, 2), lambda x: mlgpu.eq(1, x), lambda x: x.logical_and(True),
    lambda x: mlgpu.atan2(x, other=0.5), lambda x: mlgpu.rsub(3, x), lambda x: mlgpu.gcd(4, 6)])
def test_numbers_where_pytorch_wants_tensors(call):
    """What would compute with a number as well, and hide a mistake."""
    with pytest.raises(TypeError, match=r"must be a Tensor, got (int|bool|float); (clamp|make)"):
        call(mlgpu.ones(2))


def test_numbers_within_elementwise_functions():
    halves = mlgpu.fuse(lambda x: mlgpu.maximum(x, 0.5))
    assert halves(mlgpu.tensor([0.0, 1.0])).tolist() == [0.5, 1.0]
    bounded = mlgpu.fuse(lambda x: x.clamp_min(0.5) * x.eq(1))
    assert bounded(mlgpu.tensor([0.0, 1.0])).tolist() == [0.0, 1.0]
    with pytest.raises(TypeError, match="an operator of Tensor was called of int"):
        mlgpu.Tensor.__radd__(1, mlgpu.ones(2))
