"""Host code of mlgpu.cuda on NumPy arrays: its launches go to a simulated machine."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import launching
import numpy as np


class Array(np.ndarray):
    """A NumPy array that knows where it lies on the machine, as CuPy's arrays do."""

    buffer: Any = None

    def __array_finalize__(self, source: Any) -> None:
        self.buffer = getattr(source, "buffer", None)

    @property
    def data(self) -> Any:  # type: ignore[override]
        offset = self.__array_interface__["data"][0] - self.buffer.host
        return SimpleNamespace(ptr=self.buffer.ptr + offset)


class hosted:
    """Stands in for `launch` and for memory in modules of mlgpu.cuda while a test runs."""

    def __init__(self, monkeypatch: Any, *modules: ModuleType, arch: str = "sm_90") -> None:
        self.machine, self.arch, self.reports = launching.machine(arch), arch, []
        self.names: list[str] = []  # of the kernels that were launched
        runtime = SimpleNamespace(empty=self.empty, zeros=self.zeros, full=self.full,
                                  contiguous=self.contiguous, empty_like=self.empty_like,
                                  copy=self.copy)
        for module in modules:
            for name, stand_in in (("launch", self.launch), ("prepare", self.prepare),
                                   ("runtime", runtime), ("_ways", {}), ("_plans", {})):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, stand_in)

    def wrap(self, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.reports = []
            given = [self.array(a) if isinstance(a, np.ndarray) else a for a in arguments]
            return function(*given, **options)

        return call

    def array(self, x: np.ndarray[Any, Any]) -> Any:
        """`x` with its strides, in memory of the machine."""
        base = x
        while isinstance(base.base, np.ndarray):
            base = base.base
        base = base.view(Array)
        base.buffer = self._buffer(base)
        if not x.size:
            return base.reshape(-1)[:0].reshape(x.shape)
        made = np.lib.stride_tricks.as_strided(base.reshape(-1)[:1], x.shape, x.strides,
                                               subok=True)
        offset = x.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        if offset:
            flat = np.frombuffer(base, np.uint8)[offset:].view(Array)
            flat.buffer = base.buffer
            made = np.lib.stride_tricks.as_strided(
                flat[:x.dtype.itemsize].view(x.dtype), x.shape, x.strides, subok=True)
        return made

    def _buffer(self, base: Any) -> Any:
        flat = np.ascontiguousarray(base).reshape(-1)
        device = self.machine.array(flat.view(np.uint8) if flat.size else np.zeros(1, np.uint8))
        return SimpleNamespace(ptr=device.ptr, host=base.__array_interface__["data"][0],
                               device=device, array=base)

    def empty(self, shape: Any, dtype: Any) -> Any:
        made = np.empty(shape, dtype).view(Array)
        made.buffer = self._buffer(made)
        return made

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return self.full(shape, 0, dtype)

    def full(self, shape: Any, value: Any, dtype: Any) -> Any:
        return self.array(np.full(shape, value, dtype))

    def empty_like(self, x: Any, dtype: Any = None) -> Any:
        return self.empty(x.shape, x.dtype if dtype is None else dtype)

    def contiguous(self, x: Any) -> Any:
        return x if x.flags.c_contiguous else self.copy(x)

    def copy(self, x: Any) -> Any:
        return self.array(np.ascontiguousarray(x).view(np.ndarray).copy())

    def prepare(self, family: str, name: str, grid: Any, block: Any, rest: Any,
                shared: int = 0, strided: Any = ()) -> Any:
        def start(*arrays: Any) -> None:
            self.launch(family, name, grid, block, (*arrays, *rest), shared)

        start.start = start  # type: ignore[attr-defined]
        return start

    def launch(self, family: str, name: str, grid: Any, block: Any, arguments: Any,
               shared: int = 0) -> None:
        if 0 in (grid if isinstance(grid, tuple) else (grid,)):
            return
        kernel, declared = launching._kernel(family, name, self.arch)
        assert len(declared) == len(arguments), name
        given, arrays = [], []
        for parameter, argument in zip(declared, arguments, strict=True):
            argument = getattr(argument, "array", argument)
            if argument is None:
                given.append(0)
            elif parameter.pointer:
                assert parameter.dtype in (None, argument.dtype), (name, parameter)
                arrays.append(argument)
                given.append(argument.data.ptr)
            else:
                given.append(argument if parameter.dtype is None
                             else parameter.dtype.type(argument))
        self.names.append(name)
        self.reports.append(kernel.launch(grid, block, given, shared_mem=shared))
        for array in arrays:
            buffer = array.buffer
            whole = buffer.array.reshape(-1)
            if whole.size and buffer.device is not None:
                whole.view(np.uint8)[...] = buffer.device.numpy()
