"""Workloads in a library of PyTorch's names: mlgpu, and PyTorch eager and compiled."""

from __future__ import annotations

import importlib
from typing import Any

from . import clock
from .workload import Array, Arrays, Case, Workload


class TorchKit:
    """mlgpu or PyTorch on one device, in one float dtype."""

    def __init__(self, peer: str, device: str, dtype: str, threads: int) -> None:
        self.lib: Any = importlib.import_module(peer.split("-")[0])
        self.lib.set_num_threads(threads)
        self.device = device
        self.dtype = getattr(self.lib, dtype)
        self.compiled = peer == "torch-compile"
        if device != "cpu" and self.lib.__name__ == "torch":
            # Its convolutions would round float32 to 10 bits, which the check finds.
            self.lib.backends.cudnn.allow_tf32 = False
        self.timer = clock.events(self.lib.cuda) if device.startswith("cuda") else clock.host

    def case(self, workload: Workload, arrays: Arrays) -> Case | None:
        """The workload set up; None where the library has no form of it."""
        if self.compiled:
            self.lib._dynamo.reset()  # a function of an earlier workload is not recompiled
        return workload.build(self, arrays)

    def tensor(self, array: Array, grad: bool = False) -> Any:
        """The array on the device; floats in the kit's dtype."""
        # A copy: the arrays belong to the check, and training steps write over their parameters.
        made = self.lib.from_numpy(array.copy()).to(self.device)
        if array.dtype.kind == "f":
            made = made.to(self.dtype)
        return made.requires_grad_() if grad else made

    def numpy(self, tensor: Any) -> Array:
        """A copy of the values."""
        found: Array = tensor.detach().cpu().numpy().copy()
        return found

    def compile(self, function: Any) -> Any:
        """The function, or torch.compile of it."""
        return self.lib.compile(function) if self.compiled else function

    def place(self, module: Any) -> Any:
        """The module in the kit's dtype on its device."""
        return module.to(self.device, self.dtype)


def kit(peer: str, device: str, dtype: str, threads: int) -> TorchKit:
    """The kit of a peer."""
    return TorchKit(peer, device, dtype, threads)
