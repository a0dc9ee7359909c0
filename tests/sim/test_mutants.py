"""Every mutant of the good corpus is caught, or shown to leave what the launches do as it was.

A mutant of synchronisation must be found by a sanitizer, or give wrong numbers when each warp runs
alone as far as it gets; one of data may give wrong numbers anyhow.  What survives is accounted for:

- The program's launches cannot tell: a probe in the mutant's place (mutants.py) never traps.
- Data: every byte of memory is the same in the end, and no rule was broken on the way.
- The table `ALIVE` says why nothing is lost.

By default a sample of programs and mutants is tried; MLGPU_MUTANTS=all tries all (a quarter of an
hour), for the target that MLGPU_MUTANTS_TARGET names.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from sim.corpus.program import PROGRAMS, Program, programs
from sim.mutants import Mutant, called, mutants

from mlgpu import sim
from mlgpu.sim.machine import Module
from mlgpu.sim.ptx import syntax

TARGET = os.environ.get("MLGPU_MUTANTS_TARGET", "sm_90")
ALL = os.environ.get("MLGPU_MUTANTS") == "all"
SEED, SAMPLE, EACH = 5, 70, 4
PATIENCE = 60  # seconds: wrong numbers may send a program's own Python round and round

# Why a mutant of synchronisation may live.
LAST_USE = "what the barrier keeps apart is not used again"
OWN = "every thread reads only what it has written itself"
ONE_WARP = "the threads that meet here are of one warp"
ORDERED = "other synchronisation orders these accesses already"
IN_THE_WORD = "the word carries its value; it announces nothing else"
OF_THE_HOST = "the host wrote the word, and nobody has changed it yet"
UNUSED_STAGE = "the first wait for a stage that nobody has used passes at once"
OWN_ARRIVAL = "the thread's own arrival ended the phase"
NOBODY_WAITS = "the last arrival: nobody waits for it"
GUESS = "a guess for compare-and-swap may be stale"
NO_GROUPS = "wait_all waits for copies in no group, too"
SAME_LANE = "the lane that loads an element of an accumulator stores it, too"
ENDS = "shared memory has been read; the end of the kernel waits for the rest"

ANY_SCALE = "any number near the largest serves as the scale"
STANDING = "the timer need not have moved"
NO_ZERO = "no element is zero"
ONE_MORE = "a step more changes nothing any more"
FURTHER = "without a tile's prefix, the others look further back"
IN_ORDER = "a thread's volatile reads stay in order"

DATA = ("address shifted", "comparison of equals changed", "store removed")
BARRIER = ("barrier removed", "barrier of the warp only")
NARROW = ("barrier of the warp only",)
LANES = ("warp barrier removed",)
FENCE = ("fence removed", "fence weakened")
WEAK = ("strong access made weak",)
RELAXED = ("order relaxed",)
ANY_ORDER = ("order relaxed", "scope narrowed", "strong access made weak")
WAIT = ("mbarrier not awaited",)
ARRIVAL = ("no arrival at mbarrier",)
COMMIT = ("copies not committed",)
BULK_WAIT = ("copies not awaited", "one group more may be pending")

# Source and function, kinds of mutants, what their line begins with, why they may live.
ALIVE: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("attention.merge_splits", DATA, "for (int i = 0; i < splits; i++) best", ANY_SCALE),
    ("barriers.chain", WEAK, "if (t < 5) ready[t]", ORDERED),
    ("barriers.ring", RELAXED, "asm volatile(\"ld.acquire.cta", ORDERED),
    ("barriers.sort_groups", NARROW, "asm volatile(\"bar.sync", ONE_WARP),
    ("bulk.gemm_blocked", WAIT, ":: \"r\"(shared_address(&barrier))", UNUSED_STAGE),
    ("bulk.gemm_blocked", LANES, "__syncwarp();", NOBODY_WAITS),
    ("bulk.gemm_blocked", ARRIVAL, ":: \"r\"(shared_address(&barrier))", NOBODY_WAITS),
    ("bulk.rms_norm", BULK_WAIT, "if (lane == 0) asm volatile(\"cp.async.bulk.wait_group 0", ENDS),
    ("gemm_async.gemm_narrow", COMMIT, "asm volatile(\"cp.async.commit_group", NO_GROUPS),
    ("grid.largest", BARRIER, "__syncthreads();", ONE_WARP),
    ("grid.ring_reduce", DATA, "for (int step = 0;", ONE_MORE),
    ("grid.search", ANY_ORDER, "asm volatile(\"ld.acquire", ORDERED),
    ("grid.sum_last_block", WEAK, "for (int b = 0; b < gridDim.x", ORDERED),
    ("grid.sum_last_block", BARRIER, "__syncthreads();", ONE_WARP),
    ("groups.normalise", BARRIER, "grid.sync();", OWN),
    ("hints.carved", BARRIER, "__syncthreads();", ONE_WARP),
    ("language.timing", DATA, "out[4 * threadIdx.x + 2] = later - timer;", STANDING),
    ("libcu.gemm_pipeline", WEAK, "auto pipe", ORDERED),
    ("libcu.gemm_pipeline", WAIT, "pipe.producer_acquire();", UNUSED_STAGE),
    ("libcu.gemm_pipeline", ("fence removed", "order relaxed", *NARROW), "block.sync();", ORDERED),
    ("libcu.products", WEAK, "int old = p.load", GUESS),
    ("libcu.products", WEAK, "t.fetch_max", GUESS),
    ("libcu.specialised", WEAK, "auto pipe", ORDERED),
    ("libcu.specialised", ("fence removed", "order relaxed", *NARROW), "block.sync();", ORDERED),
    ("mbarrier.dropping_out", WEAK, "seen = ", ORDERED),
    ("mbarrier.pending", WAIT, ": \"=r\"(done)", OWN_ARRIVAL),
    ("mbarrier.pending", WEAK, "*(volatile Barrier*)&barrier = 5", OWN),
    ("mbarrier.pending", WEAK, "counts[3] = *(volatile Barrier*)&barrier", OWN),
    ("mbarrier.scan_by_phases", ARRIVAL, ": \"=l\"(state)", NOBODY_WAITS),
    ("mbarrier.scan_by_phases", WAIT, ": \"=r\"(done)", OWN),
    ("reduction.argmax", DATA, "bits = bits >> 31", NO_ZERO),
    ("reduction.block_sum_unrolled", LANES, "__syncwarp();", LAST_USE),
    ("reduction.sum_last_block_volatile", WEAK, "partial[blockIdx.x] = sum", ORDERED),
    ("reduction.sum_last_block_volatile", WEAK, "for (int b = 0; b < gridDim.x", ORDERED),
    ("rownorm.add_rms_norm", BARRIER, "__syncthreads();", LAST_USE),
    ("rownorm.layer_norm", BARRIER, "__syncthreads();", LAST_USE),
    ("rownorm.log_softmax_half", BARRIER, "__syncthreads();", LAST_USE),
    ("rownorm.softmax_block", BARRIER, "__syncthreads();", LAST_USE),
    ("scan.blelloch", BARRIER, "__syncthreads();", ONE_WARP),
    ("scan.hillis_steele_in_place", BARRIER, "__syncthreads();", LAST_USE),
    ("scan.partition_even", BARRIER, "__syncthreads();", LAST_USE),
    ("scan.scan_lookback_acquire", BARRIER, "__syncthreads();", LAST_USE),
    ("scan.scan_lookback_acquire", DATA, "asm volatile(\"st.release", FURTHER),
    ("scan.scan_lookback_acquire", DATA, "for (int look = mine - 1;", FURTHER),
    ("scan.scan_lookback_acquire", RELAXED, "asm volatile(\"", IN_THE_WORD),
    ("scan.scan_lookback_fence", BARRIER, "__syncthreads();", LAST_USE),
    ("scan.scan_lookback_fence", FENCE, "__threadfence();  // acquires", IN_ORDER),
    ("scan.scan_lookback_fence", WEAK, "", ORDERED),
    ("scan.scan_tiles", BARRIER, "__syncthreads();", LAST_USE),
    ("sort.bitonic_pairs", NARROW, "__syncthreads();", ONE_WARP),
    ("sort.kth_smallest", BARRIER, "__syncthreads();", LAST_USE),
    ("sort.top_k", LANES, "__syncwarp();", OWN),
    ("sync.jacobi", DATA, "for (int s = 0; s < sweeps; ++s) {", ONE_MORE),
    ("sync.lock_by_lane", WEAK, "*count = *count + 1", ORDERED),
    ("sync.swap_loops", WEAK, "int seen = ", GUESS),
    ("sync.swap_loops", WEAK, "unsigned short seen = ", GUESS),
    ("sync.ticket_lock", ("order relaxed", "scope narrowed"), "asm volatile(\"ld.acquire",
     OF_THE_HOST),
    ("sync.warp_exchange", LANES, "__syncwarp();", LAST_USE),
    ("wmma.gemm_half", LANES, "__syncwarp();", SAME_LANE),
    # From sm_100 on, NVRTC peels the last turn off these loops, and the barrier at its end is dead.
    *([("*.*gemm_*", BARRIER, "__syncthreads();", LAST_USE),
       ("mma_hopper.gemm_stmatrix", LANES, "__syncwarp();", LAST_USE)]
      if TARGET in ("sm_100", "sm_120") else []),
)

class Outcome(NamedTuple):
    """How a run ended."""

    found: str  # "racecheck: read after write", "wrong numbers", "" (nothing)
    memory: str  # a digest of every byte in the end


class Recorded(Module):
    """A module that knows which of its kernels were asked for."""

    asked: set[str]

    def kernel(self, name: str) -> Any:
        """The kernel of that name."""
        kernel = super().kernel(name)
        self.asked.add(kernel.name)
        return kernel


class Subject:
    """A program whose mutants are tried."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.good = load(program)
        self.watchdog = 2_000
        outcome = self.run(self.good.parsed)
        if outcome.found.startswith("watchdog"):
            self.watchdog = 20_000
            outcome = self.run(self.good.parsed)
        assert not outcome.found, outcome.found
        self.memory = outcome.memory
        self.functions = called(self.good.parsed, self.asked)

    def run(self, parsed: syntax.Module,
            schedule: Literal["lockstep", "warps"] = "lockstep") -> Outcome:
        """Run the program with another version of its module."""
        good = self.good
        m = sim.Machine(arch=TARGET, counters=False, watchdog=self.watchdog, schedule=schedule)
        module = Recorded(m, parsed, good.ptx, good.lowered, good.source, good.filename)
        self.asked = module.asked = set()
        found = ""
        try:
            with patience():
                self.program.run(m, module)
        except sim.Finding as finding:
            found = f"{finding.tool}: {finding.kind}"
        except Endless:
            found = "endless"
        except sim.LaunchError:
            found = "launch"
        except Exception as error:
            if is_ours(error):
                raise
            found = "wrong numbers"  # an assertion, or a fault of Python that follows from them
        digest = hashlib.sha1()
        for region in m.space.regions:
            digest.update(region.data.tobytes())
        return Outcome(found, digest.hexdigest())

    def mutants(self) -> list[Mutant]:
        """All mutants of what the program launches."""
        return list(mutants(self.good.parsed, self.functions))

    def verdict(self, mutant: Mutant) -> str:
        """What catches the mutant, or why it may live; "" where neither is known."""
        outcome = self.run(mutant.applied(self.good.parsed))
        if outcome.found:
            if not mutant.synchronises or outcome.found != "wrong numbers":
                return outcome.found
        elif not mutant.synchronises and outcome.memory == self.memory:
            return "memory is the same"
        elif self.run(mutant.probed(self.good.parsed)).found != "program: trap":
            return "the launches cannot tell"
        why = reason(self.program, mutant)
        if not why and mutant.synchronises:
            why = self.run(mutant.applied(self.good.parsed), "warps").found
        return why


class Endless(Exception):
    """The program does not end."""


@contextmanager
def patience() -> Iterator[None]:
    """Let what runs here take a minute at most."""
    def stop(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def is_ours(error: Exception) -> bool:
    """Whether the simulated GPU itself broke down."""
    frame, ours = error.__traceback__, False
    while frame is not None:
        ours |= Path(sim.__file__).parent in Path(frame.tb_frame.f_code.co_filename).parents
        frame = frame.tb_next
    return ours


def reason(program: Program, mutant: Mutant) -> str:
    """What the table says of a mutant."""
    text = line_of(program, mutant)
    for function, kinds, start, why in ALIVE:
        if (fnmatchcase(f"{program.source.stem}.{mutant.function}", function)
                and mutant.kind in kinds and text.startswith(start)):
            return why
    return ""


def line_of(program: Program, mutant: Mutant) -> str:
    """The line of the program's own source that the mutant stems from."""
    at = mutant.instruction.location
    for place in (f"{at.file}:{at.line}", *at.calls):
        file, _, line = place.rpartition(":")
        if Path(file).name == "kernel.cu":
            return program.source.read_text().splitlines()[int(line) - 1].strip()
    return ""


@cache
def load(program: Program) -> Module:
    try:
        module = program.load(sim.Machine(arch=TARGET))
    except sim.CompileError as error:
        if any(f'cannot open source file "{h}"' in str(error) for h in program.headers):
            pytest.skip("a header is not installed")
        raise
    assert isinstance(module, Module)
    return module


def tried() -> list[str]:
    """The programs whose mutants are tried."""
    names = sorted(name for name, p in programs().items() if p.exists_on(TARGET))
    return names if ALL else sorted(random.Random(SEED).sample(names, SAMPLE))


def sample(found: list[Mutant], name: str) -> list[Mutant]:
    """All mutants, or a few of both classes."""
    if ALL:
        return found
    chance = random.Random(f"{SEED} {name}")
    chance.shuffle(found)
    return [m for m in found if m.synchronises][:EACH] + [
        m for m in found if not m.synchronises][:EACH]


def caught_elsewhere(name: str, mutant: Mutant) -> bool:
    """Whether another program that launches the same code catches the mutant."""
    mine = PROGRAMS[name]
    return any(
        Subject(p).verdict(mutant) for other, p in PROGRAMS.items()
        if other != name and (p.source, p.options, p.names) == (
            mine.source, mine.options, mine.names) and mutant.function in Subject(p).functions)


@pytest.mark.parametrize("name", tried())
def test_mutants(name: str) -> None:
    subject = Subject(PROGRAMS[name])
    alive = [m for m in sample(subject.mutants(), name)
             if not subject.verdict(m) and not caught_elsewhere(name, m)]
    assert not alive, "\n".join(f"{m}: {line_of(subject.program, m)}" for m in alive)
