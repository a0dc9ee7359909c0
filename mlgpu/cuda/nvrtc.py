"""NVIDIA's run-time compiler NVRTC: CUDA source to machine code or PTX, without GPU or driver."""

from __future__ import annotations

import ctypes
import functools
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlgpu.cuda import toolkit
from mlgpu.errors import KernelError

IMAGES = {"cubin": "CUBIN", "ptx": "PTX"}  # kinds, and how NVRTC's functions call them
# NVRTC 12 and 13 keep, for the life of the process, what these switch off in the optimizer: sources
# compiled later come out slower, with arrays in local memory, and would be cached so for everyone.
_LASTING = {"-G", "--device-debug", "--device-debug=true"}


def compile(found: toolkit.Nvrtc, source: bytes, command: Sequence[str], names: Sequence[str],
            kind: str, filename: str, place: str) -> tuple[bytes, dict[str, str], str]:
    """The image, the symbol of each name expression, and the log, which holds warnings.

    `place` is the path that NVRTC takes the source to have, beside which it looks for headers;
    `filename` is what messages and line information call it.  KernelError with the compiler's log
    where there is no image.  For debugging (`-G`) it is made in a process of its own.
    """
    if not _LASTING.isdisjoint(command):
        return _apart(found, source, command, names, kind, filename, place)
    return _compile(found, source, command, names, kind, filename, place)


def _apart(*arguments: Any) -> tuple[bytes, dict[str, str], str]:
    script = f"import sys; sys.path = {sys.path!r}; from mlgpu.cuda import nvrtc; nvrtc.child()"
    child = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(arguments),
                           capture_output=True, check=False)
    if child.returncode:
        raise KernelError("NVRTC, in a process of its own because of -G, ended with "
                          f"{child.returncode}:\n{child.stderr.decode('utf-8', 'replace')}")
    result = pickle.loads(child.stdout)
    if isinstance(result, KernelError):
        raise result
    image, lowered, log = result
    return image, lowered, log


def child() -> None:
    """Compile what stands on the standard input, and write what came of it to the output."""
    arguments = pickle.load(sys.stdin.buffer)
    try:
        result: Any = _compile(*arguments)
    except KernelError as error:
        result = error
    sys.stdout.buffer.write(pickle.dumps(result))


def _compile(found: toolkit.Nvrtc, source: bytes, command: Sequence[str], names: Sequence[str],
             kind: str, filename: str, place: str) -> tuple[bytes, dict[str, str], str]:
    library = _load(found.path)
    program = ctypes.c_void_p()
    _check(library, library.nvrtcCreateProgram(ctypes.byref(program), source, os.fsencode(place), 0,
                                               None, None))
    try:
        for name in names:
            _check(library, library.nvrtcAddNameExpression(program, name.encode()))
        array = (ctypes.c_char_p * len(command))(*[os.fsencode(option) for option in command])
        result = library.nvrtcCompileProgram(program, len(command), array)
        log = _text(library, program, "ProgramLog").decode("utf-8", "replace").strip("\0\n ")
        log = log.replace(f"{place}(", f"{filename}(")
        if result:
            version = ".".join(map(str, found.version))
            raise KernelError(f"{filename} does not compile (NVRTC {version}, {command[0]}):\n"
                              f"{log or _error(library, result)}{_hint(log, found)}")
        lowered = {name: _lowered(library, program, name) for name in names}
        image = _text(library, program, IMAGES[kind])
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    return _named(image.rstrip(b"\0"), place, filename) if kind == "ptx" else image, lowered, log


def _named(ptx: bytes, place: str, filename: str) -> bytes:
    """PTX with the name of the source as given: NVRTC puts the current folder before it."""
    full = os.fsencode(os.path.join(os.getcwd(), place))
    return re.sub(rb'^(\s*\.file\s+\d+\s+)"([^"\n]*)"',
                  lambda m: m[1] + b'"' + (os.fsencode(filename) if m[2] == full else m[2]) + b'"',
                  ptx, flags=re.MULTILINE)


def _hint(log: str, found: toolkit.Nvrtc) -> str:
    missing = re.search(r'(?:cannot|could not) open source file "([^"]+)"', log)
    if missing is None:
        return ""
    name = missing.group(1)
    if not found.headers or name.startswith(("nv/", "crt/", "cuda/")):
        return (f"\nThere is no such header of CUDA {found.version[0]}: "
                "pip install 'mlgpu[sim]', or set CUDA_PATH")
    plain = name.removesuffix(".h")
    instead = f"c{plain}" if plain in _C else plain
    if instead in _CPP or instead.removeprefix("c") in _C:
        return (f"\nNVRTC has no C or C++ standard headers: leave <{name}> out, or include "
                f"<cuda/std/{instead}>")
    return "\nCUDA's headers were looked for in " + ", ".join(map(str, found.headers))


_C = frozenset("assert float limits math stddef stdint stdio stdlib string".split())
_CPP = frozenset("""algorithm array atomic complex functional initializer_list iterator limits
    memory new numeric tuple type_traits utility vector""".split())


def _lowered(library: Any, program: ctypes.c_void_p, name: str) -> str:
    pointer = ctypes.c_char_p()
    _check(library, library.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(pointer)))
    return (pointer.value or b"").decode()


def _text(library: Any, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(library: Any, result: int) -> None:
    if result:
        raise KernelError(f"NVRTC: {_error(library, result)}")


def _error(library: Any, result: int) -> str:
    return str(library.nvrtcGetErrorString(result).decode())


@functools.cache
def _load(path: Path) -> Any:
    # NVRTC opens its own functions' library by name, and of CUDA 13.0 does not look beside itself.
    # One that is loaded is found.
    for part in ("libnvrtc-builtins.so.*", "nvrtc-builtins64_*.dll"):
        for beside in sorted(path.resolve().parent.glob(part)):
            with suppress(OSError):  # of another version, say: NVRTC says what it misses
                ctypes.CDLL(str(beside))
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library
