"""Losses of class scores on the device: which kernels, by where the classes lie and how many.

Scores are (outer, n, inner) around the dimension of the classes; a row is a place around it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mlgpu.cuda import faults, rows
from mlgpu.cuda.launch import launch
from mlgpu.cuda.runtime import contiguous, empty, zeros
from mlgpu.cuda.types import ctype

HELD = 32  # values of a row that a lane holds
FEW = 64  # classes, of columns that a thread takes alone
PIECE = 1 << 14  # rows whose losses one block adds


class Plan(NamedTuple):
    """A kernel, its grid and block, and the numbers that follow the arrays among its arguments."""

    kernel: str
    grid: int
    block: int
    numbers: tuple[int, ...]


class Losses(NamedTuple):
    """Against what scores are held, and how the losses of rows become one."""

    name: str
    target: Any
    weight: Any
    ignore: int
    reduction: str
    smoothing: float = 0.0

    def dense(self) -> Losses:
        """The same with contiguous arrays."""
        weight = None if self.weight is None else contiguous(self.weight)
        return self._replace(target=contiguous(self.target), weight=weight)

    def site(self) -> int:
        return faults.site(f"{self.name}: target {{value}} is out of range for {{bound}} classes")


def forward(x: Any, dim: int, given: Losses) -> tuple[Any, Any, Any]:
    """The reduced cross entropy, the weight of all rows that count, and each row's logsumexp."""
    x, given = contiguous(x), given.dense()
    outer, _, inner = rows.around(x.shape, dim)
    compute, count = rows.wide(x.dtype), outer * inner
    losses, weights = _per_row(x, count, given), empty((count,), compute)
    lse = empty((count,), compute)
    if not x.size:
        return (*_empty_result(losses, given, x.dtype), lse)
    rows_into(losses, lse, weights, x, given, dim)
    return (*_reduced(losses, weights, x.dtype, given), lse)


def rows_into(losses: Any, lse: Any, weights: Any, x: Any, given: Losses, dim: int = 1) -> None:
    """Write each row's loss, logsumexp and weight; everything is contiguous."""
    outer, n, inner = rows.around(x.shape, dim)
    plan = forward_plan(x.dtype, given.target.dtype, losses.dtype, _width(x, given, n, inner),
                        outer, n, inner, given.smoothing != 0)
    launch("cross_entropy", plan.kernel, plan.grid, plan.block,
           (losses, lse, weights, x, given.target, given.weight,
            weight_sum(given, rows.wide(x.dtype)), *plan.numbers, given.ignore, given.smoothing,
            faults.fault(), given.site()))


def backward(dy: Any, x: Any, dim: int, lse: Any, total: Any, given: Losses, spare: bool) -> Any:
    """The gradient of x, given that of the loss; in the memory of x where that is to `spare`."""
    dense, dy, given = contiguous(x), contiguous(dy), given.dense()
    dx = dense if spare or dense is not x else empty(x.shape, x.dtype)
    x = dense
    if x.size:
        gradient_into(dx, x, dim, lse, total, dy, given)
    return dx


def gradient_into(dx: Any, x: Any, dim: int, lse: Any, total: Any, dy: Any, given: Losses) -> None:
    """Write the gradient of x into dx, which may be x itself; everything is contiguous."""
    _, n, inner = rows.around(x.shape, dim)
    width = min(_width(x, given, n, inner), _width(dx, given, n, inner))
    kernel = backward_kernel(x, given.target, width, inner > 1, given.smoothing != 0)
    launch("cross_entropy", kernel, -(-x.size // (512 * width)), 256,
           (dx, x, lse, given.target, given.weight, weight_sum(given, rows.wide(x.dtype)), dy,
            total, given.reduction == "none", x.size // width, n, inner, given.ignore,
            given.smoothing))


def nll_forward(x: Any, dim: int, given: Losses) -> tuple[Any, Any]:
    """The reduced negative log-likelihood, and the weight of all rows that count."""
    x, given = contiguous(x), given.dense()
    outer, n, inner = rows.around(x.shape, dim)
    compute = rows.wide(x.dtype)
    losses, weights = _per_row(x, outer * inner, given), empty((outer * inner,), compute)
    if not x.size:
        return _empty_result(losses, given, x.dtype)
    types = ", ".join(map(ctype, (x.dtype, given.target.dtype, losses.dtype, compute)))
    launch("cross_entropy", f"nll_forward<{types}>", -(-losses.size // 256), 256,
           (losses, weights, x, given.target, given.weight, losses.size, n, inner, given.ignore,
            faults.fault(), given.site()))
    return _reduced(losses, weights, x.dtype, given)


def nll_backward(dy: Any, shape: tuple[int, ...], dtype: Any, dim: int, total: Any, given: Losses
                 ) -> Any:
    """The gradient of the log-probabilities."""
    dy, given = contiguous(dy), given.dense()
    dx = empty(shape, dtype)
    _, n, inner = rows.around(shape, dim)
    if not dx.size:
        return dx
    columns = inner > 1
    width = rows.vector(inner, dx) if columns else rows.vector(dx.size, dx)
    compute = rows.wide(dtype)
    types = ", ".join(map(ctype, (dtype, given.target.dtype, compute)))
    launch("cross_entropy",
           f"nll_backward<{types}, {_index(dx)}, {width}, {str(columns).lower()}>",
           -(-dx.size // (512 * width)), 256,
           (dx, given.target, given.weight, dy, total, given.reduction == "none",
            dx.size // width, n, inner, given.ignore))
    return dx


def weight_sum(given: Losses, compute: Any) -> Any:
    """The sum of the class weights where smoothing asks for it; None without weights."""
    if given.weight is None or not given.smoothing:
        return None
    total = empty((), compute)
    launch("cross_entropy", f"weight_sums<{ctype(given.weight.dtype)}, {ctype(compute)}>", 1, 1024,
           (total, given.weight, given.weight.size))
    return total


def reduce_losses(losses: Any, weights: Any, dtype: Any, mean: bool) -> tuple[Any, Any]:
    """The sum of all losses, or that over the sum of all weights; and the latter."""
    parts = max(1, min(256, -(-losses.size // PIECE)))
    part = empty((parts, 2), rows.DOUBLE)
    launch("cross_entropy", f"loss_sums<{ctype(losses.dtype)}>", parts, 512,
           (part, losses, weights, losses.size))
    loss, total = empty((), dtype), empty((), losses.dtype)
    launch("cross_entropy", f"loss_finish<{ctype(dtype)}, {ctype(losses.dtype)}>", 1, 32,
           (loss, total, part, parts, mean))
    return loss, total


def _per_row(x: Any, count: int, given: Losses) -> Any:
    """Where the losses of rows go: the result itself without a reduction."""
    if given.reduction == "none":
        return empty(given.target.shape, x.dtype)
    return empty((count,), rows.wide(x.dtype))


def _reduced(losses: Any, weights: Any, dtype: Any, given: Losses) -> tuple[Any, Any]:
    if given.reduction == "none":
        return losses, empty((), weights.dtype)  # nobody divides by it
    return reduce_losses(losses, weights, dtype, given.reduction == "mean")


def _empty_result(losses: Any, given: Losses, dtype: Any) -> tuple[Any, Any]:
    nothing = zeros(losses.shape, losses.dtype)
    if given.reduction == "none":
        return nothing, zeros((), rows.wide(dtype))
    return reduce_losses(nothing, nothing, dtype, given.reduction == "mean")


# --- plans ----------------------------------------------------------------------------------------


def _width(x: Any, given: Losses, n: int, inner: int) -> int:
    if inner > 1:
        return rows.vector(inner, x)
    return rows.vector(n, x) if given.weight is None else rows.vector(n, x, given.weight)


def _index(x: Any) -> str:
    return "int" if x.size < 1 << 30 else "ml_index"


def forward_plan(dtype: Any, target: Any, loss: Any, width: int, outer: int, n: int, inner: int,
                 smooth: bool) -> Plan:
    """For the rows of (outer, n, inner); `width` scores are loaded at once."""
    types = ", ".join(map(ctype, (dtype, target, loss, rows.wide(dtype))))
    flag = str(smooth).lower()
    if inner > 1:
        lanes = 256 if n <= FEW else min(rows.WARP, rows.power(-(-inner // width)))
        tiles = -(-inner // (lanes * width))
        return Plan(f"cross_entropy_columns<{types}, {width}, {lanes}, {flag}>", outer * tiles, 256,
                    (n, inner, tiles))
    if n <= rows.WARP * HELD:
        lanes, vectors = rows.lanes(n, width)
        return Plan(f"cross_entropy_rows<{types}, {width}, {vectors}, {lanes}, {flag}>",
                    -(-outer * lanes // 256), 256, (outer, n))
    return Plan(f"cross_entropy_long<{types}, {width}, {flag}>", outer,
                rows.threads(n, 4 * width, 512), (n,))


def backward_kernel(x: Any, target: Any, width: int, columns: bool, smooth: bool) -> str:
    types = ", ".join(map(ctype, (x.dtype, target.dtype, rows.wide(x.dtype))))
    return (f"cross_entropy_backward<{types}, {_index(x)}, {width}, {str(columns).lower()}, "
            f"{str(smooth).lower()}>")


def fused_plan(dtype: Any, target: Any, width: int, count: int, n: int, smooth: bool,
               shared_limit: int) -> tuple[Plan, int]:
    """For losses and gradients of `count` rows at once; and bytes of shared memory for a row."""
    types = ", ".join(map(ctype, (dtype, target, rows.wide(dtype))))
    kept = n * dtype.itemsize
    fits = kept + rows.STATIC <= shared_limit
    kernel = (f"cross_entropy_fused<{types}, {width}, {str(smooth).lower()}, "
              f"{str(fits).lower()}>")
    return Plan(kernel, count, rows.threads(n, 4 * width, 1024), (n,)), kept if fits else 0
