"""Workloads in tinygrad: each call is one function of TinyJit, and waits for its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tinygrad import Device, Tensor, TinyJit

from . import clock
from .workload import Arrays, Case, Workload


def _mlp(x: Any, *p: Any) -> Any:
    for i in (0, 2):
        x = (x @ p[i].T + p[i + 1]).relu()
    return x @ p[4].T + p[5]


def _norm(x: Any, weight: Any, bias: Any) -> Any:
    return x.layernorm(eps=1e-5) * weight + bias


def _conv(x: Any, weight: Any, bias: Any) -> Any:
    return x.conv2d(weight, bias, padding=1)


# By the family of the workload: a function, and the inputs it is given.
FORMS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "mlp_infer1": (_mlp, ("x", *(f"{i}.{n}" for i in (0, 2, 4) for n in ("weight", "bias")))),
    "conv_f": (_conv, ("x", "weight", "bias")),
    "gemm": (lambda a, b: a @ b, ("a", "b")),
    "bmm_qk": (lambda q, k: q @ k.transpose(-1, -2), ("q", "k")),
    "bmm_av": (lambda p, v: p @ v, ("p", "v")),
    "softmax": (lambda x: x.softmax(-1), ("x",)),
    "ln_f": (_norm, ("x", "weight", "bias")),
    "gelu": (lambda x: x.gelu(), ("x",)),
    "silu": (lambda x, gate: x.silu() * gate, ("x", "gate")),
    "add": (lambda x, y: x + y, ("x", "y")),
}


class TinygradKit:
    """tinygrad on the CPU in float32, with its default optimisation."""

    timer = staticmethod(clock.host)

    def case(self, workload: Workload, arrays: Arrays) -> Case | None:
        """The workload set up; None where it has no form here."""
        if workload.family not in FORMS:
            return None
        function, names = FORMS[workload.family]
        operands = [Tensor(arrays[name], device="CPU").realize() for name in names]
        run = TinyJit(lambda *given: function(*given).realize())

        def call() -> None:
            run(*operands)
            Device["CPU"].synchronize()

        def results() -> Arrays:
            for _ in range(3):  # the first run computes, the second captures, later ones replay
                found: np.ndarray[Any, Any] = run(*operands).numpy().copy()
            return {"output": found}

        return Case(call, results)


def kit(peer: str, device: str, dtype: str, threads: int) -> TinygradKit:
    """The kit.  tinygrad takes its threads from the environment."""
    return TinygradKit()
