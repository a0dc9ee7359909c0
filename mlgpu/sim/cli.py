"""The command line: `mlgpu sim run` launches one kernel, `mlgpu sim check` runs a CuPy program.

Exit status 0: it ran clean.  1: there are findings, which are printed.  2: it could not be run.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.errors import MlgpuError
from mlgpu.sim.arguments import FORMS, Made, make
from mlgpu.sim.errors import Finding

if TYPE_CHECKING:
    from mlgpu.sim.roofline import Estimate

CHECKS = ("memcheck", "racecheck", "initcheck", "synccheck")
Shape = tuple[int, ...]


def main(argv: Sequence[str]) -> int:
    """Run `mlgpu sim ...` and return its exit status."""
    top = argparse.ArgumentParser(prog="mlgpu sim", description="The simulated GPU.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_check(commands)
    args = top.parse_args(argv)
    try:
        status: int = args.command_of(args)
    except (MlgpuError, OSError, UnicodeDecodeError) as error:
        print(f"mlgpu sim {args.command}: {error}", file=sys.stderr)
        return 2
    return status


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run", help="launch a kernel, check every access and count",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Launch one kernel of a CUDA or PTX file and check every access.",
        epilog=f"forms of --arg:\n{FORMS}\n\n"
               "exit status: 0 clean, 1 findings, 2 the kernel could not be run")
    run.set_defaults(command_of=_run)
    run.add_argument("file", type=Path, help="a CUDA source, or PTX")
    run.add_argument("--kernel", required=True, metavar="NAME",
                     help="the kernel's name; of a template: 'name<float>'")
    run.add_argument("--grid", type=_dims, default=(1,), metavar="X[,Y[,Z]]", help="blocks (1)")
    run.add_argument("--block", type=_dims, required=True, metavar="X[,Y[,Z]]", help="threads")
    run.add_argument("--arg", action="append", default=[], metavar="FORM", dest="args",
                     help="an argument, in the kernel's order; forms are listed below")
    run.add_argument("--shared-mem", type=_bytes, default=0, metavar="BYTES",
                     help="dynamic shared memory of a block (0)")
    run.add_argument("--cooperative", action="store_true", help="a launch that may sync its grid")
    run.add_argument("--arch", default="sm_90", metavar="SM", help="the target (sm_90)")
    run.add_argument("--schedule", choices=("lockstep", "warps"), default="lockstep",
                     help="warps: the first warp as far as it gets, then the next (lockstep)")
    run.add_argument("--seed", type=int, default=0, help="of random arguments (0)")
    compiler = run.add_argument_group("compiler")
    compiler.add_argument("-D", action="append", default=[], metavar="NAME[=VALUE]",
                          dest="defines", help="define a macro")
    compiler.add_argument("-I", action="append", default=[], metavar="FOLDER", dest="includes",
                          help="look for headers there; those beside the file are found without")
    compiler.add_argument("--option", action="append", default=[], metavar="OPTION",
                          dest="options", help="any other of NVRTC's, as --option=--use_fast_math")
    checks = run.add_mutually_exclusive_group()
    checks.add_argument("--check", type=_checks, default=CHECKS, metavar="LIST",
                        help=f"only these of {','.join(CHECKS)}")
    checks.add_argument("--no-check", action="store_const", const=(), dest="check",
                        help="none of them")
    shown = run.add_argument_group("what to show")
    shown.add_argument("--print", type=_indices, default=(), metavar="LIST", dest="printed",
                       help="arguments to print afterwards: 0,2 (from 0), or all")
    shown.add_argument("--save", type=_saved, action="append", default=[], metavar="I=FILE.npy",
                       help="an argument to save afterwards")
    shown.add_argument("--metrics", action="store_true", help="all counters")
    shown.add_argument("--source", action="store_true", help="the source with counts beside it")
    shown.add_argument("--roofline", metavar="DEVICE",
                       help="estimate the least time on a device: A100, H100, L4, RTX 4090")
    shown.add_argument("--json", action="store_true", help="everything as one JSON object")


def _add_check(commands: Any) -> None:
    check = commands.add_parser(
        "check", help="run a program that uses CuPy, check every access and count",
        description="Run a Python program that uses CuPy on simulated devices: it goes on after "
                    "findings, which are printed at its end, with what each kernel did.",
        epilog="exit status: the program's own where it fails; else 0 clean, 1 findings, 2 the "
               "program could not be run")
    check.set_defaults(command_of=_check)
    devices = check.add_argument_group("devices")
    devices.add_argument("--devices", type=_count, metavar="N", help="how many (2)")
    devices.add_argument("--arch", metavar="SM", help="what they are (sm_90)")
    devices.add_argument("--memory", metavar="SIZE", help="of each (4 GiB)")
    devices.add_argument("--seed", type=_whole, metavar="N",
                         help="of the order in which streams run; 0, the default, hurts most")
    devices.add_argument("--allocations", metavar="KIND",
                         help="pool: CuPy's memory pool, bounds of arrays known (the default); "
                              "separate: each array far from any other")
    checks = check.add_mutually_exclusive_group()
    checks.add_argument("--check", type=_checks, default=CHECKS, metavar="LIST",
                        help=f"only these of {','.join(CHECKS)}")
    checks.add_argument("--no-check", action="store_const", const=(), dest="check",
                        help="none of them")
    check.add_argument("--raise", action="store_true", dest="stop",
                       help="a finding is an error for the program, as on a GPU")
    counters = check.add_mutually_exclusive_group()
    counters.add_argument("--no-counters", action="store_false", dest="counters",
                          help="do not count what kernels do; faster")
    counters.add_argument("--source", action="append", default=[], metavar="KERNEL",
                          help="show this kernel's source with counts beside its lines")
    check.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file too")
    check.add_argument("program", type=Path, help="a Python file")
    check.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's own")


def _check(args: argparse.Namespace) -> int:
    from mlgpu.sim.check import check

    return check(args)


def _run(args: argparse.Namespace) -> int:
    from mlgpu.sim import Machine, roofline

    made = [make(form, args.seed, position) for position, form in enumerate(args.args)]
    printed = _buffers(args.printed, made, "--print")
    saved = {_buffers((index,), made, "--save")[0]: path for index, path in args.save}
    if args.roofline:
        roofline.find(args.roofline)  # before the work, not after it
    machine = Machine(arch=args.arch, findings="collect", checks=args.check,
                      schedule=args.schedule)
    template = "<" in args.kernel or "::" in args.kernel
    options = [*(f"-D{name}" for name in args.defines), *(f"-I{path}" for path in args.includes),
               *args.options]
    module = machine.module(args.file.read_text(encoding="utf-8"), options=tuple(options),
                            names=(args.kernel,) if template else (), filename=str(args.file))
    arguments = [item.place(machine) for item in made]
    report = None
    findings: list[Finding] = []
    try:
        report = module.kernel(args.kernel).launch(
            args.grid, args.block, arguments, shared_mem=args.shared_mem,
            cooperative=args.cooperative)
        findings = list(report.findings)
    except Finding as finding:  # one after which nothing can go on
        findings = [finding]
    arrays = {index: arguments[index].numpy() for index in {*printed, *saved}}
    for index, path in saved.items():
        np.save(path, arrays[index], allow_pickle=False)
    estimate = roofline.estimate(args.roofline, report.metrics) if (
        report is not None and args.roofline) else None
    values = {index: arrays[index] for index in printed}
    if args.json:
        print(json.dumps(_json(args, report, findings, values, estimate), indent=2))
    else:
        _print(args, report, findings, values, estimate)
    return 1 if findings else 0


def _print(args: argparse.Namespace, report: Any, findings: list[Finding],
           values: dict[int, np.ndarray[Any, Any]], estimate: Estimate | None) -> None:
    if report is not None and report.output:
        print(report.output, end="" if report.output.endswith("\n") else "\n")
    for index, array in values.items():
        print(f"argument {index}: {array.dtype} {'x'.join(map(str, array.shape))}")
        print(array)
    if report is not None:
        if args.source:
            print(report.source())
        if args.metrics:
            print(report.metrics.table())
    if estimate is not None:
        print(estimate)
    for finding in findings:
        print(finding)
    count = len(findings)
    print(f"{args.kernel}: grid {_shown(args.grid)}, block {_shown(args.block)}, {args.arch}: "
          f"{count or 'no'} finding{'' if count == 1 else 's'}"
          + ("" if args.check else " (checks are off)"))


def _json(args: argparse.Namespace, report: Any, findings: list[Finding],
          values: dict[int, np.ndarray[Any, Any]], estimate: Estimate | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "kernel": args.kernel, "arch": args.arch, "grid": args.grid, "block": args.block,
        "checks": args.check, "findings": [_finding(finding) for finding in findings],
        "arguments": {str(index): _plain(array.tolist()) for index, array in values.items()}}
    if report is not None:
        result["metrics"] = _plain(report.metrics.as_dict())
        result["output"] = report.output
        if args.source:
            result["source"] = report.source()
    if estimate is not None:
        result["estimate"] = {"device": estimate.device, "seconds": estimate.seconds,
                              "limiter": estimate.limiter, "bounds": estimate.bounds,
                              "left_out": estimate.left_out}
    return result


def _finding(finding: Finding) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(finding), "text": str(finding)}


def _plain(value: Any) -> Any:
    """Without what JSON cannot say: NaN and infinities become text."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _buffers(indices: tuple[int, ...] | None, made: list[Made], option: str) -> list[int]:
    """The arguments meant, all of which must be buffers; None: all that are."""
    if indices is None:
        return [i for i, item in enumerate(made) if item.buffer]
    for index in indices:
        if index >= len(made) or not made[index].buffer:
            from mlgpu.sim.errors import SimError

            raise SimError(f"{option} {index}: there is no such buffer among the "
                           f"{len(made)} arguments (counted from 0)")
    return list(indices)


def _dims(text: str) -> Shape:
    parts = text.replace("x", ",").split(",")
    if not 1 <= len(parts) <= 3 or not all(p.isascii() and p.isdigit() and int(p) for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 3 numbers such as 4,2")
    return tuple(int(part) for part in parts)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _bytes(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes")
    return int(text)


def _checks(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(CHECKS)}")
    return names


def _indices(text: str) -> tuple[int, ...] | None:
    if text == "all":
        return None
    if not all(part.isascii() and part.isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers such as 0,2, nor all")
    return tuple(int(part) for part in text.split(","))


def _saved(text: str) -> tuple[int, str]:
    index, equals, path = text.partition("=")
    if not (equals and path and index.isascii() and index.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not I=FILE.npy")
    return int(index), path


def _shown(dims: Shape) -> str:
    return "x".join(map(str, dims))
