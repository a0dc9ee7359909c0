"""Rows for mlgpu/signal/windows.py."""

from __future__ import annotations

from scipy.signal import windows
from table.case import Case

import mlgpu

PLAIN = {"bartlett": {}, "blackman": {}, "cosine": {}, "hamming": {}, "hann": {}, "nuttall": {},
         "exponential": {"tau": 2.0}, "gaussian": {"std": 1.5}, "kaiser": {"beta": 7.0},
         "general_cosine": {"a": (0.4, 0.3, 0.2, 0.1)}, "general_hamming": {"alpha": 0.6}}


def row(name, size, sym, dtype="float64", **options):
    def fn(lib):
        return getattr(lib.signal.windows, name)(size, sym=sym, dtype=getattr(lib, dtype),
                                                 **options)

    def reference():
        return getattr(windows, name)(size, sym=sym, **options)

    return Case(f"{name}-{size}-{sym}-{dtype}", lambda: fn(mlgpu), (), reference, fn, (dtype,),
                gradient=False)


CASES = [row(name, size, sym, **options) for name, options in PLAIN.items()
         for size, sym in ((0, True), (1, False), (2, True), (7, False), (8, True))]
CASES.append(row("exponential", 6, False, "float32", center=1.25, tau=1.5))
