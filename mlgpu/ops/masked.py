"""Reductions, scans and normalisations of the elements that a mask chooses, as in torch.masked.

`mask` holds True for what counts, and broadcasts to the input; None chooses everything.  What it
leaves out does not matter, NaN included, and gets a gradient of 0.  Where nothing is chosen the
result is the operation's identity: 0 for sums, -inf (or the dtype's least) for amax, NaN for means
and softmax.  Results have the input's dtype unless `dtype` says otherwise; small integers are
summed and multiplied as int64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops import extrema, reduce, scan
from mlgpu.ops import softmax as softmaxes
from mlgpu.ops.choice import clamp_min, maximum, where
from mlgpu.ops.exponential import logaddexp as _logaddexp
from mlgpu.ops.linalg_norm import vector_norm
from mlgpu.ops.view import broadcast_to, dim_index
from mlgpu.tensor import Tensor

__all__ = ["amax", "amin", "argmax", "argmin", "cumprod", "cumsum", "log_softmax", "logaddexp",
           "logsumexp", "mean", "median", "norm", "normalize", "prod", "softmax", "softmin", "std",
           "sum", "var"]

Dims = int | Sequence[int] | None


def _chosen(op: str, input: Tensor, mask: Tensor | None) -> Tensor | None:
    """The mask as booleans of the input's shape."""
    if mask is None:
        return None
    if mask.ndim > input.ndim:
        raise ShapeError(f"masked.{op}: a mask of shape {tuple(mask.shape)} has more dimensions "
                         f"than the input, which is {tuple(input.shape)}")
    return broadcast_to(mask.bool(), input.shape)


def _filled(op: str, input: Tensor, mask: Tensor | None, fill: float) -> Tensor:
    """The input with `fill`, the operation's identity, where the mask leaves it out."""
    chosen = _chosen(op, input, mask)
    return input if chosen is None else where(chosen, input, fill)


def _dims(op: str, input: Tensor, dim: Dims) -> tuple[int, ...]:
    """The dimensions, counted from the front, in order."""
    if dim is None or (not isinstance(dim, int) and not dim):
        return tuple(range(input.ndim))
    given = [dim] if isinstance(dim, int) else dim
    found = [dim_index(f"masked.{op}", d, input.ndim) for d in given]
    if len(set(found)) < len(found):
        raise ShapeError(f"masked.{op}: a dimension appears twice in {tuple(given)}")
    return tuple(sorted(found))


def _least(op: str, input: Tensor) -> float:
    """What no element is less than."""
    kind = input.dtype
    if kind.is_floating_point:
        return -math.inf
    if kind.kind != "int":
        raise DTypeError(f"masked.{op}: expected real numbers, got {kind.name}")
    return int(np.iinfo(kind.numpy).min)


def _greatest(op: str, input: Tensor) -> float:
    """What no element is greater than."""
    least = _least(op, input)
    return int(np.iinfo(input.dtype.numpy).max) if isinstance(least, int) else -least


def _summed(input: Tensor, dtype: dtypes.dtype | None) -> dtypes.dtype:
    """The dtype of sums and products."""
    if dtype is not None:
        return dtype
    return dtypes.int64 if input.dtype.kind in ("bool", "int") else input.dtype


def sum(input: Tensor, dim: Dims = None, *, keepdim: bool = False,
        dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """The sum over `dim` of what the mask chooses; over everything if dim is None."""
    return reduce.sum(_filled("sum", input, mask, 0), _dims("sum", input, dim), keepdim,
                      dtype=_summed(input, dtype))


def prod(input: Tensor, dim: Dims = None, *, keepdim: bool = False,
         dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """The product over `dim` of what the mask chooses."""
    result = _filled("prod", input, mask, 1).to(_summed(input, dtype))
    for d in reversed(_dims("prod", input, dim)):
        result = reduce.prod(result, d, keepdim)
    return result


def cumsum(input: Tensor, dim: int, *, dtype: dtypes.dtype | None = None,
           mask: Tensor | None = None) -> Tensor:
    """The sums along `dim` of what the mask chooses up to each place."""
    return scan.cumsum(_filled("cumsum", input, mask, 0), dim, dtype=dtype or input.dtype)


def cumprod(input: Tensor, dim: int, *, dtype: dtypes.dtype | None = None,
            mask: Tensor | None = None) -> Tensor:
    """The products along `dim` of what the mask chooses up to each place."""
    return scan.cumprod(_filled("cumprod", input, mask, 1), dim, dtype=dtype or input.dtype)


def amax(input: Tensor, dim: Dims = None, *, keepdim: bool = False,
         dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """The greatest over `dim` of what the mask chooses."""
    filled = _filled("amax", input, mask, _least("amax", input))
    return extrema.amax(filled, _dims("amax", input, dim), keepdim).to(dtype or input.dtype)


def amin(input: Tensor, dim: Dims = None, *, keepdim: bool = False,
         dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """The least over `dim` of what the mask chooses."""
    filled = _filled("amin", input, mask, _greatest("amin", input))
    return extrema.amin(filled, _dims("amin", input, dim), keepdim).to(dtype or input.dtype)


def argmax(input: Tensor, dim: int | None = None, *, keepdim: bool = False,
           dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """Where the greatest of what the mask chooses is; in the input's dtype, as PyTorch has it."""
    filled = _filled("argmax", input, mask, _least("argmax", input))
    return extrema.argmax(filled, dim, keepdim).to(dtype or input.dtype)


def argmin(input: Tensor, dim: int | None = None, *, keepdim: bool = False,
           dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """Where the least of what the mask chooses is; in the input's dtype, as PyTorch has it."""
    filled = _filled("argmin", input, mask, _greatest("argmin", input))
    return extrema.argmin(filled, dim, keepdim).to(dtype or input.dtype)


def logsumexp(input: Tensor, dim: Dims = None, *, keepdim: bool = False,
              dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """log(sum(exp(input))) over `dim` of what the mask chooses."""
    filled = _filled("logsumexp", input, mask, _least("logsumexp", input))
    return reduce.logsumexp(filled, _dims("logsumexp", input, dim), keepdim).to(
        dtype or input.dtype)


def logaddexp(input: Tensor, other: Tensor, *, dtype: dtypes.dtype | None = None,
              input_mask: Tensor | None = None, other_mask: Tensor | None = None) -> Tensor:
    """log(exp(input) + exp(other)), of each what its mask chooses."""
    least = -math.inf
    sides = [_filled("logaddexp", x, mask, least)
             for x, mask in ((input, input_mask), (other, other_mask))]
    return _logaddexp(*sides).to(dtype or input.dtype)


def mean(input: Tensor, dim: Dims = None, *, keepdim: bool = False,
         dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """The mean over `dim` of what the mask chooses; NaN of nothing.

    DTypeError for integers without a floating `dtype`.
    """
    kind = dtype or input.dtype
    if not (kind.is_floating_point or kind.is_complex):
        raise DTypeError(f"masked.mean: expected a floating or complex dtype, got {kind.name}; "
                         "pass dtype")
    total = sum(input, dim, keepdim=keepdim, dtype=kind, mask=mask)
    return total / _count("mean", input, dim, keepdim, mask).to(kind.to_real())


def _count(op: str, input: Tensor, dim: Dims, keepdim: bool, mask: Tensor | None) -> Tensor:
    """How many the mask chooses."""
    chosen = _chosen(op, input, mask)
    if chosen is None:
        chosen = input.new_ones(input.shape, dtype=dtypes.bool_)
    return reduce.sum(chosen, _dims(op, input, dim), keepdim)


def median(input: Tensor, dim: int = -1, *, keepdim: bool = False,
           dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """The lower median along `dim` of what the mask chooses; NaN of nothing.

    Of integers without a `dtype` in theirs, where a median of nothing raises DTypeError.
    """
    floating = input.dtype.is_floating_point
    source = input if floating else input.to(dtypes.float32)
    found = extrema.nanmedian(_filled("median", source, mask, math.nan), dim, keepdim).values
    if floating:
        return found
    if found.isnan().any().item():
        raise DTypeError("masked.median: of integers, the mask must choose something everywhere; "
                         "make the input floating to get NaN")
    return found.to(dtype or input.dtype)


def norm(input: Tensor, ord: float = 2.0, dim: Dims = None, *, keepdim: bool = False,
         dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """The vector norm over `dim` of what the mask chooses; inf of nothing for ord=-inf, else 0."""
    filled = _filled("norm", input, mask, math.inf if ord == -math.inf else 0)
    return vector_norm(filled, ord, _dims("norm", input, dim), keepdim, dtype=dtype)


def normalize(input: Tensor, ord: float, dim: int, *, eps: float = 1e-12,
              dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """What the mask chooses over its norm along `dim`, or over eps if that is less; 0 elsewhere."""
    size = norm(input, ord, dim, keepdim=True, dtype=dtype, mask=mask)
    return _filled("normalize", input, mask, 0) / clamp_min(size, eps)


def softmax(input: Tensor, dim: int, *, dtype: dtypes.dtype | None = None,
            mask: Tensor | None = None) -> Tensor:
    """softmax along `dim` over what the mask chooses, 0 elsewhere; NaN where it chooses nothing."""
    filled = _filled("softmax", input, mask, _least("softmax", input))
    return softmaxes.softmax(filled, dim, dtype=dtype or input.dtype)


def log_softmax(input: Tensor, dim: int, *, dtype: dtypes.dtype | None = None,
                mask: Tensor | None = None) -> Tensor:
    """The logarithm of softmax along `dim` over what the mask chooses, -inf elsewhere."""
    filled = _filled("log_softmax", input, mask, _least("log_softmax", input))
    return softmaxes.log_softmax(filled, dim, dtype=dtype or input.dtype)


def softmin(input: Tensor, dim: int, *, dtype: dtypes.dtype | None = None,
            mask: Tensor | None = None) -> Tensor:
    """softmax of -input along `dim` over what the mask chooses, 0 elsewhere."""
    filled = _filled("softmin", input, mask, _greatest("softmin", input))
    return softmaxes.softmax(-filled, dim, dtype=dtype or input.dtype)


def var(input: Tensor, dim: Dims = None, unbiased: bool | None = None, *,
        correction: float | None = None, keepdim: bool = False,
        dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """The variance over `dim` of what the mask chooses: squares over their number - correction.

    `unbiased` is a correction of 1 (True, and the default) or 0; integers give float32.
    """
    if unbiased is not None and correction is not None:
        raise ShapeError("masked.var: unbiased and correction say one thing; pass one of them")
    less = float(1 if unbiased is None else unbiased) if correction is None else float(correction)
    kind = dtype or (input.dtype if input.dtype.is_floating_point or input.dtype.is_complex
                     else dtypes.float32)
    wide = kind if kind.is_floating_point or kind.is_complex else dtypes.float32
    source = _filled("var", input, mask, 0).to(wide)
    middle = mean(source, dim, keepdim=True, mask=mask)
    apart = _filled("var", source - middle, mask, 0)
    total = reduce.sum(apart * apart.conj(), _dims("var", input, dim), keepdim)
    count = _count("var", input, dim, keepdim, mask).to(wide.to_real())
    return (total / maximum(count - less, count.new_zeros(()))).to(kind)


def std(input: Tensor, dim: Dims = None, unbiased: bool | None = None, *,
        correction: float | None = None, keepdim: bool = False,
        dtype: dtypes.dtype | None = None, mask: Tensor | None = None) -> Tensor:
    """The square root of `var`."""
    return var(input, dim, unbiased, correction=correction, keepdim=keepdim, dtype=dtype,
               mask=mask).sqrt()
