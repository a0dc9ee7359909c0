"""The simulated GPU as its users see it: machine, modules, kernels, buffers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlgpu.sim import arch as archs
from mlgpu.sim import nvrtc
from mlgpu.sim.code import Code
from mlgpu.sim.errors import Allocation, Finding, LaunchError, PtxError, SimError
from mlgpu.sim.inline import flatten, function_addresses
from mlgpu.sim.launch import Dim, Launch
from mlgpu.sim.memory import INIT, AddressSpace, Region
from mlgpu.sim.ptx import syntax
from mlgpu.sim.ptx.parser import parse
from mlgpu.sim.report import Report

Array = np.ndarray[Any, Any]
CHECKS = ("memcheck", "racecheck", "initcheck", "synccheck")
HERE = str(Path(__file__).parent)


class Machine:
    """A simulated GPU: its memory, and how launches on it are checked.

    Args:
        arch: the target that sources are compiled for and whose limits hold, such as "sm_90".
        findings: "raise" raises the first `Finding` of a launch; "collect" gathers them in the
            report, a fault leaving its access out.
        checks: the sanitizers that are on; all by default.
        counters: False leaves the memory counters out, for speed.
        watchdog: how many segments a batch of blocks may run before a launch counts as endless.
    """

    def __init__(self, arch: str = "sm_90", findings: Literal["raise", "collect"] = "raise",
                 checks: Sequence[str] = CHECKS, counters: bool = True,
                 watchdog: int = 2_000_000) -> None:
        if findings not in ("raise", "collect"):
            raise SimError(f"Machine: findings={findings!r}; it is 'raise' or 'collect'")
        unknown = set(checks) - set(CHECKS)
        if isinstance(checks, str) or unknown:
            raise SimError(f"Machine: checks={checks!r}; a sequence of {', '.join(CHECKS)}")
        # Once freed, this much makes glibc keep freed arrays for reuse, where by default it gives
        # those of 256 KiB back to the system and has every page of the next one faulted in.
        np.empty(31 << 20, np.uint8)
        self.target = arch
        self.arch = archs.find(arch)
        self.findings = findings
        self.checks = frozenset(checks)
        self.counters = counters
        self.watchdog = watchdog
        self.space = AddressSpace()
        self._workspace: Region | None = None

    def module(self, source: str, options: Sequence[str] = (), names: Sequence[str] = (),
               filename: str = "kernel.cu") -> Module:
        """A CUDA source (compiled by NVRTC) or PTX text, ready to launch from.

        Raises CompileError with NVRTC's log, PtxError where PTX is malformed.
        """
        text, lowered = source, {}
        if not _is_ptx(source):
            compiled = nvrtc.compile(source, self.target, options, names, filename)
            text, lowered = compiled.ptx, dict(compiled.lowered)
        elif options or names:
            raise SimError("module: options and names are for CUDA sources; this is PTX")
        return Module(self, parse(text), text, lowered, None if _is_ptx(source) else source,
                      filename)

    def array(self, values: Any) -> Buffer:
        """Device memory with a copy of a NumPy array."""
        host = np.ascontiguousarray(values)
        buffer = self.empty(host.shape, host.dtype)
        buffer.set(host)
        return buffer

    def zeros(self, shape: int | Sequence[int], dtype: Any = np.float32) -> Buffer:
        """Device memory set to zero."""
        buffer = self.empty(shape, dtype)
        buffer.region.marks[:buffer.nbytes] = INIT
        return buffer

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> Buffer:
        """Device memory that nobody has written: reading it is a finding of initcheck."""
        sizes = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        kind = np.dtype(dtype)
        count = int(np.prod(sizes, dtype=np.int64)) if sizes else 1
        region = self.space.allocate(count * kind.itemsize, "", caller())
        return Buffer(self, region, sizes, kind)

    def leaks(self) -> list[Finding]:
        """A memcheck finding for each buffer that was not freed."""
        return [Finding("memcheck", "leak", f"{r.size:,} bytes were never freed",
                        allocation=Allocation(r.start, r.size, r.name, r.made_at))
                for r in self.space.regions if not r.name]

    def grid_workspace(self) -> int:
        """The address of what cooperative groups need to synchronise a grid."""
        if self._workspace is None:
            self._workspace = self.space.allocate(1024, "grid workspace", "the machine")
        self._workspace.data[:] = 0
        self._workspace.marks[:] = INIT
        return self._workspace.start


class Buffer:
    """An array in the simulated GPU's memory."""

    def __init__(self, machine: Machine, region: Region, shape: Sequence[int],
                 dtype: np.dtype[Any]) -> None:
        self.machine, self.region = machine, region
        self.shape, self.dtype = tuple(int(n) for n in shape), dtype

    @property
    def ptr(self) -> int:
        """The device address."""
        return self.region.start

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self.region.size

    def numpy(self) -> Array:
        """A copy of the contents."""
        self._alive("numpy")
        return self.region.data[:self.nbytes].view(self.dtype).reshape(self.shape).copy()

    def set(self, values: Any) -> None:
        """Replace the contents by an array of the same size in bytes."""
        self._alive("set")
        host = np.ascontiguousarray(values)
        if host.nbytes != self.nbytes:
            raise SimError(f"set: {host.nbytes:,} bytes for a buffer of {self.nbytes:,}")
        self.region.data[:self.nbytes] = host.reshape(-1).view(np.uint8)
        self.region.marks[:self.nbytes] = INIT

    def free(self) -> None:
        """Give the memory back; any later use is a finding."""
        if self.region.freed_at:
            raise Finding("memcheck", "invalid free",
                          f"the buffer was freed before, at {self.region.freed_at}",
                          file=caller(), allocation=Allocation(
                              self.region.start, self.region.size, self.region.name,
                              self.region.made_at))
        self.machine.space.free(self.region, caller())

    def _alive(self, what: str) -> None:
        if self.region.freed_at:
            raise Finding("memcheck", "use after free",
                          f"{what} of a buffer freed at {self.region.freed_at}", file=caller(),
                          allocation=Allocation(self.region.start, self.region.size,
                                                self.region.name, self.region.made_at))

    def __repr__(self) -> str:
        return f"Buffer({self.ptr:#x}, shape={self.shape}, dtype={self.dtype})"


class Module:
    """Kernels and variables of one PTX text."""

    def __init__(self, machine: Machine, parsed: syntax.Module, ptx: str, lowered: dict[str, str],
                 source: str | None, filename: str) -> None:
        self.machine, self.parsed, self.ptx = machine, parsed, ptx
        self.lowered, self.source, self.filename = lowered, source, filename
        self._kernels: dict[str, Kernel] = {}
        self.addresses: dict[str, int] = function_addresses(parsed)
        self._regions: dict[str, Region] = {}
        made_at = caller()
        for v in parsed.variables.values():
            if v.space in ("global", "const") and v.count is not None:
                region = machine.space.allocate(v.size, v.name, made_at, v.space == "const")
                region.marks[:v.size] = INIT
                region.data[:len(v.init)] = np.frombuffer(v.init, np.uint8)
                self._regions[v.name] = region
                self.addresses[v.name] = region.start
        for v in parsed.variables.values():
            for offset, size, symbol, addend, _ in v.relocations:
                if symbol not in self.addresses:
                    raise PtxError(f"{v.name}: its initial value names {symbol}, which has no "
                                   "address here")
                value = self.addresses[symbol] + addend
                self._regions[v.name].data[offset:offset + size] = np.frombuffer(
                    (value % (1 << 8 * size)).to_bytes(size, "little"), np.uint8)

    @property
    def kernels(self) -> list[str]:
        """The names of all kernels."""
        return [f.name for f in self.parsed.functions.values() if f.entry]

    def kernel(self, name: str) -> Kernel:
        """The kernel of that name: plain for `extern "C"`, or a name expression given to module."""
        found = self.lowered.get(name, name)
        if found not in self._kernels:
            if found not in self.kernels:
                raise LaunchError(f"kernel {name!r}: this module has "
                                  f"{', '.join(self.kernels) or 'none'}")
            self._kernels[found] = Kernel(self, found)
        return self._kernels[found]

    def symbol(self, name: str, dtype: Any = None) -> Buffer:
        """A `__device__` or `__constant__` variable as a buffer over its memory."""
        found = self.lowered.get(name, name)
        region = self._regions.get(found)
        if region is None:
            raise LaunchError(f"symbol {name!r}: this module has "
                              f"{', '.join(self._regions) or 'none'}")
        variable = self.parsed.variables[found]
        kind = np.dtype(dtype) if dtype is not None else np.dtype(
            _HOST_TYPES.get(variable.type, "u1"))
        return Buffer(self.machine, region, (region.size // kind.itemsize,), kind)


_HOST_TYPES = {"u8": "u1", "s8": "i1", "b8": "u1", "u16": "u2", "s16": "i2", "b16": "u2",
               "f16": "f2", "u32": "u4", "s32": "i4", "b32": "u4", "f32": "f4", "u64": "u8",
               "s64": "i8", "b64": "u8", "f64": "f8"}


class Kernel:
    """A kernel, ready to be launched."""

    def __init__(self, module: Module, name: str) -> None:
        self.module, self.name = module, name
        self.code = Code(module.parsed, flatten(module.parsed, name), module.addresses)

    def launch(self, grid: Dim, block: Dim, args: Sequence[Any] = (), shared_mem: int = 0,
               cooperative: bool = False) -> Report:
        """Run the kernel on all threads and report what it did.

        Args:
            grid: blocks, one to three numbers.
            block: threads of a block, one to three numbers.
            args: one for each parameter: a Buffer, an address (int) for a pointer, a NumPy scalar,
                a structured NumPy scalar or bytes for a struct.
            shared_mem: bytes of dynamic shared memory.
            cooperative: all blocks run at once, so that they can synchronise.

        Raises Finding at the first fault (unless the machine collects them), LaunchError where
        dimensions, memory or arguments do not fit.
        """
        launch = Launch(self.module.machine, self.code, grid, block, self._pack(args), shared_mem,
                        cooperative)
        launch.run()
        return Report(launch, self.module)

    def _pack(self, args: Sequence[Any]) -> bytes:
        params = self.code.params
        if len(args) != len(params):
            raise LaunchError(f"{self.name}: {len(args)} arguments; the kernel has "
                              f"{len(params)} parameters")
        packed = bytearray(self.code.param_size)
        for number, (param, arg) in enumerate(zip(params, args, strict=True)):
            at = self.code.param_offsets[param.name]
            raw = self._bytes(number, param, arg)
            packed[at:at + param.size] = raw
        return bytes(packed)

    def _bytes(self, number: int, param: syntax.Variable, arg: Any) -> bytes:
        what = f"{self.name}: argument {number}"
        if isinstance(arg, Buffer):
            if param.size != 8:
                raise LaunchError(f"{what} is a buffer; the parameter has {param.size} bytes, a "
                                  "pointer has 8")
            return arg.ptr.to_bytes(8, "little")
        if isinstance(arg, bool) or not isinstance(arg, (int, bytes, np.generic, np.ndarray)):
            raise LaunchError(f"{what} is {type(arg).__name__}; a Buffer, an address, a NumPy "
                              "scalar, a structured scalar or bytes is needed")
        if isinstance(arg, int):
            if param.size != 8:
                raise LaunchError(f"{what} is the int {arg}, which stands for an address of 8 "
                                  f"bytes; the parameter has {param.size}: pass a NumPy scalar, "
                                  f"such as np.int32({arg})")
            if not -(1 << 63) <= arg < 1 << 64:
                raise LaunchError(f"{what}: {arg} does not fit 64 bits")
            return (arg % (1 << 64)).to_bytes(8, "little")
        raw = arg if isinstance(arg, bytes) else arg.tobytes()
        if len(raw) != param.size:
            kind = "bytes" if isinstance(arg, bytes) else str(arg.dtype)
            raise LaunchError(f"{what} ({kind}) has {len(raw)} bytes; the parameter has "
                              f"{param.size} ({param.type})")
        if param.scalar and isinstance(arg, np.generic) and arg.dtype.kind in "iuf":
            floating = param.type in ("f32", "f64")
            if floating != (arg.dtype.kind == "f") and param.type[0] in "usf" and param.size > 2:
                raise LaunchError(f"{what} is {arg.dtype}; the parameter is .{param.type}")
        return raw


def caller() -> str:
    """The "file:line" outside this package that called."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _is_ptx(text: str) -> bool:
    """Whether the text is PTX: its first directive is `.version`."""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("//"):
            return stripped.startswith(".version")
    return False
