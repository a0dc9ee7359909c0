"""Affine maps: linear, also with what follows it in one kernel, and bilinear."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.autograd import enable_grad, grad
from mlgpu.autograd import mode as modes
from mlgpu.autograd.mode import mode
from mlgpu.cpu.gemm import cast, contiguous, gemm, gemms, ones_row, widen
from mlgpu.cpu.pool import SMALLEST
from mlgpu.cpu.runtime import empty, quiet
from mlgpu.cuda import gemm as cuda_gemm
from mlgpu.cuda import runtime as cuda_runtime
from mlgpu.device import CPU
from mlgpu.errors import ShapeError
from mlgpu.memory import Charge, account
from mlgpu.op import Op, run
from mlgpu.ops.activation import gelu, silu
from mlgpu.ops.complex import conj
from mlgpu.ops.matmul import check_dims, check_same_dtype, matmul
from mlgpu.storage import Storage
from mlgpu.tensor import Tensor

__all__ = ["bilinear", "linear"]

_books = account(CPU)


class Linear(Op):
    """x @ weight.T + bias over the last dimension of x, as one product of two matrices."""

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0,) * needs[1] + (1,) * needs[0]

    def forward(self, x: Any, weight: Any, bias: Any = None) -> Any:
        out = gemm(_rows(x), widen(weight).T, None if bias is None else widen(bias))
        if x.ndim != 2:
            out = out.reshape(*x.shape[:-1], len(weight))
        return cast(out, x.dtype)

    def forward_cuda(self, x: Any, weight: Any, bias: Any = None) -> Any:
        out = cuda_gemm.gemm(_matrix(x), weight.T, bias=bias)
        return out if x.ndim == 2 else out.reshape(*x.shape[:-1], len(weight))

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
        summed = len(self.needs) > 2 and self.needs[2]
        pairs = []
        if self.needs[1]:
            pairs.append((rows.T, _conj(_rows(self.input_array(0)))))
        if summed and len(rows) != 1:
            pairs.append((ones_row(rows), rows))
        if self.needs[0]:  # last: the next backward finds it in the cache
            pairs.append((rows, _conj(widen(self.input_array(1)))))
        found = [cast(made, dy.dtype) for made in gemms(*pairs)]
        dx = dbias = None
        if self.needs[0]:
            dx = found.pop()
            if dy.ndim != 2:
                dx = dx.reshape(*dy.shape[:-1], dx.shape[1])
        if summed:
            dbias = found.pop()[0] if len(rows) != 1 else cast(rows[0], dy.dtype)
        dweight = found.pop() if self.needs[1] else None
        return dx, dweight, *((dbias,) if len(self.needs) > 2 else ())

    def backward_cuda(self, dy: Any) -> tuple[Any, ...]:
        return self.factor_gradients_cuda(dy, len(self.needs) > 2)

    def factor_gradients_cuda(self, dy: Any, biased: bool) -> tuple[Any, ...]:
        """Of x, the weight and, where there is one, the bias, a by-product of the weight's."""
        rows = _matrix(dy)
        dx = dweight = dbias = None
        if self.needs[0]:
            weight = self.input_array(1)
            dx = cuda_gemm.gemm(rows, cuda_gemm.conjugate(weight))
            if dy.ndim != 2:
                dx = dx.reshape(*dy.shape[:-1], weight.shape[1])
        summed = biased and self.needs[2]
        if self.needs[1]:
            if summed:
                dbias = cuda_runtime.empty((rows.shape[1],), dy.dtype)
            x = cuda_gemm.conjugate(_matrix(self.input_array(0)))
            dweight = cuda_gemm.gemm(rows.T, x, row_sums=dbias)
        elif summed:
            dbias = cuda_gemm.column_sums(rows)
        return dx, dweight, *((dbias,) if biased else ())


class LinearThen(Linear):
    """activation(x @ weight.T + bias) + residual on CUDA, in the product's own kernel.

    Inputs: x, weight, then the bias and the residual, where there are any.
    """

    name = "linear"

    def __init__(self, activation: str | None, biased: bool) -> None:
        self.activation, self.biased = activation, biased

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        if self.activation is None:
            return super().keeps(needs)
        return tuple(range(2 + self.biased))

    def forward_cuda(self, x: Any, weight: Any, *rest: Any) -> Any:
        bias = rest[0] if self.biased else None
        residual = rest[-1] if len(rest) > self.biased else None
        shape = (*x.shape[:-1], len(weight))
        rows = _matrix(x)
        if residual is not None:
            residual = cuda_runtime.contiguous(residual).reshape(len(rows), len(weight))
        keep = self.activation is not None and self.recording
        out = cuda_gemm.gemm(rows, weight.T, bias=bias, activation=self.activation,
                             residual=residual, keep=keep)
        if not keep:
            return out.reshape(shape)
        self.stash(pre=out[1])
        return out[0].reshape(shape)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        plain = self.needs[:2 + self.biased]
        residual = (dy,) * (len(self.needs) - len(plain))
        if self.activation is None:
            before = super().backward(dy)
            return *before[:2], *((dy,) if self.biased else ()), *residual
        # Views of the inputs, so that the walk ends at them and not at what made them.
        inputs = [x.view(x.shape) for x in map(self.input, range(len(plain)))]
        with enable_grad():
            y = _activate(run(Linear(), *inputs), self.activation)
            found = iter(grad([y], [x for x, need in zip(inputs, plain, strict=True) if need], [dy],
                              create_graph=True))
        return *(next(found) if need else None for need in plain), *residual

    def backward_cuda(self, dy: Any) -> tuple[Any, ...]:
        residual = (dy,) * (len(self.needs) - 2 - self.biased)
        if self.activation is not None and any(self.needs[:2 + self.biased]):
            inner = cuda_gemm.activation_backward(dy, self.pre, self.activation)
        else:
            inner = dy
        return *self.factor_gradients_cuda(inner, self.biased), *residual


def _activate(x: Tensor, activation: str | None) -> Tensor:
    if activation is None:
        return x
    if activation == "relu":
        return x.relu()
    if activation == "silu":
        return silu(x)
    return gelu(x, "none" if activation == "gelu" else "tanh")


def _matrix(x: Any) -> Any:
    """A device array as a matrix of its last dimension's vectors."""
    if x.ndim == 2:
        return x
    return cuda_runtime.reshaped(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _rows(x: Any) -> Any:
    """x as a matrix of its last dimension's vectors, in its compute dtype."""
    rows = contiguous(widen(x))
    return rows if x.ndim == 2 else rows.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _conj(x: Any) -> Any:
    return np.conjugate(x, out=empty(x.shape, x.dtype)) if x.dtype.kind == "c" else x


ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")


def _is_usual(input: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are floating tensors of one dtype that fit, so that nothing is to explain."""
    if not (isinstance(input, Tensor) and isinstance(weight, Tensor)):
        return False
    x, w = input._array, weight._array
    fits = (w.ndim == 2 and x.ndim > 0 and x.shape[-1] == w.shape[1] and x.dtype == w.dtype
            and x.dtype.kind in "fc")
    if bias is not None and fits and isinstance(bias, Tensor):
        fits = bias._array.shape == w.shape[:1] and bias._array.dtype == w.dtype
    return bool(fits)


def _unrecorded(inputs: tuple[Tensor, ...]) -> Tensor | None:
    """The map of a few rows on the CPU, where no graph is recorded; None where this is not so.

    A served model multiplies one row at a time, and a node would cost as much as the product.
    """
    for tensor in inputs:
        storage = tensor._storage
        if (storage.device is not CPU or storage.released or storage.pending is not None
                or modes.observers):
            return None
    x, weight, *rest = [tensor._array for tensor in inputs]
    shape, dtype = (len(x), len(weight)), x.dtype
    nbytes = shape[0] * shape[1] * dtype.itemsize
    if x.ndim != 2 or dtype.char not in "fd" or nbytes >= SMALLEST:
        return None
    charge = Charge(_books, nbytes, shape, dtype)
    out = quiet().run(_affine, x, weight, *rest)
    return Tensor._make(out, Storage(CPU, charge, True, out))


def _affine(x: Any, weight: Any, bias: Any = None) -> Any:
    out = x.dot(weight.T)
    return out if bias is None else np.add(out, bias, out=out)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, *,
           activation: str | None = None, residual: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias: (..., in), (out, in) and (out,) to (..., out).

    A 1-d weight maps to (...).  `activation`, one of "relu", "gelu", "gelu_tanh" and "silu", is
    applied to that, and `residual`, of the result's shape, added to it; on CUDA the kernel of the
    product does both.  Raises DTypeError for different dtypes and ShapeError for shapes that do not
    fit.
    """
    if activation is None and residual is None and _is_usual(input, weight, bias):
        inputs = (input, weight) if bias is None else (input, weight, bias)
        if not mode.grad and (made := _unrecorded(inputs)) is not None:
            return made
        return run(Linear(), *inputs)  # type: ignore[no-any-return]
    more = tuple(t for t in (bias, residual) if t is not None)
    check_same_dtype("linear", input, weight, *more)
    if activation is not None and (activation not in ACTIVATIONS
                                   or not input.is_floating_point()):
        raise ShapeError(f"linear: activation must be one of {', '.join(ACTIVATIONS)}, for "
                         f"floating tensors, got {activation!r} for {input.dtype.name}")
    fused = activation is not None or residual is not None
    if weight.ndim == 1 and bias is None and input.ndim and not fused:
        return matmul(input, weight)
    check_dims("linear", weight=(weight, 2))
    if input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ShapeError(f"linear: input must have {weight.shape[1]} features in its last "
                         f"dimension to match weight {tuple(weight.shape)}, got input "
                         f"{tuple(input.shape)}")
    shape = (*input.shape[:-1], weight.shape[0])
    if residual is not None and residual.shape != shape:
        raise ShapeError(f"linear: residual must have the result's shape {shape}, got "
                         f"{tuple(residual.shape)}")
    usual = bias is None or bias.shape == weight.shape[:1]
    if fused and usual and input.device.type == "cuda":
        return run(LinearThen(activation, bias is not None),  # type: ignore[no-any-return]
                   input, weight, *more)
    if usual:
        product: Tensor = run(Linear(), input, weight, *(() if bias is None else (bias,)))
    else:
        assert bias is not None
        product = run(Linear(), input, weight) + _expand_bias(input, weight, bias)
    result = _activate(product, activation)
    return result if residual is None else result + residual


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
