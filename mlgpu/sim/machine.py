"""The simulated GPU as its users see it: machine, modules, kernels, buffers."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from mlgpu.sim import arch as archs
from mlgpu.sim import host, nvrtc
from mlgpu.sim.buffer import Buffer
from mlgpu.sim.code import Code, layout
from mlgpu.sim.errors import Allocation, Finding, LaunchError, PtxError, SimError
from mlgpu.sim.inline import flatten, function_addresses
from mlgpu.sim.launch import Dim, Launch
from mlgpu.sim.memory import INIT, AddressSpace, Region
from mlgpu.sim.packing import pack
from mlgpu.sim.ptx import syntax
from mlgpu.sim.ptx.parser import parse
from mlgpu.sim.report import Report

CHECKS = ("memcheck", "racecheck", "initcheck", "synccheck")
MODULE_BYTES = 1 << 28  # of variables that a module may have


class Machine:
    """A simulated GPU: its memory, and how launches on it are checked.

    - `arch`: the target that sources are compiled for and whose limits hold, such as "sm_90".
    - `findings`: "raise" raises the first `Finding` of a launch; "collect" gathers them in the
      report, a fault leaving its access out.
    - `checks`: the sanitizers that are on, of "memcheck", "racecheck", "initcheck" and
      "synccheck"; all by default.
    - `counters`: False leaves the memory counters out, for speed.
    - `watchdog`: how many segments a batch of blocks may run before a launch counts as endless.
    - `schedule`: "lockstep" runs all threads that are at the same place together; "warps" runs the
      first warp as far as it gets, then the next, which is slower and shows what is right only
      while warps keep pace.
    - `memory`: bytes of device memory; the simulation takes about twice that much when all is used.

    Threads may share a machine: what they ask of it is done one after the other.
    """

    def __init__(self, arch: str = "sm_90", findings: Literal["raise", "collect"] = "raise",
                 checks: Sequence[str] = CHECKS, counters: bool = True,
                 watchdog: int = 2_000_000, memory: int = 1 << 33,
                 schedule: Literal["lockstep", "warps"] = "lockstep") -> None:
        if findings not in ("raise", "collect"):
            raise SimError(f"Machine: findings={findings!r}; it is 'raise' or 'collect'")
        if schedule not in ("lockstep", "warps"):
            raise SimError(f"Machine: schedule={schedule!r}; it is 'lockstep' or 'warps'")
        if not all(c in CHECKS for c in host.sequence("Machine: checks", checks)):
            raise SimError(f"Machine: checks={checks!r}; a sequence of {', '.join(CHECKS)}")
        for name, value in (("watchdog", watchdog), ("memory", memory)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise SimError(f"Machine: {name}={value!r}; a whole number above 0 is needed")
        if not isinstance(arch, str):
            raise SimError(f"Machine: arch={arch!r}; a target such as 'sm_90' is needed")
        # Once freed, this much makes glibc keep freed arrays for reuse, where by default it gives
        # those of 256 KiB back to the system and has every page of the next one faulted in.
        np.empty(31 << 20, np.uint8)
        self.target = arch
        self.arch = archs.find(arch)
        self.findings = findings
        self.checks = frozenset(checks)
        self.counters = counters
        self.watchdog = watchdog
        self.schedule = schedule
        self.space = AddressSpace(int(memory))
        self.lock = threading.RLock()
        self.unsettled = False  # an interrupted launch has left marks in memory
        self._workspace: Region | None = None

    def module(self, source: str, options: Sequence[str] = (), names: Sequence[str] = (),
               filename: str = "kernel.cu") -> Module:
        """A CUDA source (compiled by NVRTC) or PTX text, ready to launch from.

        - `options`: NVRTC's, such as "-DN=4", "--use_fast_math", "-Ifolder".
        - `names`: name expressions such as "kernel<float>", which instantiate templates.
        - `filename`: what findings call the source; headers beside it are found.

        Raises CompileError with NVRTC's log, PtxError where PTX is malformed, LaunchError where it
        is for a target that the machine is not.
        """
        for what, value in (("source", source), ("filename", filename)):
            if not isinstance(value, str) or "\0" in value:
                raise SimError(f"module: the {what} is {type(value).__name__}"
                               f"{' with a zero character' * isinstance(value, str)}; "
                               "text (str) is needed")
        for what, values in (("options", options), ("names", names)):
            if not all(isinstance(v, str) and "\0" not in v
                       for v in host.sequence(f"module: {what}", values)):
                raise SimError(f"module: {what}={values!r}; a sequence of strings is needed")
        text, lowered = source, {}
        if not _is_ptx(source):
            compiled = nvrtc.compile(source, self.target, options, names, filename)
            text, lowered = compiled.ptx, dict(compiled.lowered)
        elif options or names:
            raise SimError("module: options and names are for CUDA sources; this is PTX")
        parsed = parse(text)
        self._check_target(parsed)
        with self.lock:
            return Module(self, parsed, text, lowered, None if _is_ptx(source) else source,
                          filename)

    def _check_target(self, parsed: syntax.Module) -> None:
        """LaunchError unless code for the module's target runs on this GPU."""
        major, minor, suffix = archs.parse(parsed.target)
        own = self.arch.capability
        fits = {"a": (major, minor) == own, "f": major == own[0] and minor <= own[1],
                "": (major, minor) <= own}[suffix]
        if not fits:
            rule = {"a": "runs on that architecture alone", "f": "runs on its family alone",
                    "": "needs that architecture or a newer one"}[suffix]
            raise LaunchError(f"the PTX is for {parsed.target}, which {rule}; this machine is "
                              f"sm_{own[0]}{own[1]}: compile for its target, or use "
                              f"sim.Machine(arch={parsed.target!r})")
        if parsed.address_size != 64:
            raise LaunchError("the PTX is for addresses of 32 bits; the simulated GPU has 64")

    def array(self, values: Any) -> Buffer:
        """Device memory with a copy of a NumPy array, in the byte order of GPUs."""
        given = host.array(values, "array")
        buffer = self._buffer(given.shape, given.dtype, "array")
        buffer.set(given)
        return buffer

    def zeros(self, shape: int | Sequence[int], dtype: Any = np.float32) -> Buffer:
        """Device memory set to zero."""
        buffer = self._buffer(shape, dtype, "zeros")
        buffer.region.marks[:buffer.nbytes] = INIT
        return buffer

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> Buffer:
        """Device memory that nobody has written: reading it is a finding of initcheck.

        Its bytes are 255, so that what a kernel forgot to write is no zero (but NaN, -1 or True).
        """
        buffer = self._buffer(shape, dtype, "empty")
        buffer.region.data[:] = 255
        return buffer

    def _buffer(self, shape: int | Sequence[int], dtype: Any, what: str) -> Buffer:
        kind = host.dtype(dtype, what)
        if not kind.isnative:
            raise SimError(f"{what}: {kind.str} has the bytes of each number the other way round; "
                           f"a GPU has {kind.newbyteorder('=').str}")
        sizes = host.shape(shape, what)
        with self.lock:
            region = self.space.allocate(math.prod(sizes) * kind.itemsize, "", host.caller())
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


class Module:
    """Kernels and variables of one PTX text."""

    def __init__(self, machine: Machine, parsed: syntax.Module, ptx: str, lowered: dict[str, str],
                 source: str | None, filename: str) -> None:
        self.machine, self.parsed, self.ptx = machine, parsed, ptx
        self.lowered, self.source, self.filename = lowered, source, filename
        self._kernels: dict[str, Kernel] = {}
        self.addresses: dict[str, int] = function_addresses(parsed)
        self._regions: dict[str, Region] = {}
        made_at = host.caller()
        self._check_sizes()
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

    def _check_sizes(self) -> None:
        """PtxError where variables or parameters take more than a GPU has for them."""
        arch = self.machine.arch
        for space, most in (("const", arch.constant_bytes), ("global", MODULE_BYTES)):
            size = sum(v.size for v in self.parsed.variables.values() if v.space == space)
            if size > most:
                raise PtxError(f"the module's variables in .{space} have {size:,} bytes; at most "
                               f"{most:,} fit: allocate larger ones with Machine.empty")
        for f in self.parsed.functions.values():
            size = layout(f.params)[1]
            if f.entry and size > arch.param_bytes:
                raise PtxError(f"{f.name}: {size:,} bytes of parameters; at most "
                               f"{arch.param_bytes:,} fit")

    def unload(self, where: str) -> None:
        """Give the memory of its variables back."""
        with self.machine.lock:
            for region in self._regions.values():
                self.machine.space.free(region, where)
            self._regions.clear()

    @property
    def kernels(self) -> list[str]:
        """The names of all kernels."""
        return [f.name for f in self.parsed.functions.values() if f.entry and f.body is not None]

    def kernel(self, name: str) -> Kernel:
        """The kernel of that name: plain for `extern "C"`, or a name expression given to module."""
        found = self.lowered.get(name, name) if isinstance(name, str) else ""
        with self.machine.lock:
            if found not in self._kernels:
                if found not in self.kernels:
                    raise LaunchError(f"kernel {name!r}: this module has "
                                      f"{', '.join(self.kernels) or 'none'}")
                self._kernels[found] = Kernel(self, found)
            return self._kernels[found]

    def symbol(self, name: str, dtype: Any = None) -> Buffer:
        """A `__device__` or `__constant__` variable as a buffer over its memory."""
        found = self.lowered.get(name, name) if isinstance(name, str) else ""
        region = self._regions.get(found)
        if region is None:
            raise LaunchError(f"symbol {name!r}: this module has "
                              f"{', '.join(self._regions) or 'none'}")
        variable = self.parsed.variables[found]
        kind = host.dtype(dtype if dtype is not None else _HOST_TYPES.get(variable.type, "u1"),
                      "symbol")
        if not kind.itemsize or region.size % kind.itemsize or not kind.isnative:
            raise SimError(f"symbol: {name} has {region.size:,} bytes, which are no whole number "
                           f"of {kind.str}")
        return Buffer(self.machine, region, (region.size // kind.itemsize,), kind,
                      typed=dtype is not None)


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

        - `grid`: blocks, one to three numbers.
        - `block`: threads of a block, one to three numbers.
        - `args`: one for each parameter: a Buffer, an address (int) for a pointer, a NumPy scalar,
          a structured NumPy scalar or bytes for a struct.
        - `shared_mem`: bytes of dynamic shared memory.
        - `cooperative`: all blocks run at once, so that they can synchronise.

        Raises Finding at the first fault (unless the machine collects them), LaunchError where
        dimensions, memory or arguments do not fit.
        """
        machine = self.module.machine
        with machine.lock:
            launch = Launch(machine, self.code, grid, block, pack(machine, self.code, args),
                            shared_mem, cooperative)
            launch.run()
            return Report(launch, self.module)


def _is_ptx(text: str) -> bool:
    """Whether the text is PTX, whole or not: a line begins with a directive that CUDA lacks."""
    return _PTX.search(text) is not None


_PTX = re.compile(r"^[ \t]*\.(?:version|target|address_size)[ \t]", re.MULTILINE)
