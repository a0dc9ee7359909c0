"""Normalisation per channel, over the batch or over each sample, with running statistics."""

from __future__ import annotations

import warnings
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike, int64
from mlgpu.errors import DeviceError, ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn.module import Module
from mlgpu.nn.normalization import _AffineNorm
from mlgpu.ops.creation import empty, tensor
from mlgpu.tensor import Tensor

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d",
           "InstanceNorm3d", "SyncBatchNorm"]


class _RunningNorm(_AffineNorm):
    """A norm per channel that keeps running estimates of mean and variance."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    _dims: tuple[int, ...]

    def __init__(self, num_features: int, eps: float, momentum: float | None, affine: bool,
                 track_running_stats: bool, device: Any, dtype: Any, bias: bool) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, empty(num_features, device=device, dtype=dtype)
                                 if track_running_stats else None)
        self.register_buffer("num_batches_tracked", tensor(0, dtype=int64, device=device)
                             if track_running_stats else None)
        self._make_affine((num_features,), affine, affine and bias, device, dtype)

    def reset_running_stats(self) -> None:
        """Set the running mean to 0, the variance to 1 and the count of batches to 0."""
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Set the weight to 1, the bias to 0, and forget the running statistics."""
        self.reset_running_stats()
        super().reset_parameters()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self._dims:
            expected = " or ".join(map(str, self._dims))
            raise ShapeError(f"{type(self).__name__}: expected {expected} dimensions, got "
                             f"{tuple(input.shape)}")

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
                f"affine={self.affine}, bias={self.bias is not None}, "
                f"track_running_stats={self.track_running_stats}")


class _BatchNorm(_RunningNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias per channel (dimension 1).

    Mean and variance are the batch's in training mode (and without running statistics), else the
    running ones, which move towards the batch's by `momentum` (None: their plain average).
    weight, bias: (num_features,), or absent.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, track_running_stats: bool = True,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None, *,
                 bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked.add_(1)
            if self.momentum is None:
                factor = 1.0 / float(self.num_batches_tracked)
        mean, var = self.running_mean, self.running_var
        if self.training and not self.track_running_stats:
            mean = var = None
        batch = self.training or (mean is None and var is None)
        return F.batch_norm(input, mean, var, self.weight, self.bias, batch, factor, self.eps)


class BatchNorm1d(_BatchNorm):
    __doc__ = "Of (n, c) or (n, c, length): " + (_BatchNorm.__doc__ or "")
    _dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = "Of (n, c, h, w): " + (_BatchNorm.__doc__ or "")
    _dims = (4,)


class BatchNorm3d(_BatchNorm):
    __doc__ = "Of (n, c, d, h, w): " + (_BatchNorm.__doc__ or "")
    _dims = (5,)


class SyncBatchNorm(_BatchNorm):
    """Of (n, c, ...), the batch of all processes: mlgpu runs one, which has the whole of it.

    So it computes what BatchNorm1d to 3d do.  process_group: None, or a group of one process;
    DeviceError for more.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, track_running_stats: bool = True, process_group: Any = None,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None, *,
                 bias: bool = True) -> None:
        if process_group is not None and process_group.size() != 1:
            raise DeviceError("SyncBatchNorm: mlgpu runs one process, and the process_group has "
                              f"{process_group.size()}; leave it out")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ShapeError("SyncBatchNorm: expected at least 2 dimensions, got "
                             f"{tuple(input.shape)}")

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """The module with a SyncBatchNorm in place of each BatchNorm1d to 3d in it.

        Parameters and running statistics are the same tensors.  A batch norm itself is not changed:
        its replacement is returned.
        """
        made = module
        if isinstance(module, _BatchNorm):
            made = cls(module.num_features, module.eps, module.momentum, module.affine,
                       module.track_running_stats, process_group)
            for name, parameter in module._parameters.items():
                made.register_parameter(name, parameter)
            for name, buffer in module._buffers.items():
                made.register_buffer(name, buffer)
            made.training = module.training
        for name, child in list(module.named_children()):
            made.register_module(name, cls.convert_sync_batchnorm(child, process_group))
        return made


class _InstanceNorm(_RunningNorm):
    """(x - mean) / sqrt(var + eps) * weight + bias per channel and sample.

    A sample may come without its batch dimension.  Running statistics, if tracked, are used in
    evaluation.  weight, bias: (num_features,), absent by default.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1,
                 affine: bool = False, track_running_stats: bool = False,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None, *,
                 bias: bool = True) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        single = input.ndim == self._dims[0]
        channels = input.shape[0 if single else 1]
        if channels != self.num_features:
            text = (f"{type(self).__name__}: expected {self.num_features} channels, got "
                    f"{tuple(input.shape)}")
            if self.affine:
                raise ShapeError(text)
            warnings.warn(f"{text}; num_features is not used without affine", stacklevel=2)
        x = input.unsqueeze(0) if single else input
        use_input_stats = self.training or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        y = F.instance_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                            use_input_stats, momentum, self.eps)
        return y.squeeze(0) if single else y


class InstanceNorm1d(_InstanceNorm):
    __doc__ = "Of (n, c, length) or (c, length): " + (_InstanceNorm.__doc__ or "")
    _dims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    __doc__ = "Of (n, c, h, w) or (c, h, w): " + (_InstanceNorm.__doc__ or "")
    _dims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    __doc__ = "Of (n, c, d, h, w) or (c, d, h, w): " + (_InstanceNorm.__doc__ or "")
    _dims = (4, 5)
