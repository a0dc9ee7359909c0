"""torchvision.ops: layers that models of images are made of, beside detection."""

from __future__ import annotations

from typing import Any

import mlgpu
from mlgpu import Tensor
from mlgpu.errors import ShapeError
from mlgpu.nn import Module


class FrozenBatchNorm2d(Module):
    """Batch normalisation by fixed statistics, weight and bias, all of them buffers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0),
                            ("running_var", 1.0)):
            self.register_buffer(name, mlgpu.full((num_features,), value))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)  # of a trained BatchNorm2d
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """The input (N, C, H, W), shifted and scaled per channel."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def stochastic_depth(input: Tensor, p: float, mode: str, training: bool = True) -> Tensor:
    """The input with whole samples ("row"), or all of it ("batch"), set to 0 with probability p.

    What is left is scaled by 1 / (1 - p).  Huang et al., 2016.
    """
    if mode not in ("row", "batch") or not 0 <= p <= 1:
        raise ShapeError(f"stochastic_depth: expected mode 'row' or 'batch' and 0 <= p <= 1, got "
                         f"{mode!r} and {p}")
    if not training or p == 0:
        return input
    rows = input.shape[0] if mode == "row" else 1
    kept = input.new_empty(rows, *[1] * (input.ndim - 1)).bernoulli_(1 - p)
    return input * (kept / (1 - p) if p < 1 else kept)


class StochasticDepth(Module):
    """`stochastic_depth` in training."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p, self.mode = p, mode

    def forward(self, input: Tensor) -> Tensor:
        """The input, or parts of it."""
        return stochastic_depth(input, self.p, self.mode, self.training)
