"""torch.utils.tensorboard: TensorBoard's own writer, which the extra brings."""

from __future__ import annotations

from typing import Any

from mlgpu.extras import require


def __getattr__(name: str) -> Any:
    if name != "SummaryWriter":
        raise AttributeError(name)
    return require("tensorboardX", "tensorboard", "torch.utils.tensorboard").SummaryWriter
