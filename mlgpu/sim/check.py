"""The command `mlgpu sim check`: any program that uses CuPy, on simulated devices.

The program goes on after a finding, where it can; at its end all findings are printed, and what
each kernel did.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import runpy
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlgpu.cuda import environment
from mlgpu.sim.errors import Finding, SimError

if TYPE_CHECKING:
    from mlgpu.sim.cuda.profile import Profile
    from mlgpu.sim.cuda.system import System

LEAKS = 5  # places that are named


def check(args: argparse.Namespace) -> int:
    """Run the program and tell; the exit status."""
    from mlgpu.sim.cuda.install import install
    from mlgpu.sim.cuda.profile import Profile

    if not args.program.is_file():
        raise SimError(f"there is no file {args.program}")
    given = {name: getattr(args, name) for name in ("devices", "arch", "memory", "seed",
                                                    "allocations")
             if getattr(args, name) is not None}
    system = install(**given, checks=args.check, counters=args.counters,
                     findings="raise" if args.stop else "collect")
    environment.ask(given)  # for processes that the program starts
    profile = Profile()
    if args.counters:
        system.watchers.append(profile.add)
    status = _run(args.program, args.arguments, system)
    leaks = _leaks(system) if not status else Counter()
    if args.json is not None:
        args.json.write_text(json.dumps(_json(args, system, profile, leaks, status), indent=2))
    absent = _sources(args, profile)
    _print(args, system, profile, leaks)
    found = len(system.findings)
    system.reset()  # all is told
    return status or absent or int(found > 0)


def _run(program: Path, arguments: list[str], system: System) -> int:
    """Run the program, and then what it never waited for; its exit status."""
    sys.argv = [str(program), *arguments]
    sys.path[0] = str(program.resolve().parent)
    status = 0
    kept: Any = None  # what holds the program's arrays, which its last work may need
    try:
        kept = runpy.run_path(str(program), run_name="__main__")
    except SystemExit as end:
        kept = end
        if end.code is None or isinstance(end.code, int):
            status = end.code or 0
        else:
            print(end.code, file=sys.stderr)
            status = 1
    except BaseException as error:
        kept = error
        _show(error, program)
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
    status = _finish(system) or status
    del kept
    return status


def _show(error: BaseException, program: Path) -> None:
    """The error as Python shows it, from the program's first line on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != str(program):
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames or error.__traceback__)


def _finish(system: System) -> int:
    """Do what the program never waited for; 1 where that fails."""
    from mlgpu.sim.cuda.errors import CudaError

    status = 0
    while True:
        try:
            system.drain()
        except CudaError as error:
            print(f"mlgpu sim check: work that the program did not wait for: {error.text}",
                  file=sys.stderr)
            status = 1
        else:
            return status


def _leaks(system: System) -> Counter[tuple[str, int]]:
    """Device memory that is still in use: where it was taken, and how large each piece is."""
    import cupy

    from mlgpu.sim.cuda.memory import DEVICE

    gc.collect()
    with system.lock:
        system.notice()  # of arrays that have gone
    cupy.get_default_memory_pool().free_all_blocks()
    return Counter((block.region.made_at, block.region.size)
                   for block in system.memory.blocks.values() if block.kind == DEVICE)


def _sources(args: argparse.Namespace, profile: Profile) -> int:
    """Print the sources that were asked for; 2 where a kernel was not launched."""
    status = 0
    for kernel in args.source:
        try:
            print(profile.source(kernel), end="\n\n")
        except SimError as error:
            print(f"mlgpu sim check: {error}", file=sys.stderr)
            status = 2
    return status


def _print(args: argparse.Namespace, system: System, profile: Profile,
           leaks: Counter[tuple[str, int]]) -> None:
    sys.stdout.flush()
    for finding in system.findings:
        count = system.findings.count(finding)
        print(finding)
        if count > 1:
            print(f"    in {count:,} launches")
    table = profile.table()
    if table:
        print(table)
    if leaks:
        total = sum(size * count for (_, size), count in leaks.items())
        print(f"note: {total:,} bytes of device memory are in use at the end:")
        for (made_at, size), count in leaks.most_common(LEAKS):
            print(f"    {f'{count:,} times ' if count > 1 else ''}{size:,} bytes, "
                  f"made at {made_at}")
        if len(leaks) > LEAKS:
            print(f"    and at {len(leaks) - LEAKS} more places")
    count = len(system.findings)
    print(f"{args.program.name}: {system.devices[0].machine.target}: "
          f"{count or 'no'} finding{'' if count == 1 else 's'}"
          + ("" if args.check else " (checks are off)"))


def _json(args: argparse.Namespace, system: System, profile: Profile,
          leaks: Counter[tuple[str, int]], status: int) -> dict[str, Any]:
    def plain(finding: Finding) -> dict[str, Any]:
        import dataclasses

        return {**dataclasses.asdict(finding), "text": str(finding),
                "launches": system.findings.count(finding)}

    return {"program": os.fspath(args.program), "arguments": args.arguments,
            "arch": system.devices[0].machine.target, "devices": len(system.devices),
            "checks": args.check, "status": status,
            "findings": [plain(finding) for finding in system.findings],
            "kernels": profile.as_dicts(),
            "leaks": [{"made_at": made_at, "bytes": size, "count": count}
                      for (made_at, size), count in leaks.items()]}
