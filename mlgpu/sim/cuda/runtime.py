"""The functions of the CUDA runtime, under the names of CuPy's binding to it.

Each takes and gives what the function of that name in `cupy.cuda.runtime` does (the CUDA Runtime
API reference says what it means), and raises CudaError, which binding.py turns into CuPy's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.capture_rules import RELAXED
from mlgpu.sim.cuda.clock import copy_time
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.memory import DEVICE, HOST, MANAGED, Block, copy_marks
from mlgpu.sim.cuda.mempools import MemPools, Pool
from mlgpu.sim.cuda.properties import properties
from mlgpu.sim.cuda.streams import DISABLE_TIMING, LEGACY, PER_THREAD, Ranges, Stream, Work
from mlgpu.sim.cuda.system import System, caller

Array = np.ndarray[Any, Any]
H2H, H2D, D2H, D2D, DEFAULT = range(5)  # cudaMemcpyKind
HOST_DEVICE = -1  # cudaCpuDeviceId
INVALID_DEVICE = -2  # cudaInvalidDeviceId


class Runtime:
    """The CUDA runtime of a simulated system."""

    def __init__(self, system: System, version: int, kinds: Any) -> None:
        self.system = system
        self.version = version
        self.kinds = kinds  # the binding's classes: PointerAttributes
        self.mempools = MemPools(len(system.devices))

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
        self.system.captures.check_device("cudaDeviceSynchronize", self.system.current)
        self.system.check()
        self.system.finish_device(self.system.current)
        self.mempools.synchronized()

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
        self.system.check()

    def profilerStart(self) -> None:
        pass

    def profilerStop(self) -> None:
        pass

    # -- memory -----------------------------------------------------------------------------------

    def malloc(self, size: int) -> int:
        self._unsafe("cudaMalloc")
        if not size:
            return 0
        return self.system.memory.allocate(self.system.current, size, caller())

    def mallocManaged(self, size: int, flags: int = 1) -> int:
        self._unsafe("cudaMallocManaged")
        return self.system.memory.allocate_host(self.system.current, size, caller(), MANAGED)

    def hostAlloc(self, size: int, flags: int) -> int:
        self._unsafe("cudaHostAlloc")
        return self.system.memory.allocate_host(self.system.current, size, caller())

    def hostRegister(self, address: int, size: int, flags: int) -> None:
        self._unsafe("cudaHostRegister")
        self.system.memory.register(self.system.current, address, size, caller())

    def hostUnregister(self, address: int) -> None:
        self._unsafe("cudaHostUnregister")
        self._finish_all()
        self.system.memory.unregister(address, caller())

    def free(self, address: int) -> None:
        """As CUDA's, it waits for the device."""
        if not address:
            return
        self.system.captures.check_unsafe("cudaFree")
        block = self.system.memory.find(address)
        if block is not None:
            self.system.streams.finish(self.system.streams.of_device(block.device))
        owned = self.system.graphs.memory.free(address)
        if owned is not None:
            owned.wipe()
            return
        block = self.system.memory.check_free(address, (DEVICE, MANAGED), "cudaFree")
        if block.pool is not None:
            block.pool.took(-block.region.size)
        self.system.memory.free_block(block, caller())

    def freeHost(self, address: int) -> None:
        if address:
            self.system.captures.check_unsafe("cudaFreeHost")
            self._finish_all()
            self.system.memory.free(address, (HOST,), caller(), "cudaFreeHost")

    def _finish_all(self) -> None:
        self.system.streams.finish(self.system.streams.all())

    def mallocAsync(self, size: int, stream: int) -> int:
        """The memory is there at once: that it is not before the stream comes to it is unseen."""
        self.system.check()
        found = self.system.stream(stream)
        if found.capture is not None:
            return self.system.graphs.memory.allocate(found, size, caller())
        self.system.captures.check_unsafe("cudaMallocAsync")
        return self._from_pool(self.mempools.current[found.device], found, size)

    def mallocFromPoolAsync(self, size: int, pool: int, stream: int) -> int:
        self.system.check()
        found, taken = self.system.stream(stream), self.mempools.find(pool)
        if found.capture is not None:
            return self.mallocAsync(size, stream)
        self.system.captures.check_unsafe("cudaMallocFromPoolAsync")
        return self._from_pool(taken, found, size)

    def _from_pool(self, pool: Pool, stream: Stream, size: int) -> int:
        if not size:
            return 0
        memory = self.system.memory
        try:
            address = memory.allocate(pool.device, size, caller())
        except CudaError:  # as the driver, it waits for what the stream is to free
            self.system.finish(*self.system.streams.tail(stream))
            address = memory.allocate(pool.device, size, caller())
        memory.blocks[address].pool = pool
        pool.took(size)
        # Other streams must come after this one to it.
        self.system.submit(stream, lambda: None, "allocation", writes=((address, size),))
        return address

    def freeAsync(self, address: int, stream: int) -> None:
        if not address:
            return
        where, memory, found = caller(), self.system.memory, self.system.stream(stream)
        if found.capture is not None:
            self.system.graphs.memory.free_captured(address, found, where)
            return
        owned = self.system.graphs.memory.free(address)
        if owned is not None:
            self._submit(stream, owned.wipe, "free", found, writes=((address, owned.size),))
            return
        block = memory.check_free(address, (DEVICE, MANAGED), "cudaFreeAsync")
        block.leaving = True
        if block.pool is not None:
            block.pool.took(-block.region.size)
        self._submit(stream, lambda: memory.free_block(block, where), "free", found,
                     writes=((address, block.region.size),))

    def memGetInfo(self) -> tuple[int, int]:
        self.system.check()
        device = self.system.device(self.system.current)
        return device.memory - device.space.used, device.memory

    def pointerGetAttributes(self, address: int) -> Any:
        block = self.system.memory.find(address)
        if block is None:
            return self.kinds.PointerAttributes(INVALID_DEVICE, 0, address, 0)
        host = 0 if block.kind == DEVICE else address
        return self.kinds.PointerAttributes(block.device, address, host, block.kind)

    def pointerGetMemoryType(self, address: int) -> int:
        block = self.system.memory.find(address)
        return 0 if block is None else block.kind

    def memPrefetchAsync(self, address: int, size: int, device: int, stream: int) -> None:
        self._managed("cudaMemPrefetchAsync", address, size, device)

    def memAdvise(self, address: int, size: int, advice: int, device: int) -> None:
        if not 1 <= advice <= 6:  # cudaMemoryAdvise
            raise CudaError(errors.INVALID_VALUE, f"cudaMemAdvise: there is no advice {advice}")
        self._managed("cudaMemAdvise", address, size, device)

    def _managed(self, what: str, address: int, size: int, device: int) -> None:
        # CUDA 13 names the host by a location's type, which CuPy's binding does not pass.
        if device != HOST_DEVICE or self.version >= 13000:
            self.system.device(device)
        block = self.system.memory.find(address, size)
        if block is None or block.kind != MANAGED:
            raise CudaError(errors.INVALID_VALUE, f"{what}: {address:#x} is no managed memory")

    # -- pools of cudaMallocAsync -----------------------------------------------------------------

    def deviceGetDefaultMemPool(self, device: int) -> int:
        self.system.device(device)
        return self.mempools.default[device].handle

    def deviceGetMemPool(self, device: int) -> int:
        self.system.device(device)
        return self.mempools.current[device].handle

    def deviceSetMemPool(self, device: int, pool: int) -> None:
        self.system.device(device)
        self.mempools.current[device] = self.mempools.find(pool)

    def memPoolCreate(self, props: Any) -> int:
        return self.mempools.create(self.system.current).handle

    def memPoolDestroy(self, pool: int) -> None:
        self.mempools.destroy(pool)

    def memPoolTrimTo(self, pool: int, size: int) -> None:
        self._unsafe("cudaMemPoolTrimTo")
        self.mempools.find(pool).trim(size)

    def memPoolGetAttribute(self, pool: int, attribute: int) -> int:
        self._unsafe("cudaMemPoolGetAttribute")
        return self.mempools.get(pool, attribute)

    def memPoolSetAttribute(self, pool: int, attribute: int, value: int) -> None:
        self._unsafe("cudaMemPoolSetAttribute")
        self.mempools.set(pool, attribute, value)

    # -- copies -----------------------------------------------------------------------------------

    def memcpy(self, dst: int, src: int, size: int, kind: int) -> None:
        self._copy(dst, src, size, kind, 0, wait=True)

    def memcpyAsync(self, dst: int, src: int, size: int, kind: int, stream: int) -> None:
        self._copy(dst, src, size, kind, stream, wait=False)

    def memcpyPeer(self, dst: int, dst_device: int, src: int, src_device: int, size: int) -> None:
        """In turn with all work of the devices concerned, whatever its streams."""
        for device in {self.system.current, dst_device, src_device}:
            self.system.device(device)
            self.system.finish_device(device)
        self._copy(dst, src, size, D2D, 0, wait=True)
        self.system.finish(self.system.stream(0).last)

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
        # As "API synchronization behavior" of the CUDA Runtime API reference has it: a copy from
        # memory of the program's own that is not pinned has left that memory when the call
        # returns, but need not have come; a copy to such memory has come.
        hosted = _hosted(of), _hosted(to)
        staged = of is None and not hosted[1]
        if staged and wait:
            self.system.finish(*self.system.streams.tail(found))
        if staged:
            source = source.copy()
        name = {(True, True): "copy on the host", (True, False): "copy to the device",
                (False, True): "copy to the host"}.get(hosted, "copy")
        run = _copying(target, to, dst, source, of, src, size)
        if of is not None and of.kind == HOST and not hosted[1] and (
                self.system.streams.watch is not None):
            run = self._watched(of, src, source, run)
        if found.capture is not None:
            if of is None or to is None:
                self.system.captures.refuse("cudaMemcpyAsync", "a graph would read or write this "
                                            "memory of the program's at every launch, whatever it "
                                            "is then; copy from or to pinned memory, and keep it",
                                            found)
            run = self.system.graphs.copying(found.device, dst, src, size)
        run = self._taking(copy_time(size, hosted), run)
        # "Peer-to-peer memory copy" of the CUDA C++ Programming Guide: in the default stream, it
        # comes after all that was asked of either device before, and before all later.
        devices = {b.device for b in (of, to) if b is not None and b.kind == DEVICE}
        between = len(devices) == 2 and found.handle == 0
        streams = self.system.streams
        work = self._submit(stream, run, name, found, ((src, size),), ((dst, size),),
                            [w for d in devices for w in streams.of_device(d)] if between else ())
        if between and work is not None:
            streams.barriers.update(dict.fromkeys(devices, work))
        if (wait and any(hosted) and not staged) or to is None or all(hosted):
            self.system.finish(work)

    def _watched(self, block: Block, address: int, source: Array,
                 run: Callable[[], None]) -> Callable[[], None]:
        """A copy from pinned memory, which notices if the program has changed that before."""
        hazards = self.system.hazards
        before, state = zlib.crc32(source.data), hazards.pinned(block.region)

        def watched() -> None:
            if hazards.pinned(block.region) == state and zlib.crc32(source.data) != before:
                hazards.changed(block.region, address)
            run()
        return watched

    def _taking(self, milliseconds: float, run: Callable[[], None]) -> Callable[[], None]:
        """Work that takes time on the simulated clock."""
        def taking() -> None:
            self.system.streams.spend(milliseconds)
            run()
        return taking

    def memset(self, address: int, value: int, size: int) -> None:
        """Only one of pinned memory waits."""
        self.memsetAsync(address, value, size, 0)
        block = self.system.memory.find(address)
        if block is not None and block.kind == HOST:
            self.system.finish(self.system.stream(0).last)

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

        found = self.system.stream(stream)
        again = self.system.graphs.filling(found.device, address, value, size)
        run = self._taking(copy_time(size, (False, False)), run if found.capture is None else again)
        self._submit(stream, run, "memset", found, writes=((address, size),))

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
        return self.system.captures.state(self.system.stream(stream))

    def streamBeginCapture(self, stream: int, mode: int = RELAXED) -> None:
        self.system.check()
        self.system.captures.begin(self.system.stream(stream), mode)

    def streamEndCapture(self, stream: int) -> int:
        self.system.notice()
        return self.system.graphs.add(self.system.captures.end(self.system.stream(stream)))

    def streamGetFlags(self, stream: int) -> int:
        return self.system.stream(stream).flags

    def streamGetPriority(self, stream: int) -> int:
        return self.system.stream(stream).priority

    def streamDestroy(self, stream: int) -> None:
        """Work that it has still comes to be done."""
        if stream in (0, LEGACY, PER_THREAD):
            raise CudaError(errors.INVALID_HANDLE, "the default stream cannot be destroyed")
        self.system.captures.destroyed(self.system.stream(stream))
        self.system.streams.destroy(stream)

    def streamSynchronize(self, stream: int) -> None:
        found = self.system.stream(stream)
        self.system.captures.check_wait("cudaStreamSynchronize", found)
        self.system.check()
        self.system.finish(*self.system.streams.tail(found))
        self.mempools.synchronized()

    def streamQuery(self, stream: int) -> int:
        found = self.system.stream(stream)
        forbidden = _status(self.system.captures.check_wait, "cudaStreamQuery", found)
        if forbidden:
            return forbidden
        self.system.check()
        return self._query(self.system.streams.tail(found))

    def streamWaitEvent(self, stream: int, event: int, flags: int = 0) -> None:
        found, awaited = self.system.stream(stream), self.system.event(event)
        captured = self.system.captures.wait(found, awaited, flags, caller())
        if not captured and awaited.work is not None:
            self.system.submit(found, None, "wait for an event", [awaited.work])

    def streamAddCallback(self, stream: int, callback: Callable[..., Any], arg: int,
                          flags: int = 0) -> None:
        found = self.system.stream(stream)
        if found.capture is not None:
            self.system.captures.refuse("cudaStreamAddCallback", "a graph takes no such callback; "
                                        "use launch_host_func", found)
        self._call(stream, lambda: callback(stream, 0, arg), "callback")

    def launchHostFunc(self, stream: int, callback: Callable[..., Any], arg: int) -> None:
        self._call(stream, lambda: callback(arg), "host function")

    def _launchHostFuncUnmanaged(self, stream: int, func_arg: Any) -> None:
        callback, arg = func_arg
        self._call(stream, lambda: callback(arg), "host function")

    def _call(self, stream: int, callback: Callable[[], Any], what: str) -> None:
        """Have a stream call the program; whichever thread waits for that runs it."""
        def run() -> None:
            self.system.hazards.host_functions += 1
            self.system.in_host_function = True
            try:
                callback()
            finally:
                self.system.in_host_function = False

        self._submit(stream, run, what)

    def eventCreate(self) -> int:
        return self.eventCreateWithFlags(0)

    def eventCreateWithFlags(self, flags: int) -> int:
        self.system.check()
        return self.system.streams.create_event(self.system.current, flags).handle

    def eventDestroy(self, event: int) -> None:
        self.system.event(event)
        del self.system.streams.events[event]

    def eventRecord(self, event: int, stream: int) -> None:
        found, recorded = self.system.event(event), self.system.stream(stream)
        if found.device != recorded.device:
            raise CudaError(errors.INVALID_HANDLE, f"cudaEventRecord: {recorded} cannot record an "
                                                   f"event of device {found.device}")
        if not self.system.captures.record(found, recorded):
            found.work = self._submit(stream, None, "event", recorded)

    def eventQuery(self, event: int) -> int:
        found = self.system.event(event)
        forbidden = _status(self.system.captures.check_event, "cudaEventQuery", found)
        if forbidden:
            return forbidden
        self.system.check()
        return self._query([] if found.work is None else [found.work])

    def eventSynchronize(self, event: int) -> None:
        found = self.system.event(event)
        self.system.captures.check_event("cudaEventSynchronize", found)
        self.system.check()
        self.system.finish(found.work)
        self.mempools.synchronized()

    def eventElapsedTime(self, start: int, end: int) -> float:
        first, last = self.system.event(start), self.system.event(end)
        ends: list[float] = []
        for event in (first, last):
            self.system.captures.check_time("cudaEventElapsedTime", event)
            if event.flags & DISABLE_TIMING or event.work is None:
                raise CudaError(errors.INVALID_HANDLE, "cudaEventElapsedTime: an event was never "
                                                       "recorded, or keeps no time")
            if not event.work.done:
                raise CudaError(errors.NOT_READY, "cudaEventElapsedTime: an event is not reached "
                                                  "yet; synchronize it first")
            ends.append(event.work.end)
        return ends[1] - ends[0]

    # -- graphs -----------------------------------------------------------------------------------

    def graphInstantiate(self, graph: int) -> int:
        return self.system.graphs.instantiate(graph)

    def graphLaunch(self, graph: int, stream: int) -> None:
        self.system.check()
        self.system.graphs.launch(graph, self._launching("cudaGraphLaunch", stream), caller())

    def graphUpload(self, graph: int, stream: int) -> None:
        self.system.graphs.executable(graph)
        self._submit(stream, None, "a graph's upload", self._launching("cudaGraphUpload", stream))

    def graphDestroy(self, graph: int) -> None:
        self.system.graphs.destroy(graph)

    def graphExecDestroy(self, graph: int) -> None:
        self.system.graphs.destroy_executable(graph)

    def graphDebugDotPrint(self, graph: int, path: str, flags: int) -> None:
        self.system.graphs.write(graph, path, flags)

    def _launching(self, what: str, stream: int) -> Stream:
        found = self.system.stream(stream)
        if found.capture is not None:
            self.system.captures.refuse(what, "a graph takes no other graph's launch", found)
        return found

    # -- what they share --------------------------------------------------------------------------

    def _submit(self, stream: int, run: Callable[[], Any] | None, what: str,
                found: Stream | None = None, reads: Ranges = (), writes: Ranges = (),
                needs: Iterable[Work] = ()) -> Work | None:
        return self.system.submit(found or self.system.stream(stream), run, what, needs, reads,
                                  writes)

    def _query(self, works: list[Work]) -> int:
        done = self.system.streams.query(works)
        self.system.check()
        return 0 if done else errors.NOT_READY

    def _unsafe(self, what: str) -> None:
        self.system.check()
        self.system.captures.check_unsafe(what)


def _status(check: Callable[..., None], *args: Any) -> int:
    """What a check says as a status, which is how CuPy's binding has it of a query."""
    try:
        check(*args)
    except CudaError as error:
        return error.status
    return 0


def _hosted(block: Block | None) -> bool:
    return block is None or block.kind == HOST


def _copying(target: Array, to: Block | None, dst: int, source: Array, of: Block | None, src: int,
             size: int) -> Callable[[], None]:
    def run() -> None:
        target[:] = source
        copy_marks(to, dst, size, of, src)
    return run
