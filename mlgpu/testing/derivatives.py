"""Derivatives against finite differences: `gradcheck` and `gradgradcheck`.

A Jacobian has one row per element of an input and one column per real number of an output: a
complex output has twice as many columns, for its real and then its imaginary parts.  By a complex
input the derivative is d/dRe + i d/dIm, as gradients are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgpu import dtypes
from mlgpu.autograd import enable_grad, grad
from mlgpu.errors import GradcheckError, ShapeError
from mlgpu.ops.creation import ones_like, zeros_like
from mlgpu.tensor import Tensor
from mlgpu.testing.samples import make_tensor

Array = npt.NDArray[Any]
Tensors = Tensor | Sequence[Any]


@dataclass(frozen=True)
class _Check:
    """One check of `function` at `inputs`, of which those at `positions` are differentiated by."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    eps: float
    atol: float
    rtol: float
    nondet_tol: float

    @property
    def positions(self) -> tuple[int, ...]:
        return tuple(i for i, x in enumerate(self.inputs)
                     if isinstance(x, Tensor) and x.requires_grad)

    @property
    def ends(self) -> tuple[Tensor, ...]:
        return tuple(self.inputs[i] for i in self.positions)

    def outputs(self) -> tuple[Tensor, ...]:
        """The outputs that have a derivative."""
        return _differentiable(self.function(*self.inputs))

    # --- the two Jacobians ------------------------------------------------------------------

    def numerical(self, position: int, evaluate: Callable[[], Sequence[Tensor]]) -> list[Array]:
        """Per output, the Jacobian by input `position`, from central differences."""
        x = self.inputs[position].detach()
        directions = (1, 1j) if x.is_complex() else (1,)
        kind = np.complex128 if x.is_complex() else np.float64
        rows: list[list[Array]] = []
        for index in np.ndindex(*x.shape):
            row: list[Any] = []
            for direction in directions:
                ahead, behind = (self._at(x, index, sign * direction * self.eps, evaluate)
                                 for sign in (1, -1))
                slopes = [direction * (a - b) / (2 * self.eps)
                          for a, b in zip(ahead, behind, strict=True)]
                row = slopes if not row else [r + s for r, s in zip(row, slopes, strict=True)]
            rows.append(row)
        if not rows:
            return [np.zeros((0, part.size), kind) for part in map(_numbers, evaluate())]
        return [np.stack(column).astype(kind) for column in zip(*rows, strict=True)]

    def _at(self, x: Tensor, index: tuple[int, ...], step: complex,
            evaluate: Callable[[], Sequence[Tensor]]) -> list[Array]:
        with _moved(x, index, step):
            return [_numbers(output) for output in evaluate()]

    def analytical(self, output: Tensor, number: int) -> list[Array]:
        """Per differentiated input, the Jacobian of `output`, from backward."""
        ends = self.ends
        parts = (1, 1j) if output.is_complex() else (1,)
        columns: list[list[Array]] = [[] for _ in ends]
        for part in parts:
            for index in np.ndindex(*output.shape):
                seed = zeros_like(output)
                seed[index] = part
                first, again = (self._pull((output,), (seed,)) for _ in range(2))
                for k, (a, b) in enumerate(zip(first, again, strict=True)):
                    self._same_again(a, b, number, self.positions[k])
                    columns[k].append(a)
        return [np.stack(column, 1) if column else np.zeros((x.numel(), 0))
                for column, x in zip(columns, ends, strict=True)]

    def _pull(self, outputs: Sequence[Tensor], seeds: Sequence[Tensor]) -> list[Array]:
        """The gradients by the inputs, flat; zeros where there is none."""
        found = grad(outputs, self.ends, seeds, retain_graph=True, allow_unused=True)
        flat = []
        for position, x, g in zip(self.positions, self.ends, found, strict=True):
            if g is None:
                flat.append(np.zeros(x.numel(), _wide(x)))
                continue
            self._like_its_input(position, x, g)
            flat.append(_host(g).reshape(-1))
        return flat

    # --- what must hold ---------------------------------------------------------------------

    def _like_its_input(self, position: int, x: Tensor, g: Tensor) -> None:
        for what in ("shape", "dtype", "device"):
            if getattr(g, what) != getattr(x, what):
                raise GradcheckError(f"{self.name}: the gradient by input {position} has {what} "
                                     f"{getattr(g, what)}, the input {getattr(x, what)}")

    def _same_again(self, first: Array, again: Array, output: int, position: int) -> None:
        if first.size and not np.max(np.abs(first - again)) <= self.nondet_tol:
            raise GradcheckError(
                f"{self.name}: backward is not reentrant: the gradient of output {output} by "
                f"input {position}, computed twice from the same values, differs by "
                f"{np.max(np.abs(first - again)):.6g}; nondet_tol is {self.nondet_tol}")

    def jacobians_agree(self, outputs: Sequence[Tensor]) -> None:
        numerical = [self.numerical(position, self.outputs) for position in self.positions]
        for j, output in enumerate(outputs):
            analytical = self.analytical(output, j)
            for k, (position, x) in enumerate(zip(self.positions, self.ends, strict=True)):
                expected, found = numerical[k][j], analytical[k]
                if not np.allclose(found, expected, self.rtol, self.atol):
                    raise GradcheckError(self._mismatch(position, x, j, output, found, expected))

    def _mismatch(self, position: int, x: Tensor, number: int, output: Tensor, found: Array,
                  expected: Array) -> str:
        error = np.abs(found - expected) - self.rtol * np.abs(expected)
        row, column = np.unravel_index(np.argmax(error), error.shape)
        part, element = divmod(int(column), output.numel())
        which = ("the imaginary part of " if part else
                 "the real part of " if output.is_complex() else "")
        of = tuple(map(int, np.unravel_index(element, tuple(output.shape))))
        by = tuple(map(int, np.unravel_index(row, tuple(x.shape))))
        return (f"{self.name}: Jacobian mismatch for output {number} with respect to input "
                f"{position}: the derivative of {which}element {of} by element {by} is "
                f"{found[row, column]:.6g} by backward, {expected[row, column]:.6g} numerically "
                f"(atol {self.atol}, rtol {self.rtol})\nnumerical:\n{expected}\n"
                f"analytical:\n{found}")

    def constant(self) -> None:
        """No output has a graph: then none may change with the inputs."""
        def floating() -> tuple[Tensor, ...]:
            return tuple(y for y in _tuple(self.function(*self.inputs)) if _has_derivative(y))

        for position in self.positions:
            for j, jacobian in enumerate(self.numerical(position, floating)):
                if not np.allclose(jacobian, 0, self.rtol, self.atol):
                    raise GradcheckError(
                        f"{self.name}: output {j} does not require grad, yet it changes with "
                        f"input {position}: its gradient is dropped\nnumerical:\n{jacobian}")

    def linear_in_gradients(self, outputs: Sequence[Tensor]) -> None:
        found = self._pull(outputs, [zeros_like(y) for y in outputs])
        for position, gradient in zip(self.positions, found, strict=True):
            if np.any(gradient != 0):
                raise GradcheckError(f"{self.name}: backward does not multiply by the outputs' "
                                     f"gradients: for zeros, input {position} gets {gradient}")

    def missing_means_zero(self, outputs: Sequence[Tensor]) -> None:
        """An output whose gradient is missing must count as one whose gradient is zero."""
        for j, output in enumerate(outputs):
            seeds = [ones_like(y) if y is output else zeros_like(y) for y in outputs]
            alone, among = self._pull((output,), (seeds[j],)), self._pull(outputs, seeds)
            for position, a, b in zip(self.positions, alone, among, strict=True):
                if not np.allclose(a, b, self.rtol, self.atol):
                    raise GradcheckError(
                        f"{self.name}: missing gradients are not treated as zeros: from output "
                        f"{j} alone input {position} gets {a}, with zeros for the others {b}")


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _has_derivative(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


def _differentiable(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(y for y in _tuple(outputs) if isinstance(y, Tensor) and y.requires_grad)


def _wide(x: Tensor) -> type[np.generic]:
    return np.complex128 if x.is_complex() else np.float64


def _host(x: Tensor) -> Array:
    """A copy of the values in double precision."""
    return x.numpy(force=True).astype(_wide(x))


def _numbers(output: Tensor) -> Array:
    flat = _host(output).reshape(-1)
    return np.concatenate([flat.real, flat.imag]) if output.is_complex() else flat


@contextmanager
def _moved(x: Tensor, index: tuple[int, ...], step: complex) -> Iterator[None]:
    """Within it one element of `x` is changed by `step`, where the function itself sees it."""
    value, version = x[index].item(), x._version
    x[index] = value + step
    try:
        yield
    finally:
        x[index] = value
        x._storage.version = version  # what was saved before is what is there again


def _check_inputs(name: str, inputs: tuple[Any, ...]) -> None:
    wanted = [(i, x) for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not wanted:
        raise ValueError(f"{name}: at least one input must require grad, none does")
    for i, x in wanted:
        if x.dtype not in (dtypes.float64, dtypes.complex128):
            warnings.warn(f"{name}: input {i} requires grad and is {x.dtype!r}: the check will "
                          "likely fail for less than double precision", stacklevel=3)
        if x.numel() > 1 and 0 in [s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1]:
            raise ShapeError(f"{name}: input {i} has a dimension of stride 0, so that elements "
                             "share one place and cannot change alone; call contiguous() on it")


def _run(check: _Check, check_undefined_grad: bool) -> None:
    with enable_grad():
        outputs = check.outputs()
        if not outputs:
            check.constant()
            return
        check.jacobians_agree(outputs)
        check.linear_in_gradients(outputs)
        if check_undefined_grad:
            check.missing_means_zero(outputs)


def gradcheck(func: Callable[..., Any], inputs: Tensors, *, eps: float = 1e-6,
              atol: float = 1e-5, rtol: float = 1e-3, raise_exception: bool = True,
              nondet_tol: float = 0.0, check_undefined_grad: bool = True) -> bool:
    """True if backward of `func` gives the derivatives that finite differences of step `eps` give.

    Checked by each of `inputs` that requires grad, for each output that does; they should be
    float64 or complex128 (less than that is warned of).  Backward must also give the same results
    twice, to within `nondet_tol`, gradients like their inputs, zeros from zeros, and with
    `check_undefined_grad` the same for an output without gradient as for one with zeros.
    Raises GradcheckError, or returns False unless `raise_exception`.
    """
    given = _tuple(inputs)
    _check_inputs("gradcheck", given)
    check = _Check("gradcheck", func, given, eps, atol, rtol, nondet_tol)
    return _verdict(check, raise_exception, check_undefined_grad)


def _verdict(check: _Check, raise_exception: bool, check_undefined_grad: bool) -> bool:
    try:
        _run(check, check_undefined_grad)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(func: Callable[..., Any], inputs: Tensors, grad_outputs: Tensors | None = None,
                  *, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
                  gen_non_contig_grad_outputs: bool = False, raise_exception: bool = True,
                  nondet_tol: float = 0.0, check_undefined_grad: bool = True) -> bool:
    """As `gradcheck`, of the gradients: by the inputs and by the gradients of the outputs.

    `grad_outputs` (shaped as the outputs) are drawn from [-1, 1), the same each time, if left out;
    in error messages they are the inputs after `inputs`.
    """
    given = _tuple(inputs)
    _check_inputs("gradgradcheck", given)
    if grad_outputs is None:
        generator = np.random.default_rng(0)
        with enable_grad():
            seeds = tuple(make_tensor(y.shape, dtype=y.dtype, device=y.device, low=-1, high=1,
                                      requires_grad=True, generator=generator,
                                      noncontiguous=gen_non_contig_grad_outputs)
                          for y in _differentiable(func(*given)))
    else:
        seeds = _tuple(grad_outputs)
    count = len(given)

    def gradients(*args: Any) -> tuple[Tensor, ...]:
        ends = [x for x in args[:count] if isinstance(x, Tensor) and x.requires_grad]
        found = grad(_differentiable(func(*args[:count])), ends, args[count:], create_graph=True,
                     allow_unused=True)
        return tuple(g for g in found if g is not None)

    check = _Check("gradgradcheck", gradients, given + seeds, eps, atol, rtol, nondet_tol)
    return _verdict(check, raise_exception, check_undefined_grad)
