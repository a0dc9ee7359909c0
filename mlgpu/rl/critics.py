"""What critics of continuous actions have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlgpu.errors import ShapeError
from mlgpu.nn.module import Module
from mlgpu.ops.join import cat
from mlgpu.tensor import Tensor


def value(critic: Module, observation: Tensor, action: Tensor) -> Tensor:
    """What a critic gives for observation and action side by side: (n,)."""
    found: Tensor = critic(cat([observation.flatten(1), action.flatten(1)], -1))
    if found.shape != (len(observation), 1):
        raise ShapeError(f"mlgpu.rl: a critic must give ({len(observation)}, 1), got "
                         f"{tuple(found.shape)}")
    return found.squeeze(-1)


@contextmanager
def frozen(critic: Module) -> Iterator[None]:
    """Within the block gradients go through the critic and not into it."""
    learns = [p for p in critic.parameters() if p.requires_grad]
    for parameter in learns:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learns:
            parameter.requires_grad_(True)
