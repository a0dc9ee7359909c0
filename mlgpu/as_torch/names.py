"""What programs ask of torch in passing: switches, classes for annotations, facts about a build."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlgpu
from mlgpu import Tensor
from mlgpu.as_torch import foreach
from mlgpu.as_torch.jit import ScriptFunction as ScriptFunction
from mlgpu.as_torch.jit import ScriptModule as ScriptModule
from mlgpu.errors import MlgpuError
from mlgpu.layout import layout
from mlgpu.ops.facts import UntypedStorage as UntypedStorage
from mlgpu.random import default_generator as default_generator

AcceleratorError = MlgpuError
TensorType = Tensor


class PyTorchFileReader:
    """A reader of PyTorch's files: torch.load reads them here, and programs name the class."""

# Layouts that no tensor has: programs compare with them.
_LAYOUTS = {name: layout(name) for name in """sparse_coo sparse_csr sparse_csc sparse_bsr sparse_bsc
    jagged _mkldnn""".split()}
has_mkl = has_mkldnn = has_openmp = has_spectral = has_cuda = has_mps = False
has_lapack = True


class SymInt:
    """A size that a tracer does not know: no value is one, as nothing is traced."""


class SymFloat:
    """A number that a tracer does not know: no value is one."""


class SymBool:
    """A truth value that a tracer does not know: no value is one."""


sym_int, sym_float, sym_max, sym_min, sym_sqrt = int, float, max, min, math.sqrt


def sym_not(value: bool) -> bool:
    """`not value`."""
    return not value


class TypedStorage(UntypedStorage):
    """The block of memory that a tensor lies on, counted in elements of its dtype."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor)
        self.dtype = tensor.dtype

    def size(self) -> int:
        """How many elements it has."""
        return self.nbytes() // self.dtype.itemsize

    __len__ = size

    def untyped(self) -> UntypedStorage:
        """The block itself."""
        return self


Storage = TypedStorage


def is_storage(obj: Any) -> bool:
    """Whether it is what `Tensor.storage` or `untyped_storage` give."""
    return isinstance(obj, UntypedStorage)


def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0,
               requires_grad: bool = False) -> Tensor:
    """A tensor of one dimension on the memory of an object with Python's buffer interface."""
    import numpy as np

    array = np.frombuffer(buffer, dtype.numpy, count, offset)
    if not array.flags.writeable:
        array = array.copy()
    return mlgpu.from_numpy(array).requires_grad_(requires_grad)


def typename(obj: Any) -> str:
    """The name of a tensor's type, or of an object's class."""
    if isinstance(obj, Tensor):
        return str(obj.type())
    kind = obj if isinstance(obj, type) else type(obj)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def get_device(input: Tensor) -> int:
    """The number of the CUDA device that a tensor is on, -1 for the CPU."""
    return input.get_device()


def get_device_module(device: Any = None) -> Any:
    """torch.cuda or torch.cpu."""
    from importlib import import_module

    kind = "cpu" if device is None and not mlgpu.cuda.is_available() else (
        "cuda" if device is None else mlgpu.Device(str(device)).type)
    return import_module(f"torch.{kind}")


def _assert(condition: Any, message: str) -> None:
    """AssertionError with the message unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def _check(cond: Any, message: Any = None) -> None:
    """RuntimeError with what `message()` says unless the condition holds."""
    if not cond:
        raise MlgpuError(str(message()) if callable(message) else "a condition does not hold")


def _check_is_size(i: int, message: Any = None, *, max: Any = None) -> None:
    """As `_check`, of a size."""
    _check(i >= 0, message)


def set_anomaly_enabled(mode: bool, check_nan: bool = True) -> None:
    """Nothing: an error in backward names the operation as it is."""


def is_anomaly_enabled() -> bool:
    """False."""
    return False


def set_flush_denormal(mode: bool) -> bool:
    """False: the processor's way with numbers close to zero is left as it is."""
    return False


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """As use_deterministic_algorithms: "default" (0) does not ask for it, others do."""
    mlgpu.use_deterministic_algorithms(debug_mode not in (0, "default"),
                                       warn_only=debug_mode in (1, "warn"))


def get_deterministic_debug_mode() -> int:
    """0, 1 or 2: not asked for, a warning, an error."""
    if not mlgpu.are_deterministic_algorithms_enabled():
        return 0
    return 1 if mlgpu.is_deterministic_algorithms_warn_only_enabled() else 2


def is_inference(input: Tensor) -> bool:
    """Whether a tensor was made in inference mode."""
    return input.is_inference()


def get_autocast_gpu_dtype() -> Any:
    """What autocast casts to on CUDA."""
    return mlgpu.get_autocast_dtype("cuda")


def get_autocast_cpu_dtype() -> Any:
    """What autocast casts to on the CPU."""
    return mlgpu.get_autocast_dtype("cpu")


def is_autocast_cpu_enabled() -> bool:
    """Whether autocast is on for the CPU."""
    return mlgpu.is_autocast_enabled("cpu")


def is_autocast_cache_enabled() -> bool:
    """False: casts are made where they are used."""
    return False


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Nothing: there is no cache of casts."""


def clear_autocast_cache() -> None:
    """Nothing: there is no cache of casts."""


def compiled_with_cxx11_abi() -> bool:
    """True."""
    return True


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any],
         operands: tuple[Any, ...] = ()) -> Any:
    """One of two functions of the operands, by a truth value."""
    return (true_fn if pred else false_fn)(*operands)


def while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any],
               carried_inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values after `body_fn` was called on them as long as `cond_fn` of them is true."""
    while cond_fn(*carried_inputs):
        carried_inputs = tuple(body_fn(*carried_inputs))
    return carried_inputs


def __getattr__(name: str) -> Any:
    if name in _LAYOUTS:
        return _LAYOUTS[name]
    if name.startswith(foreach.PREFIX) and (found := foreach.find(name)) is not None:
        return found
    raise AttributeError(name)
