"""The updates of SGD and Adam: parameters, gradients and state are read and written once.

Each function takes lists, one entry per parameter, so that one launch can serve many tensors.
Half types are computed in float32 and rounded once per step; complex numbers as their two parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.runtime import empty
from mlgpu.inplace import run_inplace
from mlgpu.op import Op
from mlgpu.tensor import Tensor

__all__ = ["adam_", "sgd_"]

# Elements per block: five float32 streams and two workspaces stay in a 512 KiB L2 cache.
BLOCK = 16384


class SgdStep(Op):
    """momentum = momentum * factor + (1 - dampening) * d;  param -= lr * direction."""

    differentiable = False

    def __init__(self, lr: float, momentum: float, dampening: float, weight_decay: float,
                 nesterov: bool, maximize: bool, first: bool) -> None:
        self.lr = lr
        self.momentum = momentum
        self.dampening = dampening
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.maximize = maximize
        self.first = first

    def forward_into(self, out: Any, param: Any, grad: Any, buffer: Any = None) -> None:
        written = [out] if buffer is None else [out, buffer]
        for (p, *state), g, (d, spare) in blocks(written, grad):
            if self.maximize:
                g = np.negative(g, out=d)
            if self.weight_decay != 0:
                np.multiply(p, self.weight_decay, out=spare)
                g = np.add(g, spare, out=d)
            if state:
                g = self.direction(state[0], g, d, spare)
            np.multiply(g, self.lr, out=spare)
            np.subtract(p, spare, out=p)

    def direction(self, buffer: Any, g: Any, d: Any, spare: Any) -> Any:
        if self.first:
            np.copyto(buffer, g)
        else:
            np.multiply(buffer, self.momentum, out=buffer)
            np.multiply(g, 1 - self.dampening, out=spare)
            np.add(buffer, spare, out=buffer)
        if not self.nesterov:
            return buffer
        np.multiply(buffer, self.momentum, out=spare)
        return np.add(g, spare, out=d)


class AdamStep(Op):
    """param -= lr / (1 - beta1^t) * mean / (sqrt(square / (1 - beta2^t)) + eps).

    `mean` and `square` are moving averages of the gradient and its square, `peak` (AMSGrad) the
    largest square so far.  Kingma and Ba 2015; decoupled weight decay, Loshchilov and Hutter 2019.
    """

    differentiable = False

    def __init__(self, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
                 decoupled: bool, maximize: bool, step: float) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.weight_decay = weight_decay
        self.decoupled = decoupled
        self.maximize = maximize
        self.step_size = lr / (1 - beta1 ** step)
        self.root = math.sqrt(1 - beta2 ** step)

    def forward_into(self, out: Any, param: Any, grad: Any, *state: Any) -> None:
        for (p, mean, square, *peak), g, (d, spare) in blocks([out, *state], grad):
            if self.maximize:
                g = np.negative(g, out=d)
            if self.weight_decay != 0:
                if self.decoupled:
                    np.multiply(p, 1 - self.lr * self.weight_decay, out=p)
                else:
                    np.multiply(p, self.weight_decay, out=spare)
                    g = np.add(g, spare, out=d)
            np.subtract(g, mean, out=spare)
            np.multiply(spare, 1 - self.beta1, out=spare)
            np.add(mean, spare, out=mean)
            np.multiply(g, g, out=spare)
            np.multiply(spare, 1 - self.beta2, out=spare)
            np.multiply(square, self.beta2, out=square)
            np.add(square, spare, out=square)
            largest = np.maximum(peak[0], square, out=peak[0]) if peak else square
            np.sqrt(largest, out=spare)
            np.divide(spare, self.root, out=spare)
            np.add(spare, self.eps, out=spare)
            np.divide(mean, spare, out=spare)
            np.multiply(spare, self.step_size, out=spare)
            np.subtract(p, spare, out=p)


def blocks(written: Sequence[Any], read: Any) -> Iterator[tuple[list[Any], Any, list[Any]]]:
    """Equal pieces of the arrays in their compute dtype, and two workspaces of that size.

    What is assigned into the pieces of `written` arrives in the arrays.
    """
    arrays = [*written, read]
    if read.dtype.kind == "c":
        yield from blocks([a.real for a in written], read.real)
        yield from blocks([a.imag for a in written], read.imag)
        return
    dtype = dtypes.compute_dtype(dtypes.from_numpy(read.dtype)).numpy
    converted = len(arrays) if dtype != read.dtype else 0
    room = empty((converted + 2, min(BLOCK, read.size)), dtype)
    for piece in split(arrays):
        shape = piece[0].shape
        spaces = [row[:piece[0].size].reshape(shape) for row in room]
        if not converted:
            yield piece[:-1], piece[-1], spaces
            continue
        for space, part in zip(spaces, piece, strict=False):
            np.copyto(space, part)
        yield spaces[:converted - 1], spaces[converted - 1], spaces[converted:]
        for space, part in zip(spaces, piece[:-1], strict=False):
            np.copyto(part, space, casting="unsafe")


def split(arrays: list[Any]) -> Iterator[list[Any]]:
    """Views of the arrays in pieces of at most BLOCK elements."""
    first = arrays[0]
    if all(a.flags.c_contiguous for a in arrays):
        flat = [a.reshape(-1) for a in arrays]
        for start in range(0, first.size, BLOCK):
            yield [a[start:start + BLOCK] for a in flat]
    elif all(a.flags.f_contiguous for a in arrays):
        yield from split([a.T for a in arrays])
    elif first.size <= BLOCK:
        yield arrays
    else:
        rows = BLOCK // (first.size // len(first))
        for start in range(0, len(first), max(rows, 1)):
            yield from split([a[start:start + rows] if rows else a[start] for a in arrays])


def _update(op: Op, param: Tensor, grad: Tensor, state: Sequence[Tensor]) -> None:
    run_inplace(op, param, grad, *state)
    for tensor in state:
        tensor._storage.version += 1


def sgd_(params: Sequence[Tensor], grads: Sequence[Tensor], momenta: Sequence[Tensor | None],
         first: Sequence[bool], *, lr: float, momentum: float, dampening: float,
         weight_decay: float, nesterov: bool, maximize: bool) -> None:
    """One step of SGD.  `momenta` are overwritten by the gradient where it is their `first`."""
    for param, grad, buffer, begins in zip(params, grads, momenta, first, strict=True):
        op = SgdStep(lr, momentum, dampening, weight_decay, nesterov, maximize, begins)
        _update(op, param, grad, () if buffer is None else (buffer,))


def adam_(params: Sequence[Tensor], grads: Sequence[Tensor], exp_avgs: Sequence[Tensor],
          exp_avg_sqs: Sequence[Tensor], max_exp_avg_sqs: Sequence[Tensor],
          steps: Sequence[Tensor], *, lr: float, beta1: float, beta2: float, eps: float,
          weight_decay: float, decoupled: bool, maximize: bool) -> None:
    """One step of Adam; `max_exp_avg_sqs` is empty without AMSGrad.  `steps` count from 0."""
    for number, (param, grad, step) in enumerate(zip(params, grads, steps, strict=True)):
        count = step.item() + 1
        step.fill_(count)
        state = [exp_avgs[number], exp_avg_sqs[number]]
        if max_exp_avg_sqs:
            state.append(max_exp_avg_sqs[number])
        op = AdamStep(lr, beta1, beta2, eps, weight_decay, decoupled, maximize, count)
        _update(op, param, grad, state)
