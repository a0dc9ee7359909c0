"""torch.distributed.optim: an optimizer whose state is spread over processes, of which is one."""

from __future__ import annotations

from typing import Any

from mlgpu.errors import DeviceError
from mlgpu.optim import Optimizer


class ZeroRedundancyOptimizer(Optimizer):
    """DeviceError: with one process the optimizer itself is the same."""

    def __init__(self, params: Any, optimizer_class: type[Optimizer], **options: Any) -> None:
        raise DeviceError("ZeroRedundancyOptimizer: mlgpu runs one process; use "
                          f"{optimizer_class.__name__} itself")
