"""`mlgpu kernels build` and `mlgpu kernels list`: kernels ahead of time, and what they take.

    mlgpu kernels list softmax --arch sm_80 sm_90
    MLGPU_KERNELS_USED=used.txt python train.py
    mlgpu kernels build --used used.txt --arch sm_90 --out images
    MLGPU_KERNELS_DIR=images python train.py        # on machines without a compiler

What instances there are is a list in a file; instances.py says how it comes about.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from mlgpu.cuda import instances
from mlgpu.cuda.compile import build, parse
from mlgpu.cuda.sources import kernels_dir
from mlgpu.errors import KernelError, MlgpuError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar of `mlgpu`."""
    kernels = commands.add_parser("kernels", help="build CUDA kernels ahead of time; list what "
                                                  "they take")
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("family", nargs="*", help="files in kernels/, such as softmax; all by "
                                                 "default")
    which.add_argument("--used", metavar="FILE",
                       help="the kernels that a program used, which it wrote to the file with "
                            f"{instances.VARIABLE}=FILE; by default those of kernels/instances.txt")
    parts = kernels.add_subparsers(dest="command", required=True, metavar="COMMAND")
    make = parts.add_parser("build", parents=[which],
                            help="compile, so that no compiler is needed where programs run")
    make.add_argument("--arch", nargs="+", required=True, type=_arch, metavar="ARCH",
                      help="targets: machine code for sm_80, PTX for compute_80")
    make.add_argument("--out", type=Path, metavar="DIR",
                      help="where to, for MLGPU_KERNELS_DIR; by default where mlgpu itself looks")
    make.set_defaults(run=_told, part=_build)
    show = parts.add_parser("list", parents=[which], help="registers, spills, memory, occupancy")
    show.add_argument("--arch", nargs="+", default=["sm_80", "sm_90"], type=_arch, metavar="ARCH",
                      help="targets such as sm_80; sm_80 and sm_90 by default")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_told, part=_list)


def _arch(text: str) -> str:
    try:
        parse(text)
    except KernelError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _told(args: argparse.Namespace) -> int:
    try:
        status: int = args.part(args)
        return status
    except (MlgpuError, OSError) as error:
        print(f"mlgpu kernels: {error}", file=sys.stderr)
        return 1


def _build(args: argparse.Namespace) -> int:
    folder = args.out or kernels_dir() / "built"
    wanted = instances.chosen(args.used, args.family)
    jobs = [(instance, arch) for arch in args.arch for instance in wanted]

    def one(job: tuple[instances.Instance, str]) -> int:
        instance, arch = job
        kind = "ptx" if arch.startswith("compute") else "cubin"
        made = build(instance.text, arch, folder, instance.names, instance.options, kind,
                     instance.filename)
        return made.path.stat().st_size

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = list(pool.map(one, jobs))
    print(f"{len(sizes)} images, {sum(sizes) / 2**20:.1f} MiB, in {folder}")
    return 0


def _list(args: argparse.Namespace) -> int:
    from mlgpu.cuda.resources import taken  # the simulated GPU, which takes longer to import

    wanted = instances.chosen(args.used, args.family)
    rows = taken(wanted, args.arch)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    width = max((len(str(instance)) for instance in wanted), default=0)
    print(f"{'kernel':{width}} {'arch':>8} {'registers':>9} {'spills':>6} {'local':>6} "
          f"{'shared':>6} {'threads':>7} {'occupancy':>9}")
    for row in rows:
        percent = "-" if row.occupancy is None else f"{row.occupancy:.0f} %"
        print(f"{row.kernel:{width}} {row.arch:>8} {row.registers:9} {row.spills:6} {row.local:6} "
              f"{row.shared:6} {row.threads:7} {percent:>9}", flush=True)
    return 0
