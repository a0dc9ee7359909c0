"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from mlgpu.errors import ShapeError
from mlgpu.ops.join import cat
from mlgpu.tensor import Tensor

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of the parameters, one after the other; differentiable."""
    return cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Make the parameters views of `vec`, part by part.

    Raises ShapeError, before any is changed, unless `vec` has as many elements as they have.
    """
    targets = list(parameters)
    total = sum(parameter.numel() for parameter in targets)
    if vec.ndim != 1 or len(vec) != total:
        raise ShapeError(f"vector_to_parameters: the vector must be ({total},) to match the "
                         f"parameters, got {tuple(vec.shape)}")
    start = 0
    for parameter in targets:
        stop = start + parameter.numel()
        parameter.data = vec[start:stop].view(parameter.shape).data
        start = stop
