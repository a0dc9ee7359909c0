"""Layers of which each token takes a few."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import ShapeError
from mlgpu.nn.containers import ModuleList
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.ops.creation import zeros_like
from mlgpu.ops.embedding import one_hot
from mlgpu.tensor import Tensor

__all__ = ["MixtureOfExperts"]


class Mixture(NamedTuple):
    """The output, and the loss that keeps the experts' loads alike: 1 at best."""

    output: Tensor
    balance: Tensor


class MixtureOfExperts(Module):
    """Each token goes through the `top_k` of `num_experts` layers that a gate ranks highest.

    `expert()` makes a layer of vectors (m, dim); their outputs are weighted by the gate's softmax,
    over the chosen ones again if `normalize`.  forward((..., dim)) gives the output and the balance
    loss num_experts * sum of share of tokens * mean probability (Shazeer et al. 2017; Fedus et al.
    2021), to be added to the model's.  Experts without tokens are not computed.
    """

    def __init__(self, dim: int, num_experts: int, expert: Callable[[], Module], top_k: int = 2,
                 normalize: bool = True, device: DeviceLike | None = None,
                 dtype: DTypeLike | None = None) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ShapeError(f"MixtureOfExperts: top_k must be between 1 and {num_experts}, got "
                             f"{top_k}")
        self.dim = dim
        self.num_experts = num_experts
        self.top_k = top_k
        self.normalize = normalize
        self.gate = Linear(dim, num_experts, bias=False, device=device, dtype=dtype)
        self.experts = ModuleList([expert() for _ in range(num_experts)])

    def forward(self, input: Tensor) -> Mixture:
        if input.shape[-1] != self.dim:
            raise ShapeError(f"MixtureOfExperts: expected (..., {self.dim}), got "
                             f"{tuple(input.shape)}")
        tokens = input.reshape(-1, self.dim)
        shares = self.gate(tokens).softmax(-1)
        best = shares.topk(self.top_k, -1)
        weights = best.values
        if self.normalize:
            weights = weights / weights.sum(-1, keepdim=True)
        output = zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            row, rank = (best.indices == number).nonzero().unbind(1)
            if len(row):
                made = expert(tokens[row]) * weights[row, rank][:, None]
                output = output.index_add(0, row, made.to(output.dtype))
        load = one_hot(best.indices, self.num_experts).to(shares.dtype).sum(1).mean(0)
        balance = (load * shares.mean(0)).sum() * (self.num_experts / self.top_k)
        return Mixture(output.reshape(input.shape), balance)

    def extra_repr(self) -> str:
        return f"{self.dim}, num_experts={self.num_experts}, top_k={self.top_k}"
