"""How a loss per element becomes one number: the `reduction` argument of every loss."""

from __future__ import annotations

import warnings

from mlgpu.errors import ShapeError
from mlgpu.tensor import Tensor


def check_reduction(op: str, reduction: str) -> None:
    """Raise ShapeError (a ValueError) unless reduction is "none", "mean" or "sum"."""
    if reduction not in ("none", "mean", "sum"):
        raise ShapeError(f"{op}: reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that the old arguments size_average and reduce ask for, with a warning."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        chosen = "none"
    else:
        chosen = "sum" if size_average is False else "mean"
    warnings.warn("size_average and reduce args will be deprecated, please use "
                  f"reduction='{chosen}' instead.", stacklevel=3)
    return chosen


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The losses themselves, their mean or their sum."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()
