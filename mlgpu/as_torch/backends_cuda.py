"""torch.backends.cuda beside mlgpu.backends.cuda: TF32, and which attention is used."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import mlgpu


class _Matmul:
    """`torch.backends.cuda.matmul`: its TF32 switch is mlgpu.set_float32_matmul_precision."""

    allow_fp16_reduced_precision_reduction = False
    allow_bf16_reduced_precision_reduction = False

    @property
    def allow_tf32(self) -> bool:
        return mlgpu.get_float32_matmul_precision() != "highest"

    @allow_tf32.setter
    def allow_tf32(self, allowed: bool) -> None:
        mlgpu.set_float32_matmul_precision("high" if allowed else "highest")


matmul = _Matmul()


def is_built() -> bool:
    """Whether CUDA can be used."""
    return mlgpu.cuda.is_available()


def sdp_kernel(*args: Any, **kwargs: Any) -> Any:
    """A block in which nothing is different: there is one attention, chosen by shape and dtype."""
    return nullcontext()


def _switch(enabled: bool) -> None:
    """Nothing: there is one attention."""


def _asked() -> bool:
    """True: attention does not materialise its scores where it need not."""
    return True


enable_flash_sdp = enable_mem_efficient_sdp = enable_math_sdp = enable_cudnn_sdp = _switch
flash_sdp_enabled = mem_efficient_sdp_enabled = math_sdp_enabled = cudnn_sdp_enabled = _asked
