"""Samples of a categorical distribution that have a gradient."""

from __future__ import annotations

import warnings

from mlgpu.ops.creation import empty_like, zeros_like
from mlgpu.ops.random_inplace import exponential_
from mlgpu.ops.softmax import softmax
from mlgpu.tensor import Tensor

__all__ = ["gumbel_softmax"]


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10,
                   dim: int = -1) -> Tensor:
    """softmax((logits + g) / tau) over `dim`, g from Gumbel(0, 1) (Jang et al., 2016).

    With `hard` the result is one-hot at its largest element and has the gradient of the soft one.
    `eps` has no effect, as in PyTorch, and warns.
    """
    if eps != 1e-10:
        warnings.warn("gumbel_softmax: eps is deprecated and has no effect", stacklevel=2)
    gumbels = -exponential_(empty_like(logits)).log()
    soft = softmax((logits + gumbels) / tau, dim)
    if not hard:
        return soft
    index = soft.detach().argmax(dim, keepdim=True)
    one_hot = zeros_like(logits).scatter_(dim, index, 1.0)
    return one_hot - soft.detach() + soft
