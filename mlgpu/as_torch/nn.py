"""torch.nn beside mlgpu.nn: wrappers of models for several devices, on the one that there is."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from mlgpu import cuda
from mlgpu.as_torch import distributed
from mlgpu.errors import DeviceError
from mlgpu.nn import Module
from mlgpu.nn.batchnorm import _BatchNorm as _BatchNorm
from mlgpu.nn.batchnorm import _InstanceNorm as _InstanceNorm
from mlgpu.nn.batchnorm import _RunningNorm as _NormBase  # noqa: F401
from mlgpu.nn.conv import _Conv as _ConvNd  # noqa: F401
from mlgpu.nn.dropout import _Dropout as _DropoutNd  # noqa: F401
from mlgpu.nn.loss import _Loss as _Loss
from mlgpu.nn.loss import _WeightedLoss as _WeightedLoss


class DistributedDataParallel(Module):
    """A model of a group of one process: the module itself, as `.module`.

    PyTorch's options say how gradients travel, which here they do not.
    """

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None,
                 **options: Any) -> None:
        super().__init__()
        distributed.get_world_size()  # ValueError where no group was begun
        self.module = module
        self.require_backward_grad_sync = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        return self.module(*args, **kwargs)

    def no_sync(self) -> Any:
        """A block in which nothing is different."""
        return nullcontext()


class DataParallel(Module):
    """A model run on one device; DeviceError for more, which PyTorch would spread a batch over."""

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None,
                 dim: int = 0) -> None:
        super().__init__()
        count = cuda.device_count() if device_ids is None else len(device_ids)
        if count > 1:
            raise DeviceError(f"DataParallel: mlgpu runs a model on one device, and {count} are "
                              "given; pass device_ids=[0], or use the module itself")
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        return self.module(*args, **kwargs)
