"""An optimizer's step over 25 million parameters."""

from __future__ import annotations

import numpy as np

from .workload import Arrays, Case, Kit, Sizes, Workload, normal

STEPS = 3  # before results are compared


def _inputs(random: np.random.Generator, s: Sizes) -> Arrays:
    """One matrix and one vector with their gradients: every layer starts as a copy of them."""
    n = s["width"]
    return {"matrix": normal(random, n, n), "vector": normal(random, n),
            "d matrix": normal(random, n, n), "d vector": normal(random, n),
            "layers": np.array(s["layers"])}


def _build(kit: Kit, arrays: Arrays, fused: bool) -> Case:
    parameters = []
    for _ in range(int(arrays["layers"])):
        for name in ("matrix", "vector"):
            parameter = kit.tensor(arrays[name], True)
            parameter.grad = kit.tensor(arrays[f"d {name}"])
            parameters.append(parameter)
    options = {"fused": True} if fused else {}
    step = kit.compile(kit.lib.optim.AdamW(parameters, lr=1e-3, **options).step)

    def results() -> Arrays:
        for _ in range(STEPS):
            step()
        return {"matrix": kit.numpy(parameters[0]), "vector": kit.numpy(parameters[-1])}

    return Case(step, results)


def _reference(arrays: Arrays) -> Arrays:
    found = {}
    for name in ("matrix", "vector"):
        p, g = (arrays[key].astype(np.float64) for key in (name, f"d {name}"))
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t in range(1, STEPS + 1):
            p *= 1 - 1e-3 * 1e-2
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            p -= 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        found[name] = p
    return found


def workloads() -> list[Workload]:
    """Both of them: PyTorch with its default loop, and with `fused=True`; mlgpu is the same."""
    sizes, tiny = {"width": 1024, "layers": 24}, {"width": 5, "layers": 2}

    def moved(s: Sizes) -> float:
        return 28.0 * s["layers"] * s["width"] * (s["width"] + 1)

    return [Workload("adamw25M", "optimizers", "AdamW, 25 million parameters in 48 tensors",
                     _inputs, lambda k, a: _build(k, a, False), sizes, tiny, bytes=moved,
                     reference=_reference),
            Workload("adamw25M_fused", "optimizers",
                     "AdamW, 25 million parameters, against PyTorch's fused",
                     _inputs, lambda k, a: _build(k, a, True), sizes, tiny, bytes=moved,
                     reference=_reference)]
