"""The functions of CuPy's bindings to CUDA that are redirected, as version 14 declares them.

A function's C signature, which Cython writes into its capsule's name, follows from its line here:
`cpdef` functions have one more argument, and structs carry mangled names.  The number is what the
function returns where it fails (Cython's `except`), which no capsule tells.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_RUNTIME = """\
 0 uintmax_t createSurfaceObject(intptr_t)
 0 uintmax_t createTextureObject(intptr_t, intptr_t)
-1 object destroySurfaceObject(uintmax_t)
-1 object destroyTextureObject(uintmax_t)
-1 int deviceCanAccessPeer(int, int)
-1 object deviceEnablePeerAccess(int)
-1 object _deviceEnsurePeerAccess(int)
-1 int deviceGetAttribute(int, int)
-1 int deviceGetByPCIBusId(object)
 0 intptr_t deviceGetDefaultMemPool(int)
-1 size_t deviceGetLimit(int)
 0 intptr_t deviceGetMemPool(int)
-1 object deviceGetPCIBusId(int)
-1 object deviceSetLimit(int, size_t)
-1 object deviceSetMemPool(int, intptr_t)
-1 object deviceSynchronize()
-1 int driverGetVersion()
-1 cdef object _ensure_context()
 0 intptr_t eventCreate()
 0 intptr_t eventCreateWithFlags(unsigned)
-1 object eventDestroy(intptr_t)
 0 float eventElapsedTime(intptr_t, intptr_t)
-1 object eventQuery(intptr_t)
-1 object eventRecord(intptr_t, intptr_t)
-1 object eventSynchronize(intptr_t)
-1 object free(intptr_t)
-1 object freeArray(intptr_t)
-1 object freeAsync(intptr_t, intptr_t)
-1 object freeHost(intptr_t)
-1 int _getCUDAMajorVersion()
-1 int getDevice()
-1 int getDeviceCount()
-1 object getDeviceProperties(int)
-1 object graphDebugDotPrint(intptr_t, object, unsigned)
-1 object graphDestroy(intptr_t)
-1 object graphExecDestroy(intptr_t)
 0 intptr_t graphInstantiate(intptr_t)
-1 object graphLaunch(intptr_t, intptr_t)
-1 object graphUpload(intptr_t, intptr_t)
 0 intptr_t hostAlloc(size_t, unsigned)
-1 object hostRegister(intptr_t, size_t, unsigned)
-1 object hostUnregister(intptr_t)
-1 object launchHostFunc(intptr_t, object, intptr_t)
-1 object _launchHostFuncUnmanaged(intptr_t, object)
 0 intptr_t malloc(size_t)
 0 intptr_t malloc3DArray(intptr_t, size_t, size_t, size_t, ...)
 0 intptr_t mallocArray(intptr_t, size_t, size_t, ...)
 0 intptr_t mallocAsync(size_t, intptr_t)
 0 intptr_t mallocFromPoolAsync(size_t, intptr_t, intptr_t)
 0 intptr_t mallocManaged(size_t, ...)
-1 object memAdvise(intptr_t, size_t, int, int)
-1 object memcpy(intptr_t, intptr_t, size_t, int)
-1 object memcpy2D(intptr_t, size_t, intptr_t, size_t, size_t, size_t, cudaMemcpyKind)
-1 object memcpy2DAsync(intptr_t, size_t, intptr_t, size_t, size_t, size_t, cudaMemcpyKind,
      intptr_t)
-1 object memcpy2DFromArray(intptr_t, size_t, intptr_t, size_t, size_t, size_t, size_t, int)
-1 object memcpy2DFromArrayAsync(intptr_t, size_t, intptr_t, size_t, size_t, size_t, size_t,
      int, intptr_t)
-1 object memcpy2DToArray(intptr_t, size_t, size_t, intptr_t, size_t, size_t, size_t, int)
-1 object memcpy2DToArrayAsync(intptr_t, size_t, size_t, intptr_t, size_t, size_t, size_t, int,
      intptr_t)
-1 object memcpy3D(intptr_t)
-1 object memcpy3DAsync(intptr_t, intptr_t)
-1 object memcpyAsync(intptr_t, intptr_t, size_t, int, intptr_t)
-1 object memcpyPeer(intptr_t, int, intptr_t, int, size_t)
-1 object memcpyPeerAsync(intptr_t, int, intptr_t, int, size_t, intptr_t)
-1 object memGetInfo()
 0 intptr_t memPoolCreate(MemPoolProps)
-1 object memPoolDestroy(intptr_t)
-1 object memPoolGetAttribute(intptr_t, int)
-1 object memPoolSetAttribute(intptr_t, int, object)
-1 object memPoolTrimTo(intptr_t, size_t)
-1 object memPrefetchAsync(intptr_t, size_t, int, intptr_t)
-1 object memset(intptr_t, int, size_t)
-1 object memsetAsync(intptr_t, int, size_t, intptr_t)
-1 PointerAttributes pointerGetAttributes(intptr_t)
-1 int pointerGetMemoryType(intptr_t)
-1 object profilerStart()
-1 object profilerStop()
-1 int runtimeGetVersion()
-1 object setDevice(int)
-1 object streamAddCallback(intptr_t, object, intptr_t, ...)
-1 object streamBeginCapture(intptr_t, ...)
 0 intptr_t streamCreate()
 0 intptr_t streamCreateWithFlags(unsigned)
 0 intptr_t streamCreateWithPriority(unsigned, int)
-1 object streamDestroy(intptr_t)
 0 intptr_t streamEndCapture(intptr_t)
 0 unsigned streamGetFlags(intptr_t)
 0 int streamGetPriority(intptr_t)
-1 int streamIsCapturing(intptr_t)
-1 object streamQuery(intptr_t)
-1 object streamSynchronize(intptr_t)
-1 object streamWaitEvent(intptr_t, intptr_t, ...)
"""

_DRIVER = """\
 0 intptr_t ctxCreate(CUdevice)
-1 object ctxDestroy(intptr_t)
 0 intptr_t ctxGetCurrent()
-1 int ctxGetDevice()
-1 object ctxSetCurrent(intptr_t)
-1 object devicePrimaryCtxRelease(CUdevice)
-2 int funcGetAttribute(int, intptr_t)
-1 object funcSetAttribute(intptr_t, int, int)
-1 object get_build_version()
-1 object launchCooperativeKernel(intptr_t, unsigned, unsigned, unsigned, unsigned, unsigned,
      unsigned, unsigned, intptr_t, intptr_t)
-1 object launchKernel(intptr_t, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
      unsigned, intptr_t, intptr_t, intptr_t)
-1 object linkAddData(intptr_t, int, object, object)
-1 object linkAddFile(intptr_t, int, object)
-1 object linkComplete(intptr_t)
 0 intptr_t linkCreate()
-1 object linkDestroy(intptr_t)
 0 intptr_t moduleGetFunction(intptr_t, object)
 0 intptr_t moduleGetGlobal(intptr_t, object)
 0 intptr_t moduleLoad(object)
 0 intptr_t moduleLoadData(object)
-1 object moduleUnload(intptr_t)
-1 int occupancyMaxActiveBlocksPerMultiprocessor(intptr_t, int, size_t)
-1 object occupancyMaxPotentialBlockSize(intptr_t, size_t, int)
 0 intptr_t streamGetCtx(intptr_t)
"""


class Signature(NamedTuple):
    """A function of a binding."""

    capsule: str  # the C signature, as its capsule is named
    error: int


def _read(text: str, mangled: str) -> dict[str, Signature]:
    found = {}
    for error, cdef, result, name, args in _LINE.findall(re.sub(r"\n {6}", " ", text)):
        types = [_full(kind, mangled) for kind in args.split(", ") if kind not in ("", "...")]
        if not cdef:
            types.append("int __pyx_skip_dispatch")
        if args.endswith("..."):
            types.append(f"struct __pyx_opt_args_{mangled}_{name} *__pyx_optional_args")
        kind = _full(result, mangled)
        space = "" if kind.endswith("*") else " "
        found[name] = Signature(f"{kind}{space}({', '.join(types) or 'void'})", int(error))
    return found


def _full(kind: str, mangled: str) -> str:
    if kind in ("PointerAttributes", "MemPoolProps"):
        return f"struct __pyx_obj_{mangled}_{kind} *"
    return {"object": "PyObject *", "unsigned": "unsigned int"}.get(kind, kind)


_LINE = re.compile(r"^ ?(-?\d) (cdef )?(\w+) (\w+)\((.*)\)$", re.MULTILINE)
RUNTIME = _read(_RUNTIME, "13cupy_backends_4cuda_3api_7runtime")
DRIVER = _read(_DRIVER, "13cupy_backends_4cuda_3api_6driver")
