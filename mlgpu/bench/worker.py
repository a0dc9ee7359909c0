"""The process of one library: answers requests, one line of JSON each, until its input ends.

{"do": "start", peer, device, dtype, threads}     loads the library
{"do": "setup", workload, inputs}                 inputs: a .npz; answers whether there is a form
{"do": "results", into}                           writes outputs and gradients to a .npz
{"do": "sample", warm, least}                     one sample of the workload that is set up
{"do": "close"}                                   forgets the workload
An answer is {"ok": ...} or {"error": "its traceback"}.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from dataclasses import asdict
from typing import Any

import numpy as np

from . import clock
from .peers import PEERS
from .table import WORKLOADS
from .workload import Case


class Worker:
    """What the process holds between two requests."""

    def __init__(self) -> None:
        self.kit: Any = None
        self.case: Case | None = None

    def start(self, peer: str, device: str, dtype: str, threads: int) -> str:
        """Load the library."""
        if PEERS[peer].by_affinity and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        module = importlib.import_module(f".{PEERS[peer].kit}", __package__)
        self.kit = module.kit(peer, device, dtype, threads)
        return peer

    def setup(self, workload: str, inputs: str) -> bool:
        """Set a workload up."""
        self.close()
        with np.load(inputs) as archive:
            arrays = dict(archive)
        self.case = self.kit.case(WORKLOADS[workload], arrays)
        return self.case is not None

    def results(self, into: str) -> list[str]:
        """Write what the workload computes."""
        assert self.case is not None
        found = self.case.results()
        np.savez(into, **found)  # type: ignore[arg-type]  # NumPy declares its own options too
        return list(found)

    def sample(self, warm: float, least: float) -> dict[str, Any]:
        """Time it."""
        assert self.case is not None
        return asdict(clock.sample(self.case, self.kit.timer, warm, least))

    def close(self) -> None:
        """Let the workload's memory go."""
        self.case = None
        gc.collect()


def main() -> None:
    """Serve standard input until it ends."""
    # What libraries print must not reach the driver as an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(worker, request.pop("do"))(**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers)
