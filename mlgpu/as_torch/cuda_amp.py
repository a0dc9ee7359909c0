"""torch.cuda.amp: mlgpu.amp for the device "cuda", with the old order of arguments."""

from __future__ import annotations

from functools import partial
from typing import Any

from mlgpu import amp, cuda, float16

custom_fwd = partial(amp.custom_fwd, device_type="cuda")
custom_bwd = partial(amp.custom_bwd, device_type="cuda")


class autocast(amp.autocast):
    """`mlgpu.amp.autocast("cuda", ...)`; without effect where there is no CUDA device."""

    def __init__(self, enabled: bool = True, dtype: Any = float16, cache_enabled: bool = True
                 ) -> None:
        super().__init__("cuda", dtype, enabled and cuda.is_available(), cache_enabled)


class GradScaler(amp.GradScaler):
    """`mlgpu.amp.GradScaler("cuda", ...)`; without effect where there is no CUDA device."""

    def __init__(self, init_scale: float = 2.0**16, growth_factor: float = 2.0,
                 backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True
                 ) -> None:
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval,
                         enabled and cuda.is_available())
