"""What kernels take of each architecture: registers, spills, local and shared memory, occupancy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

from mlgpu.cuda.compile import compile
from mlgpu.cuda.instances import Instance
from mlgpu.errors import KernelError
from mlgpu.sim import arch as archs
from mlgpu.sim import ptxas
from mlgpu.sim.errors import LaunchError
from mlgpu.sim.occupancy import occupancy

TOGETHER = 24  # kernels of a source in one compilation, which has its headers to read each time


@dataclass(frozen=True)
class Taken:
    """What one kernel takes on one architecture; bytes but for registers, threads and occupancy."""

    kernel: str
    arch: str
    registers: int  # of a thread
    spills: int  # stored and loaded for want of registers, by a thread
    local: int  # memory of a thread, spilled registers included
    shared: int  # of a block, with what its launches ask for, where that is known
    threads: int  # of a block, else its launch bounds
    occupancy: float | None  # percent, with blocks of that size; None where even one is too large


@dataclass(frozen=True)
class Compiled:
    """The PTX of several kernels."""

    ptx: str
    lowered: dict[str, str]
    log: str


def taken(instances: Iterable[Instance], arch_names: Sequence[str]) -> Iterator[Taken]:
    """For each architecture what each kernel takes, in order.

    Raises as `compile` and the simulated GPU's `ptxas.resources`.
    """
    parts = [*together(instances)]
    jobs = [(part, arch) for arch in arch_names for part in parts]

    def one(job: tuple[list[Instance], str]) -> list[Taken]:
        part, arch = job
        return resources(part, arch, compile_together(part, arch))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for rows in pool.map(one, jobs):
            yield from rows


def together(instances: Iterable[Instance]) -> Iterator[list[Instance]]:
    """Kernels that one compilation can make."""
    for _, group in groupby(instances, lambda i: (i.filename, i.options, i.source, not i.names)):
        members = list(group)
        for start in range(0, len(members), TOGETHER):
            yield members[start:start + TOGETHER]


def compile_together(part: Sequence[Instance], arch: str) -> Compiled:
    """Kernels of one source, compiled at once."""
    first = part[0]
    names = [name for instance in part for name in instance.names]
    image = compile(first.text, arch, names, first.options, "ptx", first.filename)
    return Compiled(image.path.read_text("utf-8"), image.lowered, image.log)


def resources(part: Sequence[Instance], arch: str, made: Compiled) -> list[Taken]:
    """What each kernel of a compilation takes."""
    found = ptxas.resources(made.ptx, arch)
    rows = []
    for instance in part:
        # A source that was asked for no name has the kernels that it says.
        wanted = {made.lowered[name]: str(instance) for name in instance.names} or {
            symbol: f"{instance} {symbol}" for symbol in found}
        for symbol, shown in wanted.items():
            if symbol not in found:
                raise KernelError(f"{shown}: the compiler made no kernel of it")
            rows.append(_row(shown, arch, found[symbol], instance.shared,
                             instance.threads or _threads(made.ptx, symbol)))
    return rows


def _row(shown: str, arch: str, found: ptxas.Resources, dynamic: int, threads: int) -> Taken:
    shared = found.shared + dynamic
    try:
        percent = occupancy(archs.find(arch), threads, found.registers, shared,
                            found.barriers).percent
    except LaunchError:
        percent = None
    return Taken(shown, arch, found.registers, found.spill_stores + found.spill_loads, found.stack,
                 shared, threads, percent)


def _threads(ptx: str, symbol: str) -> int:
    """The most threads that a kernel's launch bounds allow; what is usual where it has none."""
    bounds = re.search(rf"\.entry {re.escape(symbol)}\([^)]*\)\s*\.(?:max|req)ntid (\d+)"
                       r"(?:, (\d+))?(?:, (\d+))?", ptx)
    if bounds is None:
        return 256
    x, y, z = (int(size or 1) for size in bounds.groups())
    return x * y * z
