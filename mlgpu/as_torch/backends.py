"""torch.backends beside mlgpu.backends: switches of libraries that mlgpu does not use."""

from __future__ import annotations

from typing import Any


class _Library:
    """A library of kernels for PyTorch's CPU path: not there, and its switches do nothing."""

    enabled = False

    def is_available(self) -> bool:
        return False

    def flags(self, *args: Any, **kwargs: Any) -> Any:
        from contextlib import nullcontext

        return nullcontext()


mkldnn, mkl, openmp, opt_einsum, quantized = (_Library(), _Library(), _Library(), _Library(),
                                              _Library())
