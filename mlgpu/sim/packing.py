"""A launch's arguments as the bytes of the kernel's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim import host
from mlgpu.sim.buffer import Buffer
from mlgpu.sim.code import Code
from mlgpu.sim.errors import LaunchError
from mlgpu.sim.ptx.syntax import Variable

if TYPE_CHECKING:
    from mlgpu.sim.machine import Machine

Array = np.ndarray[Any, Any]


def pack(machine: Machine, code: Code, args: Any) -> bytes:
    """The parameters' bytes.  LaunchError names the argument that does not fit, and why."""
    if not isinstance(args, (list, tuple)):
        raise LaunchError(f"{code.name}: args is {type(args).__name__}; a tuple or list of "
                          "arguments is needed, such as (buffer,)")
    if len(args) != len(code.params):
        raise LaunchError(f"{code.name}: {len(args)} arguments; the kernel has "
                          f"{len(code.params)} parameters")
    packed = bytearray(code.param_size)
    for number, (param, arg) in enumerate(zip(code.params, args, strict=True)):
        at = code.param_offsets[param.name]
        packed[at:at + param.size] = _bytes(machine, f"{code.name}: argument {number}", param, arg)
    return bytes(packed)


def _bytes(machine: Machine, what: str, param: Variable, arg: Any) -> bytes:
    if isinstance(arg, Buffer):
        return _pointer(machine, what, param, arg)
    if isinstance(arg, (np.generic, np.ndarray)):
        raw, kind = _array(what, param, arg), str(arg.dtype)
    elif isinstance(arg, bytes):
        raw, kind = arg, "bytes"
    elif isinstance(arg, int) and not isinstance(arg, bool):
        return _address(what, param, arg)
    elif isinstance(arg, (bool, float, complex)):
        example = {bool: "bool_", float: "float32", complex: "complex64"}[type(arg)]
        raise LaunchError(f"{what} is the {type(arg).__name__} {arg}, which could be of several "
                          f"types; the parameter is {_described(param)}: pass a NumPy scalar, such "
                          f"as np.{example}({arg})")
    else:
        raise LaunchError(f"{what} is {type(arg).__name__}; a Buffer, an address, a NumPy scalar, "
                          "a structured scalar or bytes is needed")
    if len(raw) != param.size:
        raise LaunchError(f"{what} ({kind}) has {len(raw)} bytes; the parameter is "
                          f"{_described(param)}")
    return raw


def _pointer(machine: Machine, what: str, param: Variable, arg: Buffer) -> bytes:
    if param.size != 8 or param.type == "f64":
        raise LaunchError(f"{what} is a buffer, whose address has 8 bytes; the parameter is "
                          f"{_described(param)}")
    if arg.machine is not machine:
        raise LaunchError(f"{what} is a buffer of another machine; make it with this one's array, "
                          "zeros or empty")
    return arg.ptr.to_bytes(8, "little")


def _address(what: str, param: Variable, arg: int) -> bytes:
    if param.size != 8 or not param.scalar or param.type == "f64":
        has = param.size if param.size != 8 else f"8, but is {_described(param)}"
        raise LaunchError(f"{what} is the int {arg}, which stands for an address of 8 bytes; the "
                          f"parameter has {has}: pass a NumPy scalar, such as np.int32({arg})")
    if not -(1 << 63) <= arg < 1 << 64:
        raise LaunchError(f"{what}: {arg} does not fit 64 bits")
    return (arg % (1 << 64)).to_bytes(8, "little")


def _array(what: str, param: Variable, arg: np.generic | Array) -> bytes:
    """The bytes of a NumPy scalar, or of an array for a struct."""
    if param.scalar and arg.ndim:
        raise LaunchError(f"{what} is a NumPy array; the parameter is {_described(param)}: for a "
                          "pointer, pass Machine.array(...)")
    if param.scalar and param.size > 2 and arg.dtype.kind in "iuf" and param.type[0] in "usf" \
            and (param.type[0] == "f") != (arg.dtype.kind == "f"):
        raise LaunchError(f"{what} is {arg.dtype}; the parameter is {_described(param)}")
    return host.array(arg, what).tobytes()


def _described(param: Variable) -> str:
    """A parameter's type and size."""
    if param.scalar:
        return f".{param.type}, which has {param.size} bytes"
    return f"a struct or array of {param.size} bytes"
