"""Line information in what CuPy compiles, so that findings and counters name lines of the source.

CuPy compiles without it, from a file with a random name.  Here its two functions that lead to NVRTC
get `-lineinfo`, as one of the options that CuPy's disk cache tells apart; the source is called by
its kernel, "scale.cu"; and the module made of it keeps its text.

CuPy's headers take NVRTC four times as long as a kernel of CuPy's, so a process reads them once: in
its main thread, since NVRTC crashes where another does so as the process ends.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import threading
from typing import Any

from mlgpu.cuda.compile import temporary
from mlgpu.sim.errors import SimError
from mlgpu.sim.machine import Module

SEVERAL = "kernels.cu"  # a source with more than one kernel, or none
# The functions of cupy.cuda.compiler, and their arguments.
BUILD, COMPILE = "_compile_with_cache_cuda", "_compile_using_nvrtc_no_warning"
EXPECTED = {
    BUILD: """source options arch extra_source backend enable_cooperative_groups name_expressions
        log_stream cache_in_memory jitify to_ltoir""".split(),
    COMPILE: """source options arch filename name_expressions log_stream cache_in_memory jitify
        method""".split()}

_thread = threading.local()


def follow(compiler: Any) -> None:
    """Have CuPy's compiler, the module `cupy.cuda.compiler`, make line information.

    SimError where its functions are not those that are known.
    """
    for name, expected in EXPECTED.items():
        function = getattr(compiler, name, None)
        if function is None or [*inspect.signature(function).parameters] != expected:
            raise SimError(f"CuPy on the simulated GPU: this version of CuPy is not known: "
                           f"cupy.cuda.compiler.{name} is not as in 14.2; install "
                           "'cupy-cuda12x==14.2.*' or 'cupy-cuda13x==14.2.*'")
    build, compile = getattr(compiler, BUILD), getattr(compiler, COMPILE)

    def build_with_lines(source: str, options: tuple[str, ...], arch: str | None,
                         extra_source: str | None = None, backend: str = "nvrtc",
                         *others: Any, **named: Any) -> Any:
        if backend == "nvrtc":
            options = (*options, "-lineinfo")
        outer = getattr(_thread, "source", None)
        _thread.source = source
        try:
            return build(source, options, arch, extra_source, backend, *others, **named)
        finally:
            _thread.source = outer

    def compile_named(source: str, options: tuple[str, ...] = (), arch: str | None = None,
                      filename: str = "kern.cu", *others: Any, **named: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            options = (*options, *_headers_once(os.getpid()))
        with _one_at_a_time:
            made, mapping = compile(source, options, arch, filename, *others, **named)
        return _renamed(made, filename, name_of(source)), mapping

    setattr(compiler, BUILD, build_with_lines)
    setattr(compiler, COMPILE, compile_named)


_one_at_a_time = threading.RLock()


@functools.cache
def _headers_once(process: int) -> tuple[str, ...]:
    """Options by which NVRTC keeps the headers as it has read them; the PTX is the same.

    Of that it tells in warnings, where a source has other options (629) or headers (630) or does
    not compile (20283): they are of no use to the program.
    """
    from cupy_backends.cuda.libs import nvrtc

    if nvrtc.getVersion() < (12, 8) or os.environ.get("CUPY_NVRTC_USE_PCH", "0") != "0":
        return ()  # too old, or done by CuPy
    return ("--pch", f"--pch-dir={temporary(process)}", "--pch-messages=false",
            "--diag-suppress=629,630,20283")


def attach(module: Module) -> None:
    """Give a module the source that CuPy makes it of right now, if it does."""
    source = getattr(_thread, "source", None)
    if source is not None:
        module.source, module.filename = source, name_of(source)


def name_of(source: str) -> str:
    """What a source is called: by its kernel, where it has one."""
    bare = re.sub(r"//[^\n]*|/\*.*?\*/|__launch_bounds__\s*\([^()]*\)", " ", source,
                  flags=re.DOTALL)
    kernels = set(re.findall(r"\b__global__\s[^(){};]*?(\w+)\s*\(", bare))
    return f"{kernels.pop()}.cu" if len(kernels) == 1 else SEVERAL


def _renamed(made: bytes, filename: str, name: str) -> bytes:
    """PTX with the source under its name; NVRTC calls one without a file name default_program."""
    found = rb'^(\s*\.file\s+\d+\s+)"(?:[^"\n]*/)?(?:%s|default_program)"' % re.escape(
        filename or "default_program").encode()
    return re.sub(found, lambda m: m[1] + f'"{name}"'.encode(), made, flags=re.MULTILINE)
