"""`mlgpu bench`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from contextlib import closing
from pathlib import Path
from typing import Any

from mlgpu.errors import DeviceError

NAMES = "torch mlgpu mlgpu-numpy bare traffic torch-compile jax tinygrad onnxruntime"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def add(commands: Any) -> None:
    """Declare the command.  Nothing of the suite is imported before it runs."""
    bench = commands.add_parser(
        "bench", help="time mlgpu against other libraries, results checked first",
        description="Times mlgpu against other installed libraries, interleaved, with the results "
                    "of every pair checked first.  Exits with 1 where a check fails.")
    bench.add_argument("--only", nargs="+", metavar="NAME",
                       help="these workloads or sections (--list names them)")
    bench.add_argument("--peers", nargs="+", metavar="PEER",
                       help=f"libraries, of {NAMES}, or all (default: torch mlgpu mlgpu-numpy)")
    bench.add_argument("--rounds", type=int, default=None,
                       help="samples of each (default: 7, with --gate 3)")
    bench.add_argument("--threads", type=int, default=_cores(),
                       help="for every library (default: the cores that it may use)")
    bench.add_argument("--device", default="cpu", help="cpu or cuda")
    bench.add_argument("--seed", type=int, default=0, help="of the inputs")
    bench.add_argument("--tiny", action="store_true",
                       help="small sizes: tries the suite out, measures nothing")
    bench.add_argument("--bars", action="store_true",
                       help="only workloads that mlgpu is held to a ratio in")
    bench.add_argument("--gate", action="store_true",
                       help="a few robust ratios with slack; exits with 1 where one is not met")
    bench.add_argument("--list", action="store_true", help="name the workloads and stop")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    bench.add_argument("--chart", type=Path, metavar="FILE",
                       help="draw the ratios (.svg or .png; needs the extra bench)")
    bench.add_argument("--markdown", type=Path, metavar="FILE",
                       help="write a page as docs/performance.md")
    bench.set_defaults(run=run, command_line=None)


def _chosen(args: argparse.Namespace, problem: Any) -> tuple[str, ...]:
    """The names of the rows to measure, in the order of the table."""
    from mlgpu.bench import fresh
    from mlgpu.bench.bars import BARS, GATES
    from mlgpu.bench.table import WORKLOADS

    sections = {name: w.section for name, w in WORKLOADS.items()
                if not w.cuda or args.device != "cpu"}
    if args.device == "cpu":
        sections |= dict.fromkeys(fresh.ROWS, "process")
    wanted = list(sections)
    if args.bars or args.gate:
        wanted = [name for name in sections if name in (BARS if args.bars else GATES)]
    if args.only:
        known = {*sections, *sections.values()}
        unknown = [name for name in args.only if name not in known]
        if unknown:
            problem(f"no workload or section is named {', '.join(unknown)}; "
                    "mlgpu bench --list names them")
        wanted = [n for n in wanted if n in args.only or sections[n] in args.only]
    return tuple(wanted)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from mlgpu.bench import fresh, report
    from mlgpu.bench.bars import BARS, GATES, verdict
    from mlgpu.bench.driver import Driver, Settings
    from mlgpu.bench.peers import PEERS
    from mlgpu.bench.table import WORKLOADS

    def refuse(text: str) -> None:
        raise SystemExit(f"mlgpu bench: {text}")

    rounds = args.rounds if args.rounds is not None else 3 if args.gate else 7
    if rounds < 1 or args.threads < 1:
        refuse("--rounds and --threads are at least 1")
    names = _chosen(args, refuse)
    if args.list:
        for name in names:
            row = WORKLOADS[name] if name in WORKLOADS else fresh.ROWS[name]
            section = getattr(row, "section", "process")
            print(f"{name:20} {section:12} {row.title}")
        return 0
    cuda = args.device != "cpu"
    peers = args.peers or [name for name, peer in PEERS.items() if peer.default]
    if peers == ["all"]:
        peers = list(PEERS)
    for name in peers:
        if name not in PEERS:
            refuse(f"no library is named {name}; there are {', '.join(PEERS)}")
    if args.peers and args.peers != ["all"]:
        for name in peers:
            if not PEERS[name].installed(args.device):
                refuse(f"{name} is not installed ({PEERS[name].install})")
    if cuda:
        import mlgpu

        reason = mlgpu.cuda.unavailable_reason()
        if reason is not None:
            raise DeviceError(f"mlgpu bench --device {args.device}: {reason}")
        peers = [name for name in peers if PEERS[name].cuda]
    ordered = tuple(name for name in PEERS if name in peers)
    settings = Settings(names, ordered, rounds, args.threads, args.device, args.tiny,
                        args.seed, **{"warm": 0.0, "least": 0.001} if args.tiny else {})
    bars = {} if args.tiny or cuda else GATES if args.gate else BARS

    from mlgpu.bench import machine

    for text in report.heading(machine.facts()):
        print(text)
    print(report.line(report.HEAD), flush=True)
    with closing(Driver(settings)) as driver:
        found = driver.run(lambda row: print("\n".join(report.lines(row, bars)), flush=True))
    for text in report.summary(found, bars):
        print(text)
    for name, install in found.absent.items():
        print(f"not installed: {name} ({install})")
    if args.json:
        args.json.write_text(json.dumps(found.as_dict(), indent=1) + "\n")
    if args.chart:
        from mlgpu.bench import chart

        chart.draw(found, args.chart)
    if args.markdown:
        given = [f"--device {args.device}"] if cuda else []
        given += ["--bars"] if args.bars else []
        given += [f"--peers {' '.join(args.peers)}"] if args.peers else []
        given += [f"--only {' '.join(args.only)}"] if args.only else []
        given += [f"--{name} {shlex.quote(str(getattr(args, name)))}"
                  for name in ("rounds", "markdown", "chart", "json") if getattr(args, name)]
        picture = os.path.relpath(args.chart, args.markdown.parent) if args.chart else None
        args.markdown.write_text(report.markdown(
            found, " ".join(["mlgpu bench", *given]), picture))
    missed = args.gate and any(
        judged[1] == "not met" for row in found.rows for peer in row.measures
        if (judged := verdict(bars, row, peer)) is not None)
    return int(bool(found.problems()) or missed)
