"""FakeQuantize: a module that rounds what passes to the integers that its observer found to fit."""

from __future__ import annotations

from typing import Any

from mlgpu.errors import MlgpuError
from mlgpu.nn.module import Module
from mlgpu.ops.quantize import fake_quantize_per_channel_affine, fake_quantize_per_tensor_affine
from mlgpu.quantization.observer import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
)
from mlgpu.tensor import Tensor


class FakeQuantize(Module):
    """(q - zero_point) scale, q an integer between quant_min and quant_max, as the observer says.

    As torch.ao.quantization.FakeQuantize, but that an evaluation observes nothing: only in training
    mode does the range follow what passes.  The gradient passes the rounding straight, and is 0
    where values were cut.  MlgpuError in an evaluation before anything was observed.
    """

    activation_post_process: MinMaxObserver

    def __init__(self, observer: type[MinMaxObserver] = MovingAverageMinMaxObserver,
                 quant_min: int | None = None, quant_max: int | None = None,
                 **observer_kwargs: Any) -> None:
        super().__init__()
        self.activation_post_process = observer(quant_min=quant_min, quant_max=quant_max,
                                                **observer_kwargs)
        self.observer_enabled = self.fake_quant_enabled = True
        self._observed = False

    def enable_observer(self, enabled: bool = True) -> None:
        """Whether the range follows what passes in training mode."""
        self.observer_enabled = enabled

    def disable_observer(self) -> None:
        """Let the range stay as it is."""
        self.enable_observer(False)

    def enable_fake_quant(self, enabled: bool = True) -> None:
        """Whether what passes is rounded."""
        self.fake_quant_enabled = enabled

    def disable_fake_quant(self) -> None:
        """Let everything pass as it is."""
        self.enable_fake_quant(False)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, as the observer's."""
        return self.activation_post_process.calculate_qparams()

    def has_observed(self) -> bool:
        """Whether there is a range, observed or loaded."""
        # Looked at until there is one, as it waits for the device.
        self._observed = self._observed or self.activation_post_process.has_seen()
        return self._observed

    def forward(self, X: Tensor) -> Tensor:
        """X, rounded; of its shape and dtype."""
        observer = self.activation_post_process
        if self.training and self.observer_enabled:
            observer(X)
            self._observed = self._observed or X.numel() > 0
        if not self.fake_quant_enabled or not X.numel():
            return X
        if not self.has_observed():
            raise MlgpuError("FakeQuantize: nothing has been observed; let some batches pass in "
                             "training mode, or load a state")
        scale, zero = observer.qparams()
        ends = observer.quant_min, observer.quant_max
        if isinstance(observer, PerChannelMinMaxObserver):
            return fake_quantize_per_channel_affine(X, scale, zero, observer.ch_axis, *ends)
        return fake_quantize_per_tensor_affine(X, scale, zero, *ends)
