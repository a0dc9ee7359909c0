"""Affine maps: linear and bilinear."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.cpu.gemm import cast, column_sums, contiguous, gemm, widen
from mlgpu.cpu.runtime import empty
from mlgpu.errors import ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.complex import conj
from mlgpu.ops.matmul import check_dims, check_same_dtype, matmul
from mlgpu.tensor import Tensor

__all__ = ["bilinear", "linear"]


class Linear(Op):
    """x @ weight.T + bias over the last dimension of x, as one product of two matrices."""

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0,) * needs[1] + (1,) * needs[0]

    def forward(self, x: Any, weight: Any, bias: Any = None) -> Any:
        out = gemm(_rows(x), widen(weight).T).reshape(*x.shape[:-1], len(weight))
        if bias is not None:
            np.add(out, widen(bias), out=out)
        return cast(out, x.dtype)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        dx = dweight = None
        if self.needs[0]:
            dx = matmul(dy, conj(self.input(1)))
        if self.needs[1]:
            x = self.input(0)
            rows = math.prod(dy.shape[:-1])
            dweight = matmul(dy.reshape(rows, dy.shape[-1]).mT,
                             conj(x.reshape(rows, x.shape[-1])))
        return dx, dweight, *((dy,) if len(self.needs) > 2 else ())

    def backward_cpu(self, dy: Any) -> tuple[Any, ...]:
        rows = _rows(dy)
        dx = dweight = None
        if self.needs[0]:
            weight = widen(self.input_array(1))
            dx = cast(gemm(rows, _conj(weight)), dy.dtype)
            dx = dx.reshape(*dy.shape[:-1], weight.shape[1])
        if self.needs[1]:
            dweight = cast(gemm(rows.T, _conj(_rows(self.input_array(0)))), dy.dtype)
        if len(self.needs) == 2:
            return dx, dweight
        return dx, dweight, cast(column_sums(rows), dy.dtype) if self.needs[2] else None


def _rows(x: Any) -> Any:
    """x as a matrix of its last dimension's vectors, in its compute dtype."""
    return contiguous(widen(x)).reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _conj(x: Any) -> Any:
    return np.conjugate(x, out=empty(x.shape, x.dtype)) if x.dtype.kind == "c" else x


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias: (..., in), (out, in) and (out,) to (..., out).

    A 1-d weight maps to (...).  Raises DTypeError for different dtypes and ShapeError for shapes
    that do not fit.
    """
    tensors = (input, weight) if bias is None else (input, weight, bias)
    check_same_dtype("linear", *tensors)
    if weight.ndim == 1 and bias is None and input.ndim:
        return matmul(input, weight)
    check_dims("linear", weight=(weight, 2))
    if input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ShapeError(f"linear: input must have {weight.shape[1]} features in its last "
                         f"dimension to match weight {tuple(weight.shape)}, got input "
                         f"{tuple(input.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        bias = _expand_bias(input, weight, bias)
        return run(Linear(), input, weight) + bias  # type: ignore[no-any-return]
    return run(Linear(), *tensors)  # type: ignore[no-any-return]


def _expand_bias(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    shape = (*input.shape[:-1], weight.shape[0])
    try:
        if np.broadcast_shapes(bias.shape, shape) == shape:
            return bias.expand(shape)
    except ValueError:
        pass
    raise ShapeError(f"linear: bias must be ({weight.shape[0]},) to match weight "
                     f"{tuple(weight.shape)}, got {tuple(bias.shape)}")


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor,
             bias: Tensor | None = None) -> Tensor:
    """y[..., o] = sum over i, j of input1[..., i] * weight[o, i, j] * input2[..., j] + bias[o].

    input1: (..., i), input2: (..., j), weight: (o, i, j), bias: (o,).
    """
    check_dims("bilinear", weight=(weight, 3))
    check_same_dtype("bilinear", input1, input2, weight, *(() if bias is None else (bias,)))
    out, left, right = weight.shape
    lead = input1.shape[:-1]
    if (input1.shape[-1:] != (left,) or input2.shape[-1:] != (right,)
            or input2.shape[:-1] != lead):
        raise ShapeError(f"bilinear: inputs must be (..., {left}) and (..., {right}) to match "
                         f"weight {tuple(weight.shape)}, got {tuple(input1.shape)} and "
                         f"{tuple(input2.shape)}")
    if bias is not None and bias.shape != (out,):
        raise ShapeError(f"bilinear: bias must be ({out},), got {tuple(bias.shape)}")
    rows = math.prod(lead)
    maps = weight.permute(1, 0, 2).reshape(left, out * right)
    mapped = matmul(input1.reshape(rows, left), maps).reshape(rows, out, right)
    product = matmul(mapped, input2.reshape(rows, right, 1)).reshape(*lead, out)
    return product if bias is None else product + bias
