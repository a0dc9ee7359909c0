"""Names of orders in memory, of which mlgpu has one: PyTorch's programs pass them on."""

from __future__ import annotations

from mlgpu import dtypes


class memory_format:
    """An order of elements in memory.  mlgpu's tensors keep PyTorch's usual one whatever is asked.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"{dtypes.library}.{self.name}"


class layout(memory_format):
    """How elements are stored; dense, with strides, is what mlgpu has."""


contiguous_format = memory_format("contiguous_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")
preserve_format = memory_format("preserve_format")
strided = layout("strided")
