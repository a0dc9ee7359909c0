"""CUDA source to PTX: NVIDIA's run-time compiler NVRTC, which needs no GPU and no driver.

NVRTC's own defaults hold (C++17, unmarked functions are host code), so that what compiles here
compiles for CuPy and in any other program; only `-lineinfo` is added, which leaves the code as it
is and lets findings and counters name source lines.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlgpu.cuda.sources import kernels_dir
from mlgpu.sim import arch as archs
from mlgpu.sim import cache, includes, toolkit
from mlgpu.sim.errors import CompileError

_FORMAT = "1"  # of what the cache holds; a new one forgets all older entries


@dataclass(frozen=True)
class Compiled:
    """What NVRTC made of a source."""

    ptx: str
    lowered: Mapping[str, str]  # name expression -> the symbol's name in the PTX
    log: str  # warnings
    nvrtc: tuple[int, int]


def compile(source: str, arch: str = "sm_90", options: Sequence[str] = (),
            names: Sequence[str] = (), filename: str = "kernel.cu") -> Compiled:
    """The PTX of a CUDA source, from the cache where it was compiled before.

    `options` are NVRTC's (`-DN=4`, `--use_fast_math`, `-Ifolder`); mlgpu's kernels and CUDA's
    headers are found without.  `names` are name expressions such as "kernel<float>", which make
    NVRTC instantiate templates.  `filename` stands in messages and line information; quoted
    includes are looked for beside it.  CompileError with the compiler's log where there is no PTX.
    """
    found = toolkit.nvrtc()
    target = archs.compute(arch)
    given, folders, first = _split(options)
    if "\0" in source:
        raise CompileError(f"{filename}: the source has a NUL character")
    command = [f"--gpu-architecture={target}", "-lineinfo", *given,
               *(f"-I{folder}" for folder in (*folders, kernels_dir(), *found.headers))]
    text = source.encode("utf-8", "surrogateescape")
    beside = Path(filename).absolute().parent
    files = includes.closure(text, beside, [*folders, kernels_dir()], first)
    key = ""
    if files is not None:
        parts = [part for path, content in sorted(files.items()) for part in (str(path), content)]
        key = cache.key("ptx", _FORMAT, _identity(found), *command, "", *names, "", filename, text,
                        *parts)
        kept = cache.get(key)
        if kept is not None:
            values = json.loads(kept)
            return Compiled(**{**values, "nvrtc": tuple(values["nvrtc"])})
    compiled = _compile(found, text, command, names, filename)
    if key:
        cache.put(key, json.dumps(asdict(compiled)).encode())
    return compiled


def _compile(found: toolkit.Nvrtc, source: bytes, command: Sequence[str], names: Sequence[str],
             filename: str) -> Compiled:
    library = _load(found.path)
    program = ctypes.c_void_p()
    _check(library, library.nvrtcCreateProgram(ctypes.byref(program), source, filename.encode(), 0,
                                               None, None))
    try:
        for name in names:
            _check(library, library.nvrtcAddNameExpression(program, name.encode()))
        array = (ctypes.c_char_p * len(command))(*[os.fsencode(option) for option in command])
        result = library.nvrtcCompileProgram(program, len(command), array)
        log = _text(library, program, "ProgramLog").strip()
        if result:
            version = ".".join(map(str, found.version))
            hint = _hint(log, found)
            raise CompileError(f"{filename} does not compile (NVRTC {version}, {command[0]}):\n"
                               f"{log or _error(library, result)}{hint}")
        lowered = {name: _lowered(library, program, name) for name in names}
        ptx = _text(library, program, "PTX")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    return Compiled(_named(ptx, filename), lowered, log, found.version)


def _split(options: Sequence[str]) -> tuple[list[str], list[Path], list[str]]:
    """The options without include folders; the folders, absolute; the headers included first."""
    given, folders, first = [], [], []
    for name, value in _pairs(options):
        if name in ("-arch", "--gpu-architecture"):
            raise CompileError(f"option {name}: the machine's arch decides; leave it out")
        if name in ("-I", "--include-path"):
            folders.append(Path(value).absolute())
        else:
            given.append(f"{name}={value}" if value else name)
            if name in ("-include", "--pre-include"):
                first.append(value)
    return given, folders, first


def _pairs(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Option and value, for the options that this module must know; others whole.

    The compiler takes a value with "=", after a space, as the next option, and after -I directly.
    """
    waiting = list(reversed(options))
    while waiting:
        option = waiting.pop().strip()
        known = re.match(r"(-I|--include-path|-include|--pre-include|-arch|--gpu-architecture)"
                         r"(?:(?<=-I)(?=[^=\s])|[=\s]\s*|$)(.*)", option, re.DOTALL)
        if known is None:
            yield option, ""
        elif known.group(2) or not waiting:
            yield known.group(1), known.group(2)
        else:
            yield known.group(1), waiting.pop()


def _identity(found: toolkit.Nvrtc) -> str:
    """What tells this compiler and its headers from others: paths, and when they were installed."""
    stats = [path.stat() for path in (found.path, *found.headers)]
    return repr((found, [(s.st_size, s.st_mtime_ns) for s in stats]))


def _named(ptx: str, filename: str) -> str:
    """The PTX with the name of the source as given: NVRTC puts the current folder before it."""
    full = os.path.join(os.getcwd(), filename)
    return re.sub(r'^(\s*\.file\s+\d+\s+)"([^"\n]*)"',
                  lambda m: f'{m[1]}"{filename if m[2] == full else m[2]}"', ptx,
                  flags=re.MULTILINE)


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


def _text(library: Any, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.value.decode("utf-8", "replace")


def _check(library: Any, result: int) -> None:
    if result:
        raise CompileError(f"NVRTC: {_error(library, result)}")


def _error(library: Any, result: int) -> str:
    return str(library.nvrtcGetErrorString(result).decode())


@functools.cache
def _load(path: Path) -> Any:
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library
