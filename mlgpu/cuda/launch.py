"""Kernels: compiled when first used, loaded as CuPy RawKernels, launched with checked arguments.

    launch("softmax", f"softmax_forward<{ctype(x.dtype)}, 4>", rows, 128, (y, x, rows, n))

compiles and launches that instance of a template in kernels/softmax.cu on the current device and
stream.  What the kernel takes is read from its declaration (signature.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import numpy as np

from mlgpu.cuda.signature import Parameter, parameters, with_includes
from mlgpu.cuda.sources import kernels_dir
from mlgpu.errors import DeviceError, DTypeError, KernelError, ShapeError

Size = int | tuple[int, ...]
_UNASKED = 48 << 10  # bytes of shared memory, static and dynamic, that need no asking


class Strided:
    """An array whose kernel takes strides: only its address counts."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array


class Kernel:
    """One instance of a kernel, on every device where it was launched."""

    def __init__(self, source: str, expression: str, filename: str, declared: str | None = None,
                 options: tuple[str, ...] = ()) -> None:
        self.source, self.expression, self.filename = source, expression, filename
        self.options = options
        self.parameters = parameters(declared or source, expression)
        self._converters = [_converter(expression, p) for p in self.parameters]
        self.device = _device_function()
        self._loaded: dict[int, Any] = {}  # CuPy's kernels by device
        self._shared: dict[int, int] = {}  # the dynamic shared memory it may have by device

    def __call__(self, grid: Size, block: Size, arguments: Sequence[Any], shared: int = 0) -> None:
        """Launch on the current device and stream.

        A grid with a zero launches nothing.  Raises KernelError for a wrong number of arguments,
        DTypeError, ShapeError or DeviceError for a wrong one.
        """
        grid = (grid,) if isinstance(grid, int) else grid
        if 0 in grid:
            return
        if len(arguments) != len(self._converters):
            named = ", ".join(p.name for p in self.parameters)
            raise KernelError(f"{self.expression}: takes {len(self.parameters)} arguments "
                              f"({named}), got {len(arguments)}")
        device = self.device()
        given = [convert(value, device)
                 for convert, value in zip(self._converters, arguments, strict=True)]
        self.start(grid, (block,) if isinstance(block, int) else block, given, shared)

    def converted(self, last: Sequence[Any]) -> list[Any]:
        """Its last arguments, checked and ready for `start`, which may be given them often."""
        return [convert(value, -1) for convert, value in zip(
            self._converters[len(self._converters) - len(last):], last, strict=True)]

    def start(self, grid: tuple[int, ...], block: tuple[int, ...], given: Sequence[Any],
              shared: int = 0) -> None:
        """Launch with arguments that need no conversion and no check."""
        device = self.device()
        kernel = self._loaded.get(device) or self._load(device)
        if shared > self._shared[device]:
            kernel.max_dynamic_shared_size_bytes = shared
            self._shared[device] = shared
        kernel(grid, block, given, shared_mem=shared)
        if _notes:
            _note(self, grid, block, given, shared)

    @property
    def plain(self) -> bool:
        """Whether its symbol is its name."""
        return "<" not in self.expression and 'extern "C"' in self.source

    def _load(self, device: int) -> Any:
        from mlgpu.cuda.arrays import cupy
        from mlgpu.cuda.compile import compile  # which takes long to import

        arch, kind = target(device)
        names = () if self.plain else (self.expression,)
        image = compile(self.source, arch, names, self.options, kind, self.filename)
        entry = image.lowered[self.expression] if names else self.expression
        kernel = cupy.RawModule(path=str(image.path)).get_function(entry)
        self._loaded[device] = kernel
        self._shared[device] = _UNASKED - kernel.shared_size_bytes
        return kernel


Launch = tuple[Kernel, tuple[int, ...], tuple[int, ...], Sequence[Any], int]  # as `start` takes it
_notes: dict[int, list[Launch]] = {}  # what threads note, by their identity


def _note(*launch: Any) -> None:
    notes = _notes.get(get_ident())
    if notes is not None:
        notes.append(launch)


@contextmanager
def noted() -> Iterator[list[Launch]]:
    """A list of what this thread launches meanwhile; its arguments live as long as the list."""
    launches: list[Launch] = []
    _notes[get_ident()] = launches
    try:
        yield launches
    finally:
        del _notes[get_ident()]


@functools.cache
def target(device: int) -> tuple[str, str]:
    """The architecture to compile for, and the kind of image the device takes."""
    from mlgpu.cuda.arrays import cupy
    from mlgpu.cuda.environment import wanted

    capability = cupy.cuda.Device(device).compute_capability
    return f"sm_{capability}", "ptx" if wanted() or _simulated() else "cubin"


def _simulated() -> bool:
    import sys

    install = sys.modules.get("mlgpu.sim.cuda.install")
    return install is not None and install.installed() is not None


@functools.cache
def _device_function() -> Callable[[], int]:
    from mlgpu.cuda.arrays import cupy

    return cupy.cuda.runtime.getDevice  # type: ignore[no-any-return]


def _device() -> int:
    return _device_function()()


_kernels: dict[tuple[str, str], Kernel] = {}


def launch(family: str, expression: str, grid: Size, block: Size, arguments: Sequence[Any],
           shared: int = 0) -> None:
    """Launch an instance of one of mlgpu's kernels; see `Kernel.__call__`."""
    _instance(family, expression)(grid, block, arguments, shared)


def _instance(family: str, expression: str) -> Kernel:
    kernel = _kernels.get((family, expression))
    if kernel is None:
        path = kernels_dir() / f"{family}.cu"
        if not path.is_file():
            raise KernelError(f"{expression}: there is no {path}")
        kernel = Kernel(path.read_text(), expression, path.name, with_includes(path))
        _kernels[family, expression] = kernel
    return kernel


def prepare(family: str, expression: str, grid: Size, block: Size, rest: Sequence[Any],
            shared: int = 0, strided: Collection[int] = ()) -> Prepared:
    """A launch as `launch` makes it, but for the arrays, which come before `rest`.

    Those whose places are in `strided` may have any strides.
    """
    return Prepared(_instance(family, expression), grid, block, rest, shared, strided)


class Prepared:
    """A launch of which all is decided but its arrays."""

    __slots__ = ("_converters", "block", "grid", "kernel", "rest", "shared")

    def __init__(self, kernel: Kernel, grid: Size, block: Size, rest: Sequence[Any],
                 shared: int = 0, strided: Collection[int] = ()) -> None:
        self.kernel, self.shared = kernel, shared
        self.grid = (grid,) if isinstance(grid, int) else grid
        self.block = (block,) if isinstance(block, int) else block
        self.rest = kernel.converted(rest)
        arrays = kernel.parameters[:len(kernel.parameters) - len(rest)]
        self._converters = [_converter(kernel.expression, parameter, place in strided)
                            for place, parameter in enumerate(arrays)]

    def __call__(self, *arrays: Any) -> None:
        """Launch, with errors for wrong arrays as `Kernel.__call__` has them."""
        device = self.kernel.device()
        given = [convert(value, device)
                 for convert, value in zip(self._converters, arrays, strict=True)]
        self.kernel.start(self.grid, self.block, given + self.rest, self.shared)

    def start(self, *arrays: Any) -> None:
        """Launch with arrays that need no check."""
        self.kernel.start(self.grid, self.block, [*arrays, *self.rest], self.shared)


# --- arguments ------------------------------------------------------------------------------------


def _converter(expression: str, parameter: Parameter, strided: bool = False
               ) -> Callable[[Any, int], Any]:
    """What turns an argument into what CuPy passes on, or raises."""
    where = f"{expression}: {parameter.name}"
    if parameter.pointer:
        return _pointer(where, parameter, strided)
    dtype = parameter.dtype
    if dtype is None:
        return _struct(where, parameter)
    if dtype.kind in "iu":
        return _integer(where, dtype)
    if dtype == np.float64:
        return lambda value, device: float(value)
    if dtype.kind == "b":
        return lambda value, device: bool(value)
    return lambda value, device: dtype.type(value)


def _pointer(where: str, parameter: Parameter, strided: bool) -> Callable[[Any, int], Any]:
    from mlgpu.cuda.loading import load

    cupy = load()
    ndarray, address = cupy.ndarray, cupy.cuda.MemoryPointer
    dtype = parameter.dtype

    def convert(value: Any, device: int) -> Any:
        if type(value) is ndarray:
            if not (strided or value._c_contiguous):  # `flags` would make an object
                raise ShapeError(f"{where} must be contiguous, got shape {value.shape} with "
                                 f"strides {value.strides}; pass contiguous(x), or Strided(x) to a "
                                 "kernel that takes strides")
        elif type(value) is Strided:
            value = value.array
        if type(value) is not ndarray:
            if value is None or type(value) is address:
                return value
            raise TypeError(f"{where} must be an array on the device, got {type(value).__name__}")
        given = value.dtype
        if given is not dtype and dtype is not None and given != dtype:
            raise DTypeError(f"{where} must be {dtype}, got {given}")
        if value.data.device_id != device and value.size:
            raise DeviceError(f"{where} is on cuda:{value.data.device_id}, and the kernel runs on "
                              f"cuda:{device}")
        return value

    return convert


def _integer(where: str, dtype: Any) -> Callable[[Any, int], Any]:
    fitting = _fitting(dtype)

    def convert(value: Any, device: int) -> Any:
        found = fitting(value)
        if found is None:
            raise KernelError(f"{where} must fit {dtype}, got {value}")
        return found

    return convert


@functools.cache
def _fitting(dtype: Any) -> Callable[[Any], Any]:
    """What makes a number of that dtype, None where it does not fit: most come again and again."""
    info, kind = np.iinfo(dtype), dtype.type
    return functools.lru_cache(4096)(
        lambda value: kind(value) if info.min <= value <= info.max else None)


def _struct(where: str, parameter: Parameter) -> Callable[[Any, int], Any]:
    def convert(value: Any, device: int) -> Any:
        if not isinstance(value, (np.ndarray, np.void)) or value.size != 1:
            raise TypeError(f"{where} must be one {parameter.type} as a structured NumPy array, "
                            f"got {type(value).__name__}")
        return plain(value)

    return convert


def plain(value: Any) -> Any:
    """A structure's bytes: CuPy would describe all its fields before it takes the address."""
    return value.view(f"V{value.nbytes}") if value.dtype.names else value


def blocks(count: int, each: int) -> int:
    """How many blocks of `each` elements hold `count`."""
    return -(-count // each)
