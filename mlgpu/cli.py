"""The command line: `mlgpu info`, `mlgpu bench`, `mlgpu kernels`, `mlgpu sim run`, `... check`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence


def _info(args: argparse.Namespace) -> int:
    from mlgpu import info

    found = info.collect()
    print(json.dumps(found.as_dict(), indent=2) if args.json else info.text(found))
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    from mlgpu import __version__
    from mlgpu.bench import cli as bench_cli
    from mlgpu.cuda import kernels_cli

    top = argparse.ArgumentParser(prog="mlgpu", description="Tools of the mlgpu library.")
    top.add_argument("--version", action="version", version=f"mlgpu {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="versions, BLAS, devices and active features")
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=_info)
    bench_cli.add(commands)
    kernels_cli.add(commands)
    commands.add_parser("sim", help="run and check CUDA kernels without a GPU", add_help=False)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["sim"]:  # has a grammar of its own, and takes longer to import
        from mlgpu.sim import cli as sim

        return sim.main(given[1:])
    args = parser().parse_args(given)
    status: int = args.run(args)
    return status
