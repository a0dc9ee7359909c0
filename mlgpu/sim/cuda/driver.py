"""The functions of the CUDA driver, under the names of CuPy's binding to it.

As runtime.py, for modules, kernels and contexts (the CUDA Driver API reference).
"""

from __future__ import annotations

import ctypes
import itertools
from functools import partial
from pathlib import Path

from mlgpu.errors import MissingExtraError
from mlgpu.sim import ptxas
from mlgpu.sim.cuda import errors, lenient, lines
from mlgpu.sim.cuda.asides import Aside
from mlgpu.sim.cuda.clock import launch_time
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.streams import Stream
from mlgpu.sim.cuda.system import System, caller
from mlgpu.sim.errors import Finding, LaunchError, PtxError, SimError, UnsupportedError
from mlgpu.sim.launch import Launch
from mlgpu.sim.machine import Kernel, Module
from mlgpu.sim.occupancy import occupancy

DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


class Function:
    """A kernel, with the attributes that a program has set."""

    def __init__(self, kernel: Kernel, device: int) -> None:
        self.kernel, self.device = kernel, device
        self.attributes: dict[int, int] = {}
        sizes = [(kernel.code.param_offsets[p.name], p.size) for p in kernel.code.params]
        self.params: list[tuple[int, int]] = sizes
        self.skip = lenient.skipped(kernel)


class Driver:
    """The CUDA driver of a simulated system."""

    def __init__(self, system: System, version: int) -> None:
        self.system, self.version = system, version
        self.modules: dict[int, Module] = {}
        self.functions: dict[int, Function] = {}
        self._handles = itertools.count(0x3000_0000, 0x10)

    def get_build_version(self) -> int:
        return self.version

    # -- contexts: each device has its primary one ------------------------------------------------

    def ctxGetCurrent(self) -> int:
        return 0xC0_0000 + self.system.current if self.system.has_context else 0

    def ctxGetDevice(self) -> int:
        return self.system.current

    def ctxSetCurrent(self, context: int) -> None:
        self.system.current = context - 0xC0_0000

    def devicePrimaryCtxRelease(self, device: int) -> None:
        self.system.device(device)

    def streamGetCtx(self, stream: int) -> int:
        return 0xC0_0000 + self.system.stream(stream).device

    # -- modules ----------------------------------------------------------------------------------

    def moduleLoad(self, filename: str) -> int:
        path = Path(filename)
        if not path.is_file():
            raise CudaError(301, f"cuModuleLoad: there is no file {filename}")
        return self.moduleLoadData(path.read_bytes())

    def moduleLoadData(self, image: bytes) -> int:
        self.system.check()
        text = image.rstrip(b"\0")
        if b".version" not in text[:4096]:
            raise CudaError(errors.INVALID_IMAGE, "cuModuleLoadData: the simulated GPU runs PTX, "
                            "and this is machine code for a real one; have CuPy compile to PTX "
                            "(CUPY_COMPILE_WITH_PTX=1, which mlgpu.sim.install sets)")
        try:
            module = self.system.device(self.system.current).machine.module(text.decode())
        except UnsupportedError as error:
            raise CudaError(errors.NOT_SUPPORTED, str(error)) from error
        except LaunchError as error:
            raise CudaError(errors.NO_BINARY, str(error)) from error
        except PtxError as error:
            raise CudaError(errors.INVALID_PTX, str(error)) from error
        lines.attach(module)
        handle = next(self._handles)
        self.modules[handle] = module
        return handle

    def moduleUnload(self, module: int) -> None:
        """Its kernels are gone; its variables are once the device's work so far is done."""
        gone, where = self._module(module), caller()
        del self.modules[module]
        for handle in [h for h, f in self.functions.items() if f.kernel.module is gone]:
            del self.functions[handle]
        works = [w for device in self.system.devices if device.machine is gone.machine
                 for w in self.system.streams.of_device(device.number)]
        Aside(lambda: gone.unload(where), works)

    def moduleGetFunction(self, module: int, name: str) -> int:
        found = self._module(module)
        try:
            kernel = found.kernel(name)
        except LaunchError as error:
            raise CudaError(errors.NOT_FOUND, str(error)) from error
        except UnsupportedError as error:
            raise CudaError(errors.NOT_SUPPORTED, str(error)) from error
        for handle, function in self.functions.items():
            if function.kernel is kernel:
                return handle
        handle = next(self._handles)
        self.functions[handle] = Function(kernel, self.system.current)
        return handle

    def moduleGetGlobal(self, module: int, name: str) -> int:
        try:
            return self._module(module).symbol(name).ptr
        except LaunchError as error:
            raise CudaError(errors.NOT_FOUND, str(error)) from error

    def _module(self, handle: int) -> Module:
        if handle not in self.modules:
            raise CudaError(errors.INVALID_HANDLE, f"{handle:#x} is no module, or is unloaded")
        return self.modules[handle]

    # -- kernels ----------------------------------------------------------------------------------

    def funcGetAttribute(self, attribute: int, function: int) -> int:
        found = self._function(function)
        code, arch = found.kernel.code, found.kernel.module.machine.arch
        if attribute in found.attributes:
            return found.attributes[attribute]
        version = 10 * arch.capability[0] + arch.capability[1]
        fixed = {0: arch.max_threads_per_block, 1: code.static_shared, 2: 0, 5: version,
                 6: version, 7: 0, DYNAMIC_SHARED: arch.shared_per_block - code.static_shared,
                 9: -1}
        if attribute in fixed:
            return fixed[attribute]
        if attribute in (3, 4):
            resources = self._resources(found)
            if resources is not None:
                return resources.registers if attribute == 4 else resources.stack
            return code.local_size if attribute == 3 else 32
        raise CudaError(errors.INVALID_VALUE, f"attribute {attribute} of kernels is not known")

    def _resources(self, function: Function) -> ptxas.Resources | None:
        """What ptxas says of the kernel; None where it is not installed."""
        try:
            kernel = function.kernel
            return ptxas.resources(kernel.module.ptx, kernel.module.machine.target)[kernel.name]
        except (SimError, MissingExtraError):
            return None

    def funcSetAttribute(self, function: int, attribute: int, value: int) -> None:
        found = self._function(function)
        arch = found.kernel.module.machine.arch
        if attribute == DYNAMIC_SHARED and not (
                0 <= value + found.kernel.code.static_shared <= arch.shared_optin):
            raise CudaError(errors.INVALID_VALUE, f"{value:,} bytes of dynamic shared memory: "
                            f"{arch.name} has at most {arch.shared_optin:,} for a block, of which "
                            f"the kernel takes {found.kernel.code.static_shared:,} statically")
        found.attributes[attribute] = value

    def occupancyMaxActiveBlocksPerMultiprocessor(self, function: int, block: int,
                                                  shared: int) -> int:
        found = self._function(function)
        arch = found.kernel.module.machine.arch
        try:
            return occupancy(arch, block, self._registers(found),
                             found.kernel.code.static_shared + shared).blocks
        except LaunchError:
            return 0

    def occupancyMaxPotentialBlockSize(self, function: int, shared: int,
                                       limit: int) -> tuple[int, int]:
        arch = self._function(function).kernel.module.machine.arch
        best, size = 0, 32
        for block in range(min(limit or 1024, 1024) // 32 * 32, 0, -32):
            threads = block * self.occupancyMaxActiveBlocksPerMultiprocessor(function, block,
                                                                             shared)
            if threads > best:
                best, size = threads, block
        return best // size * arch.sms, size

    def _registers(self, function: Function) -> int:
        resources = self._resources(function)
        return 0 if resources is None else resources.registers

    def _function(self, handle: int) -> Function:
        if handle not in self.functions:
            raise CudaError(errors.INVALID_HANDLE, f"{handle:#x} is no function")
        return self.functions[handle]

    def launchKernel(self, function: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int,
                     shared: int, stream: int, params: int, extra: int) -> None:
        self._launch(function, (gx, gy, gz), (bx, by, bz), shared, stream, params, False)

    def launchCooperativeKernel(self, function: int, gx: int, gy: int, gz: int, bx: int, by: int,
                                bz: int, shared: int, stream: int, params: int) -> None:
        self._launch(function, (gx, gy, gz), (bx, by, bz), shared, stream, params, True)

    def _launch(self, handle: int, grid: tuple[int, int, int], block: tuple[int, int, int],
                shared: int, stream: int, params: int, cooperative: bool) -> None:
        self.system.check()
        function = self._function(handle)
        found = self.system.stream(stream)
        kernel = function.kernel
        machine = kernel.module.machine
        if found.device != function.device:
            raise CudaError(errors.INVALID_HANDLE, f"{kernel.name} was loaded on device "
                            f"{function.device} and cannot be launched on {found}")
        if shared > self.funcGetAttribute(DYNAMIC_SHARED, handle):
            raise CudaError(errors.INVALID_VALUE, f"{kernel.name}: {shared:,} bytes of dynamic "
                            "shared memory; set the kernel's max_dynamic_shared_size_bytes first "
                            "where more than 48 KiB are needed")
        packed = bytearray(kernel.code.param_size)
        if function.params:
            pointers = (ctypes.c_void_p * len(function.params)).from_address(params)
            for pointer, (at, size) in zip(pointers, function.params, strict=True):
                if pointer:
                    packed[at:at + size] = ctypes.string_at(pointer, size)
        make = partial(Launch, machine, kernel.code, grid, block, bytes(packed), shared,
                       cooperative, function.skip)
        try:
            with machine.lock:
                launch = make()
        except LaunchError as error:
            status = errors.COOPERATIVE_TOO_LARGE if "cooperative" in str(error) else (
                errors.INVALID_VALUE)
            raise CudaError(status, str(error)) from error
        where = caller()
        if found.capture is None:
            self.system.submit(found, lambda: self._run(launch, kernel, found, where), kernel.name)
            return

        def again() -> None:  # a graph launches it anew each time
            running = self.system.streams.running
            self._run(make(), kernel, found, where if running is None else running.where)

        self.system.submit(found, again, kernel.name)

    def _run(self, launch: Launch, kernel: Kernel, stream: Stream, where: str) -> None:
        if self.system.devices[stream.device].error is not None:
            return  # nothing runs on a device after an error that sticks
        machine = kernel.module.machine
        if self.system.streams.watch is not None:
            launch.watch = self.system.hazards.launched
        try:
            with machine.lock:
                launch.run()
        except Finding as error:
            launch.findings.append(error.with_traceback(None))  # the simulator's own frames
        except UnsupportedError as error:
            raise CudaError(errors.NOT_SUPPORTED, str(error)) from error
        self.system.streams.spend(launch_time(launch))
        if launch.output:
            print("".join(launch.output), end="")
        for finding in launch.findings:
            finding.launched = where
            self.system.failed(stream.device, finding)
        for watch in self.system.watchers:
            watch(launch, kernel.module)


