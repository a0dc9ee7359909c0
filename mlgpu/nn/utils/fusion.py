"""Batch norms folded into the layer before, for inference."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.errors import GraphError, ShapeError
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.creation import ones_like, zeros_like
from mlgpu.tensor import Tensor

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval",
           "fuse_linear_bn_weights"]


@no_grad()
def fuse_conv_bn_weights(conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor,
                         bn_eps: float, bn_w: Tensor | None, bn_b: Tensor | None,
                         transpose: bool = False) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution that does what it and the batch norm behind it did.

    `transpose`: outputs are the weight's second dimension, as those of transposed convolutions.
    """
    bias = zeros_like(bn_rm) if conv_b is None else conv_b
    scale = (ones_like(bn_rm) if bn_w is None else bn_w) * (bn_rv + bn_eps).rsqrt()
    shape = [1] * conv_w.ndim
    shape[1 if transpose else 0] = -1
    shift = zeros_like(bn_rm) if bn_b is None else bn_b
    return (Parameter((conv_w * scale.reshape(shape)).to(conv_w.dtype),
                      requires_grad=conv_w.requires_grad),
            Parameter(((bias - bn_rm) * scale + shift).to(conv_w.dtype),
                      requires_grad=conv_w.requires_grad))


def fuse_linear_bn_weights(linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor,
                           bn_eps: float, bn_w: Tensor | None, bn_b: Tensor | None
                           ) -> tuple[Parameter, Parameter]:
    """The same of a linear layer."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of a convolution that computes the batch norm behind it as well.

    Both must be in evaluation mode and the norm have running statistics: GraphError or ShapeError
    otherwise.
    """
    return _fused("fuse_conv_bn_eval", conv, bn, transpose)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """The same of a linear layer."""
    return _fused("fuse_linear_bn_eval", linear, bn, False)


def _fused(owner: str, layer: Module, norm: Any, transpose: bool) -> Any:
    if layer.training or norm.training:
        raise GraphError(f"{owner}: both must be in evaluation mode; call .eval() first")
    if norm.running_mean is None or norm.running_var is None:
        raise ShapeError(f"{owner}: the batch norm has no running statistics to fold in")
    fused: Any = deepcopy(layer)
    if fused.weight.shape[1 if transpose else 0] != len(norm.running_mean):
        raise ShapeError(f"{owner}: the norm has {len(norm.running_mean)} features, the layer "
                         f"{fused.weight.shape[1 if transpose else 0]} outputs")
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
        norm.bias, transpose)
    return fused
