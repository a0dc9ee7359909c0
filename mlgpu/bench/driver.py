"""Runs workloads: sets them up in every library, checks them, and times them in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import fresh, machine
from .check import errors, failures, worst
from .peers import BASELINE, PEERS
from .process import Process, WorkerError
from .record import Measure, Row, Run, interleaved
from .table import WORKLOADS
from .workload import Arrays, Workload


@dataclass(frozen=True)
class Settings:
    """How a run measures."""

    names: tuple[str, ...]
    peers: tuple[str, ...]
    rounds: int = 7
    threads: int = 1
    device: str = "cpu"
    tiny: bool = False
    seed: int = 0
    warm: float = 0.05  # seconds of calls before each sample
    least: float = 0.06  # seconds of calls in each sample


class Driver:
    """The worker processes of one run."""

    def __init__(self, settings: Settings,
                 workloads: Mapping[str, Workload] = WORKLOADS) -> None:
        self.settings = settings
        self.workloads = workloads
        self.peers = [name for name in settings.peers if PEERS[name].installed(settings.device)]
        self._processes: dict[tuple[str, str], Process] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="mlgpu-bench-")
        self.folder = Path(self._folder.name)
        s = settings
        self._setting = fresh.Setting(self.folder, s.rounds, s.threads, s.tiny, s.seed)

    def close(self) -> None:
        """End the workers."""
        for process in self._processes.values():
            process.close()
        self._folder.cleanup()

    def run(self, done: Callable[[Row], None]) -> Run:
        """Measure everything; `done` is told each row as it is finished."""
        found = Run(machine.facts(), dict(vars(self.settings)),
                    {name: machine.versions(PEERS[name]) for name in self.peers},
                    {name: PEERS[name].install for name in PEERS
                     if not PEERS[name].installed(self.settings.device)})
        for name in self.settings.names:
            row = self._fresh(name) if name in fresh.ROWS else self._row(self.workloads[name])
            found.rows.append(row)
            done(row)
        return found

    def _fresh(self, name: str) -> Row:
        peers = [peer for peer in self.peers
                 if PEERS[peer].kit in fresh.ROWS[name].kits and peer != "torch-compile"]
        return fresh.row(name, self._setting, peers)

    def _process(self, peer: str, dtype: str, device: str) -> Process:
        """The peer's process; a new one in place of one that ended."""
        found = self._processes.get((peer, dtype))
        if found is not None and not found.alive:
            found.close()
            found = None
        if found is None:
            found = Process(PEERS[peer], device, dtype, self.settings.threads)
            self._processes[peer, dtype] = found
        return found

    def _row(self, workload: Workload) -> Row:
        s = self.settings
        sizes = workload.tiny if s.tiny else workload.sizes
        row = Row(workload.name, workload.section, workload.title)
        if workload.bytes is not None:
            row.work = workload.bytes(sizes) / workload.operations, "B"
        elif workload.flops is not None:
            row.work = workload.flops(sizes) / workload.operations, "FLOP"
        inputs = self.folder / "inputs.npz"
        arrays = workload.arrays(s.seed, s.tiny)
        np.savez(inputs, **arrays)  # type: ignore[arg-type]  # NumPy declares its own options too
        try:
            row.reference, reference = self._reference(workload, arrays, inputs)
        except WorkerError as failed:
            row.measures = {peer: Measure(problem=f"float64: {failed}") for peer in self.peers}
            return row
        del arrays
        results: dict[str, Arrays] = {}
        for peer in self.peers:
            row.measures[peer] = measure = Measure()
            try:
                self._check(workload, peer, inputs, reference, results, measure)
            except WorkerError as failed:
                measure.failed(str(failed))
        results.clear()
        del reference
        timed = [p for p, m in row.measures.items() if not m.problem and not m.absent]
        interleaved(timed, s.rounds, lambda peer: self._sample(workload, peer, row.measures[peer]))
        for process in self._processes.values():
            if process.alive:
                process.ask("close")
        return row

    def _reference(self, workload: Workload, arrays: Arrays, inputs: Path) -> tuple[str, Arrays]:
        if workload.reference is not None:
            return "NumPy in float64", workload.reference(arrays)
        # Without PyTorch mlgpu's own NumPy path, in float64: the op table proves that one.
        peer = BASELINE if PEERS[BASELINE].installed() else "mlgpu-numpy"
        process = self._process(peer, "float64", "cpu")
        process.ask("setup", workload=workload.name, inputs=str(inputs))
        found = self._results(process)
        process.ask("close")
        return f"{peer} in float64", found

    def _results(self, process: Process) -> Arrays:
        path = self.folder / "results.npz"
        process.ask("results", into=str(path))
        with np.load(path) as archive:
            found = dict(archive)
        path.unlink()
        return found

    def _check(self, workload: Workload, peer: str, inputs: Path, reference: Arrays,
               results: dict[str, Arrays], measure: Measure) -> None:
        process = self._process(peer, "float32", self.settings.device)
        if not process.ask("setup", workload=workload.name, inputs=str(inputs)):
            measure.absent = "no form of this workload"
            return
        if PEERS[peer].part:
            return
        found = self._results(process)
        off = errors(found, reference)
        measure.error = worst(workload, off)
        wrong = failures(workload, off)
        if wrong:
            measure.failed("differs from float64: " + "; ".join(wrong))
        if peer == BASELINE:
            results[peer] = found
        elif BASELINE in results:
            measure.error_to_baseline = worst(
                workload, errors(found, results[BASELINE]))

    def _sample(self, workload: Workload, peer: str, measure: Measure) -> None:
        if measure.problem:
            return
        s = self.settings
        process = self._process(peer, "float32", s.device)
        try:
            sample: dict[str, Any] = process.ask("sample", warm=s.warm, least=s.least)
        except WorkerError as failed:
            measure.failed(str(failed))
            return
        measure.add(*(sample[name] / workload.operations for name in ("median", "best", "p99")))
