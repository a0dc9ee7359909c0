"""torch.__config__: how PyTorch was built; here, what `mlgpu info` prints."""

from __future__ import annotations


def show() -> str:
    """Versions, BLAS, devices and active features."""
    from mlgpu import info

    return info.text(info.collect())


def parallel_info() -> str:
    """As `show`."""
    return show()
