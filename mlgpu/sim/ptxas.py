"""What a kernel takes of a multiprocessor, as NVIDIA's assembler ptxas says: registers, spills.

PTX has as many registers as it likes; how many a kernel really needs, and what of them goes to
local memory, is known only after ptxas, which needs no GPU either.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlgpu.cuda import cache, toolkit
from mlgpu.errors import MissingExtraError
from mlgpu.sim import arch as archs
from mlgpu.sim.errors import CompileError

_FORMAT = "1"
_TIMEOUT = 300  # seconds


@dataclass(frozen=True)
class Resources:
    """What one kernel takes; bytes except for registers and barriers."""

    kernel: str
    registers: int  # of each thread
    spill_stores: int  # written to local memory for want of registers, by each thread
    spill_loads: int
    stack: int  # local memory of each thread, spilled registers included
    shared: int  # static shared memory of a block
    constant: Mapping[str, int]  # by bank; newer versions of ptxas do not tell
    barriers: int  # of a block


def find() -> Path | None:
    """The ptxas to use; None where there is none."""
    return next(iter(toolkit.ptxas()), None)


def resources(ptx: str, arch: str = "sm_90", options: Sequence[str] = ()) -> dict[str, Resources]:
    """What each kernel of a PTX text takes on a target; `options` are those of ptxas.

    MissingExtraError where there is no ptxas, CompileError where it rejects the text.
    """
    candidates = toolkit.ptxas()
    if not candidates:
        raise MissingExtraError("registers and spills: ptxas is not installed; "
                                "pip install 'mlgpu[sim]' (Linux), or set CUDA_HOME")
    major, minor, suffix = archs.parse(arch)
    command = ["-v", f"--gpu-name=sm_{major}{minor}{suffix}", *options]
    for path in candidates:
        key = cache.key("ptxas", _FORMAT, _identity(path), *command, "", ptx)
        kept = cache.get(key)
        log = kept.decode() if kept is not None else _run(path, command, ptx)
        if log.startswith(_FAILED):
            if "Unsupported .version" in log:
                continue  # older than the NVRTC that made the text: perhaps there is a newer one
            raise CompileError(f"ptxas rejects the text ({path}):\n{log.removeprefix(_FAILED)}")
        if kept is None:
            cache.put(key, log.encode())
        return parse(log)
    raise CompileError(f"ptxas is older than the NVRTC that made this PTX ({candidates[0]}):\n"
                       f"{log.removeprefix(_FAILED)}")


def parse(log: str) -> dict[str, Resources]:
    """The kernels in the text that `ptxas -v` prints."""
    found = {}
    for part in re.split(r"(?=Compiling entry function ')", log)[1:]:
        name = re.match(r"Compiling entry function '([^']+)'", part)
        used = re.search(r"Used (\d+) registers(.*)", part)
        if name is None or used is None:
            continue
        # What is said of the kernel itself; functions that are not inlined have parts of their own.
        own = part.split(f"Function properties for {name[1]}\n", 1)[-1].split("\n", 1)[0]
        found[name[1]] = Resources(
            kernel=name[1], registers=int(used[1]),
            spill_stores=_number(r"(\d+) bytes spill stores", own),
            spill_loads=_number(r"(\d+) bytes spill loads", own),
            stack=max(_number(r"(\d+) bytes stack frame", own),
                      _number(r"(\d+) bytes cumulative stack size", used[2])),
            shared=_number(r"(\d+) bytes smem", used[2]),
            constant={bank: int(size) for size, bank in
                      re.findall(r"(\d+) bytes cmem\[(\d+)\]", used[2])},
            barriers=_number(r"used (\d+) barriers", used[2]))
    return found


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


_FAILED = "failed\n"  # before the log of a run that ended with an error


def _run(path: Path, command: Sequence[str], ptx: str) -> str:
    with tempfile.TemporaryDirectory(prefix="mlgpu-") as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx, encoding="utf-8", errors="surrogateescape")
        try:
            done = subprocess.run([path, *command, "-o", os.devnull, source], capture_output=True,
                                  text=True, errors="replace", timeout=_TIMEOUT)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CompileError(f"ptxas: {path} cannot be run: {error}") from None
    log = done.stdout + done.stderr
    return log if done.returncode == 0 else f"{_FAILED}{log or f'exit {done.returncode}'}"


def _identity(path: Path) -> str:
    """What tells this ptxas from others: its path, and when it was installed."""
    stat = path.stat()
    return repr((str(path), stat.st_size, stat.st_mtime_ns))
