"""Whether two libraries computed the same."""

from __future__ import annotations

import math

import numpy as np

from .workload import Array, Arrays, Workload


def error(found: Array, expected: Array) -> float:
    """max |found - expected| / max |expected|; infinite where shapes differ, or for NaN or inf."""
    if found.shape != expected.shape or not (np.isfinite(found).all()
                                             and np.isfinite(expected).all()):
        return math.inf
    if not expected.size:
        return 0.0
    largest, worst = 0.0, 0.0
    flat, reference = found.reshape(-1), expected.reshape(-1)
    for start in range(0, flat.size, 1 << 20):  # float64 copies of the whole take gigabytes
        part = slice(start, start + (1 << 20))
        theirs = reference[part].astype(np.float64)
        worst = max(worst, float(np.max(np.abs(flat[part].astype(np.float64) - theirs))))
        largest = max(largest, float(np.max(np.abs(theirs))))
    return worst / largest if largest else (0.0 if worst == 0 else math.inf)


def errors(found: Arrays, expected: Arrays) -> dict[str, float]:
    """The error of each result that both have; one that only one of them has is infinite."""
    return {name: error(found[name], expected[name])
            if name in found and name in expected else math.inf
            for name in found.keys() | expected.keys()}


def worst(workload: Workload, found: dict[str, float]) -> float:
    """The largest error of what rounding alone moves."""
    return max(value for name, value in found.items() if name not in workload.statistics)


def failures(workload: Workload, found: dict[str, float]) -> list[str]:
    """What exceeds the workload's tolerances, in words."""
    said = []
    for name, value in sorted(found.items()):
        bound = {**workload.tolerances, **workload.statistics}.get(name, workload.tolerance)
        if not value <= bound:
            said.append(f"{name}: error {value:.1e} of the largest value, bound {bound:.0e}")
    return said
