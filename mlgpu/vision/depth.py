"""Stochastic depth: whole samples of a residual branch left out in training (Huang et al. 2016)."""

from __future__ import annotations

from mlgpu.errors import ShapeError
from mlgpu.nn.module import Module
from mlgpu.tensor import Tensor

__all__ = ["StochasticDepth", "drop_path", "stochastic_depth"]


def stochastic_depth(input: Tensor, p: float, mode: str, training: bool = True) -> Tensor:
    """The input with whole samples ("row"), or all of it ("batch"), set to 0 with probability p.

    What is left is scaled by 1 / (1 - p).  Raises ShapeError for another mode or p.
    """
    if mode not in ("row", "batch") or not 0 <= p <= 1:
        raise ShapeError(f"stochastic_depth: expected mode 'row' or 'batch' and 0 <= p <= 1, got "
                         f"{mode!r} and {p}")
    if not training or p == 0:
        return input
    rows = input.shape[0] if mode == "row" else 1
    kept = input.new_empty(rows, *[1] * (input.ndim - 1)).bernoulli_(1 - p)
    return input * (kept / (1 - p) if p < 1 else kept)


def drop_path(input: Tensor, p: float, training: bool = True) -> Tensor:
    """`stochastic_depth` of samples, under the name that vision transformers have for it."""
    return stochastic_depth(input, p, "row", training)


class StochasticDepth(Module):
    """`stochastic_depth` in training."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p, self.mode = p, mode

    def forward(self, input: Tensor) -> Tensor:
        """The input, or parts of it."""
        return stochastic_depth(input, self.p, self.mode, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, mode={self.mode}"
