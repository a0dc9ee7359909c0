"""cuFFT in NumPy: CuPy's module of it, `cupy.cuda.cufft`, with its plans."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.libraries.modules import StatusError
from mlgpu.sim.cuda.libraries.operands import Operands, current_stream, submit
from mlgpu.sim.cuda.system import System

Array = np.ndarray[Any, Any]

C2C, R2C, C2R, Z2Z, D2Z, Z2D = 0x29, 0x2A, 0x2C, 0x69, 0x6A, 0x6C
CONSTANTS = {"CUFFT_C2C": C2C, "CUFFT_R2C": R2C, "CUFFT_C2R": C2R, "CUFFT_Z2Z": Z2Z,
             "CUFFT_D2Z": D2Z, "CUFFT_Z2D": Z2D, "CUFFT_FORWARD": -1, "CUFFT_INVERSE": 1,
             "CUFFT_CB_LD_COMPLEX": 0, "CUFFT_CB_LD_COMPLEX_DOUBLE": 1, "CUFFT_CB_LD_REAL": 2,
             "CUFFT_CB_LD_REAL_DOUBLE": 3, "CUFFT_CB_ST_COMPLEX": 4,
             "CUFFT_CB_ST_COMPLEX_DOUBLE": 5, "CUFFT_CB_ST_REAL": 6, "CUFFT_CB_ST_REAL_DOUBLE": 7}
# The elements that go in and come out.
TYPES = {C2C: ("c8", "c8"), R2C: ("f4", "c8"), C2R: ("c8", "f4"), Z2Z: ("c16", "c16"),
         D2Z: ("f8", "c16"), Z2D: ("c16", "f8")}
NAMES = {C2C: "C2C", R2C: "R2C", C2R: "C2R", Z2Z: "Z2Z", D2Z: "D2Z", Z2D: "Z2D"}


class CuFFTError(StatusError):
    """An error of cuFFT."""

    names: ClassVar = {1: "CUFFT_INVALID_PLAN", 2: "CUFFT_ALLOC_FAILED", 3: "CUFFT_INVALID_TYPE",
             4: "CUFFT_INVALID_VALUE", 5: "CUFFT_INTERNAL_ERROR", 6: "CUFFT_EXEC_FAILED",
             7: "CUFFT_SETUP_FAILED", 8: "CUFFT_INVALID_SIZE", 16: "CUFFT_NOT_SUPPORTED"}
    failed = 6

    @property
    def result(self) -> int:
        """The status, under CuPy's name for it."""
        return self.status


class Transform:
    """A transform of equal arrays, each of `shape` elements on its real or longer side."""

    def __init__(self, shape: Sequence[int], kind: int, batch: int) -> None:
        if kind not in TYPES:
            raise CuFFTError(3, f"there is no type {kind:#x} of transforms")
        self.shape, self.kind, self.batch = tuple(int(n) for n in shape), kind, batch
        if batch and min(self.shape) < 1:
            raise CuFFTError(8, f"a transform of {self.shape} elements")
        half = (*self.shape[:-1], self.shape[-1] // 2 + 1)
        self.inputs = half if kind in (C2R, Z2D) else self.shape
        self.outputs = half if kind in (R2C, D2Z) else self.shape
        self.layouts = [(self._embedded(shape, None), step, int(np.prod(shape)))
                        for shape, step in ((self.inputs, 1), (self.outputs, 1))]

    def place(self, side: int, embed: Sequence[int] | None, stride: int, distance: int) -> None:
        """The advanced data layout of the input (side 0) or the output (1)."""
        if embed is not None:
            shape = self.outputs if side else self.inputs
            self.layouts[side] = (self._embedded(shape, embed), stride, distance)

    @staticmethod
    def _embedded(shape: Sequence[int], embed: Sequence[int] | None) -> list[int]:
        """The steps between elements, in elements."""
        sizes, steps = shape if embed is None else embed, [1]
        for n in reversed(list(sizes)[1:]):
            steps.insert(0, steps[0] * int(n))
        return steps

    def run(self, operands: Operands, source: int, target: int, direction: int) -> None:
        """Compute it; the results are not scaled."""
        views = []
        for name, side, address, shape in (("the input", 0, source, self.inputs),
                                           ("the output", 1, target, self.outputs)):
            dtype = np.dtype(TYPES[self.kind][side])
            steps, stride, distance = self.layouts[side]
            views.append(operands.array(
                name, address, dtype, (self.batch, *shape),
                [n * dtype.itemsize for n in (distance, *(stride * s for s in steps))]))
        given, axes = views[0].read(), tuple(range(1, 1 + len(self.shape)))
        result: Array
        if self.kind in (R2C, D2Z):
            result = np.fft.rfftn(given, axes=axes)
        elif self.kind in (C2R, Z2D):
            result = np.fft.irfftn(given, self.shape, axes, "forward")
        elif direction < 0:
            result = np.fft.fftn(given, axes=axes)
        else:
            result = np.fft.ifftn(given, axes=axes, norm="forward")
        views[1].write(result)


def contents(system: System, version: int) -> dict[str, Any]:
    """The names of the module."""
    threads = threading.local()

    class Plan:
        """What plans have in common."""

        gpus = None
        handle = 0

        def __init__(self, transform: Transform) -> None:
            import cupy

            self._transform = transform
            self.fft_type = transform.kind
            self.work_area = cupy.cuda.alloc(0)  # NumPy needs none

        def __enter__(self) -> Any:
            threads.plan = self
            return self

        def __exit__(self, *exception: object) -> None:
            threads.plan = None

        def fft(self, a: Any, out: Any, direction: int) -> None:
            """Transform an array on CuPy's current stream."""
            source, target, transform = a.data.ptr, out.data.ptr, self._transform
            call = f"cufftExec{NAMES[transform.kind]}"
            with system.lock:
                try:
                    submit(system, current_stream(system), call,
                           lambda o: transform.run(o, source, target, direction))
                except CudaError as error:
                    raise CuFFTError(CuFFTError.failed, error.text) from error

        def _output(self, a: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
            raise NotImplementedError

        def get_output_array(self, a: Any, order: str = "C") -> Any:
            """An array for the results."""
            import cupy

            shape, dtype = self._output(a)
            return cupy.empty(shape, dtype, order=order)

        def check_output_array(self, a: Any, out: Any) -> None:
            """ValueError where the results do not fit into an array."""
            shape, dtype = self._output(a)
            if out.shape != shape or out.dtype != dtype:
                raise ValueError(f"out must have shape {shape} and dtype {dtype}, not "
                                 f"{out.shape} and {out.dtype}")

    class Plan1d(Plan):
        """Transforms of one axis, the last."""

        def __init__(self, nx: int, fft_type: int, batch: int, *, devices: Any = None,
                     out: Any = None, prealloc_plan: int = 0) -> None:
            _plain("Plan1d", devices, prealloc_plan)
            super().__init__(Transform((nx,), fft_type, batch))
            self.nx, self.batch = nx, batch

        def _output(self, a: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
            last = {R2C: a.shape[-1] // 2 + 1, D2Z: a.shape[-1] // 2 + 1, C2R: self.nx,
                    Z2D: self.nx}.get(self.fft_type, a.shape[-1])
            return (*a.shape[:-1], last), np.dtype(TYPES[self.fft_type][1])

    class PlanNd(Plan):
        """Transforms of up to three axes."""

        def __init__(self, shape: Sequence[int], inembed: Sequence[int] | None, istride: int,
                     idist: int, onembed: Sequence[int] | None, ostride: int, odist: int,
                     fft_type: int, batch: int, order: str, last_axis: int,
                     last_size: int | None, *, prealloc_plan: int = 0) -> None:
            _plain("PlanNd", None, prealloc_plan)
            transform = Transform(shape, fft_type, batch)
            transform.place(0, inembed, istride, idist)
            transform.place(1, onembed, ostride, odist)
            super().__init__(transform)
            self.shape, self.order = tuple(shape), order
            self.last_axis, self.last_size = last_axis, last_size

        def _output(self, a: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
            shape = list(a.shape)
            if self.fft_type not in (C2C, Z2Z) and self.last_size is not None:
                shape[self.last_axis] = self.last_size
            return tuple(shape), np.dtype(TYPES[self.fft_type][1])

        def check_output_array(self, a: Any, out: Any) -> None:
            """ValueError where the results do not fit into an array."""
            if out is a:
                return
            super().check_output_array(a, out)
            if (out.flags.c_contiguous, out.flags.f_contiguous) != (
                    a.flags.c_contiguous, a.flags.f_contiguous):
                raise ValueError("output contiguity mismatch")

    class XtPlanNd:
        """Not simulated."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise NotImplementedError("XtPlanNd: transforms of float16 and of more than one GPU "
                                      "are not simulated; use Plan1d, PlanNd or cupy.fft")

    def get_current_plan() -> Plan | None:
        """The plan whose `with` block the thread is in."""
        return getattr(threads, "plan", None)

    def getVersion() -> int:
        """The version of cuFFT that the CUDA version brings."""
        return 12000 if version >= 13000 else 11400

    return CONSTANTS | {
        "CuFFTError": CuFFTError, "Plan1d": Plan1d, "PlanNd": PlanNd, "XtPlanNd": XtPlanNd,
        "get_current_plan": get_current_plan, "getVersion": getVersion} | {
        name: _refusal(name) for name in ("setCallback", "setJITCallback", "create",
                                          "setAutoAllocation", "XtExec", "multi_gpu_execC2C",
                                          "multi_gpu_execZ2Z")}


def _plain(what: str, devices: Any, prealloc: int) -> None:
    if devices is not None or prealloc:
        raise NotImplementedError(f"{what}: transforms on several GPUs and plans with callbacks "
                                  "are not simulated; leave cupy.fft.config.set_cufft_gpus and "
                                  "set_cufft_callbacks out")


def _refusal(name: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"cufft.{name} is not simulated (callbacks are machine code for "
                                  "a real GPU); use cupy.fft, or Plan1d and PlanNd without them")
    refuse.__name__ = name
    return refuse
