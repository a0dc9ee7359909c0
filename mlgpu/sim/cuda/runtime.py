"""The functions of the CUDA runtime, under the names of CuPy's binding to it.

Each takes and gives what the function of that name in `cupy.cuda.runtime` does (the CUDA Runtime
API reference says what it means), and raises CudaError, which binding.py turns into CuPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.memory import DEVICE, HOST, MANAGED, Block, copy_marks
from mlgpu.sim.cuda.properties import properties
from mlgpu.sim.cuda.streams import LEGACY, PER_THREAD, Stream, Work
from mlgpu.sim.cuda.system import System, caller

Array = np.ndarray[Any, Any]
H2H, H2D, D2H, D2D, DEFAULT = range(5)  # cudaMemcpyKind


class Runtime:
    """The CUDA runtime of a simulated system."""

    def __init__(self, system: System, version: int, kinds: Any) -> None:
        self.system = system
        self.version = version
        self.kinds = kinds  # the binding's classes: PointerAttributes
        self.pools: dict[int, dict[int, int]] = {}
        self.current_pool: dict[int, int] = {}

    # -- devices ----------------------------------------------------------------------------------

    def driverGetVersion(self) -> int:
        return self.version

    def _getCUDAMajorVersion(self) -> int:
        return self.version // 1000

    def _getLocalRuntimeVersion(self) -> int:
        return self.version

    def runtimeGetVersion(self) -> int:
        return self.version

    def getDevice(self) -> int:
        return self.system.current

    def getDeviceCount(self) -> int:
        return len(self.system.devices)

    def setDevice(self, device: int) -> None:
        self.system.current = device

    def deviceGetAttribute(self, attribute: int, device: int) -> int:
        found = self.system.device(device).attributes.get(attribute)
        if found is None:
            raise CudaError(errors.INVALID_VALUE, f"attribute {attribute} is not known")
        return found

    def getDeviceProperties(self, device: int) -> dict[str, Any]:
        found = self.system.device(device)
        return properties(found.machine.arch, device, found.memory, self.version)

    def deviceGetPCIBusId(self, device: int) -> str:
        self.system.device(device)
        return f"0000:{device + 1:02X}:00.0"

    def deviceGetByPCIBusId(self, text: str) -> int:
        for n in range(len(self.system.devices)):
            if text.upper() == self.deviceGetPCIBusId(n):
                return n
        raise CudaError(errors.INVALID_DEVICE, f"no device has the PCI bus id {text!r}")

    def deviceSynchronize(self) -> None:
        self._not_capturing("cudaDeviceSynchronize")
        self.system.check()
        self.system.finish_device(self.system.current)

    def deviceCanAccessPeer(self, device: int, peer: int) -> int:
        self.system.device(device)
        self.system.device(peer)
        return int(device != peer)

    def deviceEnablePeerAccess(self, peer: int) -> None:
        own, other = self.system.device(self.system.current), self.system.device(peer)
        if own is other:
            raise CudaError(errors.INVALID_DEVICE, "a device is no peer of itself")
        if peer in own.peers:
            raise CudaError(errors.PEER_ACCESS_ALREADY)
        own.peers.add(peer)
        own.space.others.append(other.space)

    def deviceDisablePeerAccess(self, peer: int) -> None:
        own, other = self.system.device(self.system.current), self.system.device(peer)
        if peer not in own.peers:
            raise CudaError(errors.PEER_ACCESS_NOT)
        own.peers.discard(peer)
        own.space.others.remove(other.space)

    def _deviceEnsurePeerAccess(self, peer: int) -> None:
        if peer not in self.system.device(self.system.current).peers:
            self.deviceEnablePeerAccess(peer)

    def deviceGetLimit(self, limit: int) -> int:
        found = self.system.device(self.system.current).limits.get(limit)
        if found is None:
            raise CudaError(errors.INVALID_VALUE, f"limit {limit} is not known")
        return found

    def deviceSetLimit(self, limit: int, value: int) -> None:
        self.deviceGetLimit(limit)
        self.system.device(self.system.current).limits[limit] = value

    def _ensure_context(self) -> None:
        pass

    def profilerStart(self) -> None:
        pass

    def profilerStop(self) -> None:
        pass

    # -- memory -----------------------------------------------------------------------------------

    def malloc(self, size: int) -> int:
        self.system.check()
        return self.system.memory.allocate(self.system.current, size, caller())

    def mallocManaged(self, size: int, flags: int = 1) -> int:
        self.system.check()
        return self.system.memory.allocate_host(self.system.current, size, caller(), MANAGED)

    def hostAlloc(self, size: int, flags: int) -> int:
        self.system.check()
        return self.system.memory.allocate_host(self.system.current, size, caller())

    def hostRegister(self, address: int, size: int, flags: int) -> None:
        self.system.memory.register(self.system.current, address, size, caller())

    def hostUnregister(self, address: int) -> None:
        self._finish_all()
        self.system.memory.free(address, (HOST,), caller())

    def free(self, address: int) -> None:
        """As CUDA's, it waits for the device."""
        if not address:
            return
        block = self.system.memory.find(address)
        if block is not None:
            self.system.streams.finish(self.system.streams.of_device(block.device))
        self.system.memory.free(address, (DEVICE, MANAGED), caller())

    def freeHost(self, address: int) -> None:
        if address:
            self._finish_all()
            self.system.memory.free(address, (HOST,), caller())

    def _finish_all(self) -> None:
        for n in range(len(self.system.devices)):
            self.system.streams.finish(self.system.streams.of_device(n))

    def mallocAsync(self, size: int, stream: int) -> int:
        """The memory is there at once: that it is not before the stream comes to it is unseen."""
        self.system.check()
        found = self.system.stream(stream)
        return self.system.memory.allocate(found.device, size, caller())

    def mallocFromPoolAsync(self, size: int, pool: int, stream: int) -> int:
        return self.mallocAsync(size, stream)

    def freeAsync(self, address: int, stream: int) -> None:
        if not address:
            return
        where, memory = caller(), self.system.memory
        if address not in memory.blocks:
            raise CudaError(errors.INVALID_VALUE, f"{address:#x} was not allocated, or is freed "
                                                  "already")
        self._submit(stream, lambda: memory.free(address, (DEVICE, MANAGED), where), "free")

    def memGetInfo(self) -> tuple[int, int]:
        self.system.check()
        device = self.system.device(self.system.current)
        return device.memory - device.space.used, device.memory

    def pointerGetAttributes(self, address: int) -> Any:
        block = self.system.memory.find(address)
        if block is None:
            return self.kinds.PointerAttributes(-1, 0, address, 0)
        host = 0 if block.kind == DEVICE else address
        return self.kinds.PointerAttributes(block.device, address, host, block.kind)

    def pointerGetMemoryType(self, address: int) -> int:
        block = self.system.memory.find(address)
        return 0 if block is None else block.kind

    def memPrefetchAsync(self, address: int, size: int, device: int, stream: int) -> None:
        self._managed("cudaMemPrefetchAsync", address, size)

    def memAdvise(self, address: int, size: int, advice: int, device: int) -> None:
        self._managed("cudaMemAdvise", address, size)

    def _managed(self, what: str, address: int, size: int) -> None:
        block = self.system.memory.find(address, size)
        if block is None or block.kind != MANAGED:
            raise CudaError(errors.INVALID_VALUE, f"{what}: {address:#x} is no managed memory")

    # -- pools of cudaMallocAsync: they only have attributes --------------------------------------

    def deviceGetDefaultMemPool(self, device: int) -> int:
        self.system.device(device)
        handle = 0x900D_0000 + 16 * device
        self.pools.setdefault(handle, {4: 0})
        return handle

    def deviceGetMemPool(self, device: int) -> int:
        return self.current_pool.get(device, self.deviceGetDefaultMemPool(device))

    def deviceSetMemPool(self, device: int, pool: int) -> None:
        self._pool(pool)
        self.current_pool[device] = pool

    def memPoolCreate(self, props: Any) -> int:
        handle = 0x900E_0000 + 16 * len(self.pools)
        self.pools[handle] = {4: 0}
        return handle

    def memPoolDestroy(self, pool: int) -> None:
        self._pool(pool)
        del self.pools[pool]

    def memPoolTrimTo(self, pool: int, size: int) -> None:
        self._pool(pool)

    def memPoolGetAttribute(self, pool: int, attribute: int) -> int:
        found = self._pool(pool)
        if attribute in (5, 6, 7, 8):  # reserved and used, now and at most
            return self.system.device(self.system.current).space.used
        return found.get(attribute, 1)

    def memPoolSetAttribute(self, pool: int, attribute: int, value: int) -> None:
        self._pool(pool)[attribute] = value

    def _pool(self, pool: int) -> dict[int, int]:
        if pool not in self.pools:
            raise CudaError(errors.INVALID_VALUE, f"{pool:#x} is no memory pool")
        return self.pools[pool]

    # -- copies -----------------------------------------------------------------------------------

    def memcpy(self, dst: int, src: int, size: int, kind: int) -> None:
        self._copy(dst, src, size, kind, 0, wait=True)

    def memcpyAsync(self, dst: int, src: int, size: int, kind: int, stream: int) -> None:
        self._copy(dst, src, size, kind, stream, wait=False)

    def memcpyPeer(self, dst: int, dst_device: int, src: int, src_device: int, size: int) -> None:
        self._copy(dst, src, size, D2D, 0, wait=True)

    def memcpyPeerAsync(self, dst: int, dst_device: int, src: int, src_device: int, size: int,
                        stream: int) -> None:
        self._copy(dst, src, size, D2D, stream, wait=False)

    def memcpy2D(self, dst: int, dpitch: int, src: int, spitch: int, width: int, height: int,
                 kind: int) -> None:
        self.memcpy2DAsync(dst, dpitch, src, spitch, width, height, kind, 0)
        self.system.finish(self.system.stream(0).last)

    def memcpy2DAsync(self, dst: int, dpitch: int, src: int, spitch: int, width: int, height: int,
                      kind: int, stream: int) -> None:
        if max(dpitch, spitch) and width > min(dpitch, spitch):
            raise CudaError(errors.INVALID_VALUE, f"cudaMemcpy2D: rows of {width} bytes, but only "
                                                  f"{min(dpitch, spitch)} from one to the next")
        for row in range(height):
            self._copy(dst + row * dpitch, src + row * spitch, width, kind, stream, wait=False)

    def _copy(self, dst: int, src: int, size: int, kind: int, stream: int, wait: bool) -> None:
        if not size:
            return
        self.system.check()
        if not H2H <= kind <= DEFAULT:
            raise CudaError(21, f"cudaMemcpy: there is no kind {kind}")
        found = self.system.stream(stream)
        target, to = self.system.memory.bytes(dst, size, "cudaMemcpy: the destination")
        source, of = self.system.memory.bytes(src, size, "cudaMemcpy: the source")
        if kind != DEFAULT:
            for block, device, what in ((to, kind in (H2D, D2D), "destination"),
                                        (of, kind in (D2H, D2D), "source")):
                if device != (block is not None and block.kind != HOST) and (
                        device or (block is not None and block.kind == DEVICE)):
                    raise CudaError(errors.INVALID_VALUE,
                                    f"cudaMemcpy: the {what} is {'no' if device else 'a'} "
                                    "device's memory, which the kind of copy says otherwise")
        # Memory of the program's own that is not pinned: the copy has left it, or has come, when
        # the call returns.
        if of is None and to is not None and not wait:
            source = source.copy()
        name = {(True, True): "copy on the host", (True, False): "copy to the device",
                (False, True): "copy to the host"}.get((_hosted(of), _hosted(to)), "copy")
        work = self._submit(stream, _copying(target, to, dst, source, size), name, found)
        if (wait and (_hosted(of) or _hosted(to))) or to is None:
            self._not_capturing("a copy that waits", found)
            self.system.finish(work)

    def memset(self, address: int, value: int, size: int) -> None:
        self.memsetAsync(address, value, size, 0)

    def memsetAsync(self, address: int, value: int, size: int, stream: int) -> None:
        if not size:
            return
        self.system.check()
        target, block = self.system.memory.bytes(address, size, "cudaMemset")
        if block is None:
            raise CudaError(errors.INVALID_VALUE, f"cudaMemset: {address:#x} is no device's memory")

        def run() -> None:
            target[:] = value & 255
            copy_marks(block, address, size)

        self._submit(stream, run, "memset")

    # -- streams and events -----------------------------------------------------------------------

    def streamCreate(self) -> int:
        self.system.check()
        return self.system.streams.create(self.system.current).handle

    def streamCreateWithFlags(self, flags: int) -> int:
        self.system.check()
        return self.system.streams.create(self.system.current, flags).handle

    def streamCreateWithPriority(self, flags: int, priority: int) -> int:
        self.system.check()
        priority = max(-5, min(0, priority))
        return self.system.streams.create(self.system.current, flags, priority).handle

    def streamIsCapturing(self, stream: int) -> int:
        return int(self.system.stream(stream).capture is not None)

    def streamGetFlags(self, stream: int) -> int:
        return self.system.stream(stream).flags

    def streamGetPriority(self, stream: int) -> int:
        return self.system.stream(stream).priority

    def streamDestroy(self, stream: int) -> None:
        """Work that it has still comes to be done."""
        if stream in (0, LEGACY, PER_THREAD):
            raise CudaError(errors.INVALID_HANDLE, "the default stream cannot be destroyed")
        self.system.stream(stream)
        del self.system.streams.streams[stream]

    def streamSynchronize(self, stream: int) -> None:
        found = self.system.stream(stream)
        self._not_capturing("cudaStreamSynchronize", found)
        self.system.check()
        self.system.finish(found.last)

    def streamQuery(self, stream: int) -> int:
        found = self.system.stream(stream)
        self._not_capturing("cudaStreamQuery", found)
        self.system.check()
        return 0 if self.system.streams.query(found.last) else errors.NOT_READY

    def streamWaitEvent(self, stream: int, event: int, flags: int = 0) -> None:
        found, awaited = self.system.stream(stream), self.system.event(event)
        if awaited.work is not None:
            self.system.submit(found, None, "wait for an event", [awaited.work])

    def streamAddCallback(self, stream: int, callback: Callable[..., Any], arg: int,
                          flags: int = 0) -> None:
        self._submit(stream, lambda: callback(stream, 0, arg), "callback")

    def launchHostFunc(self, stream: int, callback: Callable[..., Any], arg: int) -> None:
        self._submit(stream, lambda: callback(arg), "host function")

    def _launchHostFuncUnmanaged(self, stream: int, func_arg: Any) -> None:
        callback, arg = func_arg
        self._submit(stream, lambda: callback(arg), "host function")

    def eventCreate(self) -> int:
        return self.eventCreateWithFlags(0)

    def eventCreateWithFlags(self, flags: int) -> int:
        self.system.check()
        return self.system.streams.create_event(self.system.current, flags).handle

    def eventDestroy(self, event: int) -> None:
        self.system.event(event)
        del self.system.streams.events[event]

    def eventRecord(self, event: int, stream: int) -> None:
        found = self.system.event(event)
        found.work = self._submit(stream, None, "event")

    def eventQuery(self, event: int) -> int:
        found = self.system.event(event)
        self.system.check()
        return 0 if self.system.streams.query(found.work) else errors.NOT_READY

    def eventSynchronize(self, event: int) -> None:
        found = self.system.event(event)
        self.system.check()
        self.system.finish(found.work)

    def eventElapsedTime(self, start: int, end: int) -> float:
        first, last = self.system.event(start), self.system.event(end)
        for event in (first, last):
            if event.flags & 2 or event.work is None:
                raise CudaError(errors.INVALID_HANDLE, "cudaEventElapsedTime: an event was never "
                                                       "recorded, or keeps no time")
            if not event.work.done:
                raise CudaError(errors.NOT_READY, "cudaEventElapsedTime: an event is not reached "
                                                  "yet; synchronize it first")
        return last.time - first.time

    # -- what they share --------------------------------------------------------------------------

    def _submit(self, stream: int, run: Callable[[], Any] | None, what: str,
                found: Stream | None = None) -> Work:
        return self.system.submit(found or self.system.stream(stream), run, what)

    def _not_capturing(self, what: str, stream: Stream | None = None) -> None:
        pass


def _hosted(block: Block | None) -> bool:
    return block is None or block.kind == HOST


def _copying(target: Array, to: Block | None, dst: int, source: Array,
             size: int) -> Callable[[], None]:
    def run() -> None:
        target[:] = source
        copy_marks(to, dst, size)
    return run
