"""Damaged PTX that is parsed, prepared and launched gives an error or a finding, nothing else."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from sim.corpus.program import FOLDER
from sim.mutate import mutated, only

from mlgpu import sim
from mlgpu.cuda import toolkit
from mlgpu.errors import MissingExtraError
from mlgpu.sim import nvrtc

EACH = 200  # texts of each kernel
SECONDS = 10.0  # of processor time that one text may take: five to ten times what any needs
MEMORY = 1 << 20  # KiB by which the process may grow


@dataclass(frozen=True)
class Subject:
    """A kernel of the corpus and a launch of it that runs to the end.

    Its arguments: `p` is a buffer of small numbers, `z` one of zeros, numbers are themselves, and
    `b24` is a struct of so many zeros.
    """

    name: str
    block: int
    args: str
    shared: int = 0
    grid: int = 2


SUBJECTS = [
    Subject("barriers.subset", 128, "p p"),
    Subject("bulk.column_sums", 32, "p z 4 8", 256),
    Subject("eight_bit.fp8_pairs", 32, "p p p 1.5 40"),
    Subject("elementwise.half2_fma", 32, "p p p b2 40"),
    Subject("elementwise.saxpy_float4", 32, "p p 1.5 99"),
    Subject("groups.copied", 64, "p p 200", 400),
    Subject("hints.redux", 32, "p p"),
    Subject("histogram.histogram_match", 32, "p z 50"),
    Subject("language.apply_by_pointer", 32, "p z 50"),
    Subject("language.calculator", 32, "p p p p 50"),
    Subject("language.jump_table", 32, "p z 50"),
    Subject("language.report", 4, "p 3"),
    Subject("maths.bit_fields", 32, "p p p 50"),
    Subject("maths.roundings", 32, "p p p p 50"),
    Subject("mbarrier.neighbours", 96, "p p 150"),
    Subject("mma_turing.gemm_wmma", 32, "p p p 16 16 16", grid=1),
    Subject("reduction.block_sum", 64, "p z 100", 256),
    Subject("sync.atomic_kinds", 32, "p p p p"),
    Subject("sync.shuffles", 64, "p p"),
    Subject("sync.spin_lock", 32, "z z p"),
]


class Hang(BaseException):
    """A text took too long."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise Hang after so much processor time, where the system can tell."""
    def stop(*_: Any) -> None:
        raise Hang

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def largest() -> int:
    """The KiB that the process took at most so far (0 where the system does not tell)."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@cache
def ptx(name: str) -> str:
    """The PTX of a kernel alone."""
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    family, kernel = name.split(".")
    try:
        whole = nvrtc.compile((FOLDER / f"{family}.cu").read_text(), "sm_90").ptx
    except sim.CompileError as error:
        if "cannot open source file" not in str(error):
            raise
        pytest.skip(f"{family}.cu includes a header that is not installed")
    return only(whole, kernel)


def launch(m: sim.Machine, subject: Subject, text: str) -> sim.Report:
    """Load a text and launch its first kernel."""
    mod = m.module(text)
    kernel = mod.kernel(mod.kernels[0] if mod.kernels else "none")
    args: list[Any] = []
    for word in subject.args.split():
        if word == "p":
            args.append(m.array(np.arange(1024, dtype=np.int32) % 7 + 1))
        elif word == "z":
            args.append(m.zeros(1024, np.int32))
        elif word[0] == "b":
            args.append(bytes(int(word[1:])))
        else:
            args.append(np.float32(word) if "." in word else np.uint32(word))
    try:
        return kernel.launch(subject.grid, subject.block, args, shared_mem=subject.shared)
    finally:
        for arg in args:
            if isinstance(arg, sim.Buffer):
                arg.free()


def outcome(m: sim.Machine, subject: Subject, text: str) -> str:
    """What became of a text; anything but a SimError passes through."""
    try:
        with at_most(SECONDS):
            launch(m, subject, text)
    except sim.Finding:
        return "found"
    except sim.SimError as error:
        too_long = len(str(error)) > 2000 and not isinstance(error, sim.CompileError)
        return "too long a message" if too_long else "refused"
    return "ran"


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
def test_mutated(subject: Subject) -> None:
    original = ptx(subject.name)
    machine = sim.Machine(arch="sm_90", watchdog=2000)
    assert launch(machine, subject, original).findings == []
    rng = random.Random(subject.name)
    counts = dict.fromkeys(("ran", "found", "refused"), 0)
    before = largest()
    for n in range(EACH):
        text = mutated(original, rng)
        start = time.process_time()
        try:
            counts[outcome(machine, subject, text)] += 1
        except (Exception, Hang) as error:
            raise AssertionError(f"{error!r} from mutation {n}:\n{text}") from error
        assert time.process_time() - start < 2 * SECONDS
    assert largest() - before < MEMORY
    assert counts["ran"] >= EACH // 10, f"too much damage to test anything: {counts}"
    assert counts["refused"] >= EACH // 10, f"too little damage to test anything: {counts}"
    assert launch(machine, subject, original).findings == []  # the machine is as good as new
