"""The updates of SGD and Adam on the CPU: all parameters of a step in one parallel loop.

A rule is one parameter's update.  Arrays are cut into pieces of a fixed size, whichever thread
takes them; half types are computed in float32 and rounded once, complex numbers as two parts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import fast
from mlgpu.cpu.blas import axpby
from mlgpu.cpu.runtime import empty
from mlgpu.cpu.threads import parallel

Array = np.ndarray[Any, Any]

# Elements of a piece: large enough that threads seldom wait for each other's calls into NumPy
# (with 16384 two threads were slower than one), small enough for a level-3 cache.  A compiled loop
# reads its memory once, so that only the number of calls counts.
PIECE = 1 << 18
COMPILED_PIECE = 1 << 20


class Rule(ABC):
    """What happens to one parameter and its state."""

    @abstractmethod
    def update(self, written: Sequence[Array], g: Array, d: Array, spare: Array) -> None:
        """Overwrite equal pieces of the parameter and its state; `d`, `spare`: room of that size.

        Operations are done in the order in which the CUDA kernels do them.
        """

    @abstractmethod
    def update_compiled(self, loops: Any, written: Sequence[Array], g: Array) -> None:
        """The same by a loop of `mlgpu.cpu.fast.optimizer`."""


class SgdRule(Rule):
    """momentum = momentum * factor + (1 - dampening) * d;  param -= lr * direction."""

    def __init__(self, lr: float, momentum: float, dampening: float, weight_decay: float,
                 nesterov: bool, maximize: bool, first: bool, factor: float = 1.0) -> None:
        self.lr = lr
        self.momentum = momentum
        self.dampening = dampening
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.maximize = maximize
        self.first = first
        self.factor = factor

    def update(self, written: Sequence[Array], g: Array, d: Array, spare: Array) -> None:
        p, *state = written
        if self.factor != 1:
            g = np.multiply(g, self.factor, out=d)
        if self.maximize:
            g = np.negative(g, out=d)
        if self.weight_decay != 0:
            np.multiply(p, self.weight_decay, out=spare)
            g = np.add(g, spare, out=d)
        if state:
            g = self._direction(state[0], g, d, spare)
        _add(p, 1, g, -self.lr, spare)

    def _direction(self, buffer: Array, g: Array, d: Array, spare: Array) -> Array:
        if self.first:
            np.copyto(buffer, g)
        else:
            _add(buffer, self.momentum, g, 1 - self.dampening, spare)
        if not self.nesterov:
            return buffer
        np.multiply(buffer, self.momentum, out=spare)
        return np.add(g, spare, out=d)

    def update_compiled(self, loops: Any, written: Sequence[Array], g: Array) -> None:
        number = g.dtype.type
        factor = number(-self.factor if self.maximize else self.factor)
        common = number(self.lr), factor, number(self.weight_decay), self.weight_decay != 0
        if len(written) == 1:
            loops.sgd(written[0], g, *common)
        else:
            loops.sgd_momentum(*written, g, *common, number(self.momentum),
                               number(1 - self.dampening), self.nesterov, self.first)


class AdamRule(Rule):
    """param -= lr / (1 - beta1^t) * mean / (sqrt(square / (1 - beta2^t)) + eps).

    `mean` and `square` are moving averages of the gradient and its square, `peak` (AMSGrad) the
    largest square so far.  Kingma and Ba 2015; decoupled weight decay, Loshchilov and Hutter 2019.
    """

    def __init__(self, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
                 decoupled: bool, maximize: bool, step: float, factor: float = 1.0) -> None:
        self.lr = lr
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.weight_decay = weight_decay
        self.decoupled = decoupled
        self.maximize = maximize
        self.step_size = lr / (1 - power(beta1, int(step)))
        self.root = math.sqrt(1 - power(beta2, int(step)))
        self.factor = factor

    def update(self, written: Sequence[Array], g: Array, d: Array, spare: Array) -> None:
        p, mean, square, *peak = written
        if self.factor != 1:
            g = np.multiply(g, self.factor, out=d)
        if self.maximize:
            g = np.negative(g, out=d)
        if self.weight_decay != 0 and not self.decoupled:
            np.multiply(p, self.weight_decay, out=spare)
            g = np.add(g, spare, out=d)
        _approach(mean, g, 1 - self.beta1, spare)
        np.multiply(g, g, out=spare)
        _add(square, self.beta2, spare, 1 - self.beta2, spare)
        largest = np.maximum(peak[0], square, out=peak[0]) if peak else square
        np.sqrt(largest, out=spare)
        np.divide(spare, self.root, out=spare)
        np.add(spare, self.eps, out=spare)
        np.divide(mean, spare, out=spare)
        kept = 1 - self.lr * self.weight_decay if self.decoupled else 1.0
        _add(p, kept, spare, -self.step_size, spare)

    def update_compiled(self, loops: Any, written: Sequence[Array], g: Array) -> None:
        number = g.dtype.type
        decay = self.weight_decay
        coupled = decay != 0 and not self.decoupled
        kept = 1 - self.lr * decay if self.decoupled else 1.0
        loop = loops.adam if len(written) == 3 else loops.adam_peak
        loop(*written, g, number(-self.factor if self.maximize else self.factor), number(decay),
             coupled, number(kept), number(1 - self.beta1), number(self.beta2),
             number(1 - self.beta2), number(1 / self.root), number(self.eps),
             number(self.step_size))


def _approach(y: Array, x: Array, share: float, spare: Array) -> None:
    """y += share * (x - y)"""
    if not axpby(share, x, 1 - share, y):
        np.subtract(x, y, out=spare)
        np.multiply(spare, share, out=spare)
        np.add(y, spare, out=y)


def _add(y: Array, kept: float, x: Array, share: float, spare: Array) -> None:
    """y = kept * y + share * x; `spare` may be x, which is lost then."""
    if not axpby(share, x, kept, y):
        if kept != 1:
            np.multiply(y, kept, out=y)
        np.multiply(x, share, out=spare)
        np.add(y, spare, out=y)


def power(base: float, exponent: int) -> float:
    """base ** exponent, rounded as the kernels that count the steps themselves round it."""
    result = 1.0
    while exponent > 0:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def update(rules: Sequence[Rule], written: Sequence[Sequence[Array]],
           grads: Sequence[Array]) -> None:
    """Apply each rule to its parameter with its state (`written`) and gradient."""
    work = sum(grad.size for grad in grads)
    loops = fast.load("optimizer", work)
    pieces = []
    for rule, arrays, grad in zip(rules, written, grads, strict=True):
        plain = loops is not None and grad.dtype.char in "fd" and all(
            a.flags.c_contiguous for a in (*arrays, grad))
        pieces += [(rule, piece, plain) for piece in
                   cut([*arrays, grad], COMPILED_PIECE if plain else PIECE)]
    others = {(piece[0].dtype, len(piece)) for _, piece, plain in pieces if not plain}
    largest = max((piece[0].size for _, piece, plain in pieces if not plain), default=0)

    def start() -> Any:
        rooms: dict[Any, Array] = {}
        for dtype, count in others:
            compute = dtypes.compute_dtype(dtypes.from_numpy(dtype)).numpy
            rows = 2 if compute == dtype else 2 + count
            if dtype not in rooms or len(rooms[dtype]) < rows:
                rooms[dtype] = empty((rows, largest), compute)

        def body(task: int) -> None:
            rule, piece, plain = pieces[task]
            if plain:
                rule.update_compiled(loops, piece[:-1], piece[-1])
            else:
                _in_compute_dtype(rule, piece, rooms[piece[0].dtype])
        return body

    parallel(len(pieces), start, work)


def _in_compute_dtype(rule: Rule, piece: list[Array], room: Array) -> None:
    """Update a piece, through copies in the room's dtype where it has another."""
    shape, size = piece[0].shape, piece[0].size
    d, spare, *copies = [row[:size].reshape(shape) for row in room]
    if piece[0].dtype == room.dtype:
        rule.update(piece[:-1], piece[-1], d, spare)
        return
    for copy, part in zip(copies, piece, strict=False):
        np.copyto(copy, part)
    rule.update(copies[:len(piece) - 1], copies[len(piece) - 1], d, spare)
    for copy, part in zip(copies, piece[:-1], strict=False):
        np.copyto(part, copy, casting="unsafe")


def cut(arrays: list[Array], most: int) -> Iterator[list[Array]]:
    """Views of equal arrays in pieces of `most` elements at most, complex ones as two parts."""
    first = arrays[0]
    if first.dtype.kind == "c":
        yield from cut([a.real for a in arrays], most)
        yield from cut([a.imag for a in arrays], most)
    elif all(a.flags.c_contiguous for a in arrays):
        flat = [a.reshape(-1) for a in arrays]
        for start in range(0, first.size, most):
            yield [a[start:start + most] for a in flat]
    elif all(a.flags.f_contiguous for a in arrays):
        yield from cut([a.T for a in arrays], most)
    elif first.size <= most:
        yield arrays
    else:
        rows = most // (first.size // len(first))
        for start in range(0, len(first), max(rows, 1)):
            yield from cut([a[start:start + rows] if rows else a[start] for a in arrays], most)
