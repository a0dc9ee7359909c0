"""Rows for mlgpu/ops/slope.py and mlgpu/ops/histogram.py."""

from __future__ import annotations

import numpy as np
from table.case import FLOATS, INTS, In, both

PLACES = In((5,), make=lambda rng, shape: np.array([-1.0, -0.4, 0.1, 1.3, 2.0]))
FEW = In((4, 5), make=lambda rng, shape: rng.integers(-1, 2, shape))


def positions(size, fill):
    def reference(x):
        found = np.argwhere(x)[:size]
        return np.concatenate([found, np.full((size - len(found), x.ndim), fill)])

    return reference


CASES = [
    both("gradient", lambda lib, x: lib.gradient(x, spacing=0.5),
         lambda x: tuple(np.gradient(x, 0.5)), (In((4, 5)),)),
    both("gradient-edges", lambda lib, x: lib.gradient(x, spacing=(2.0, 0.25), edge_order=2),
         lambda x: tuple(np.gradient(x, 2.0, 0.25, edge_order=2)), (In((3, 5)),),
         dtypes=("float64", "complex128")),
    both("gradient-places", lambda lib, x, p: lib.gradient(x, spacing=[p], dim=-1, edge_order=2),
         lambda x, p: np.gradient(x, p, axis=-1, edge_order=2), (In((3, 5)), PLACES),
         dtypes=("float64", "float32")),
    both("histogram", lambda lib, x: tuple(lib.histogram(x, 4)), lambda x: np.histogram(x, 4),
         (In((4, 5)),), dtypes=("float64", "float32"), gradient=False),
    both("histogram-weighted",
         lambda lib, x, w: lib.histogram(x, 4, range=(-1.0, 1.5), weight=w, density=True).hist,
         lambda x, w: np.histogram(x, 4, (-1.0, 1.5), weights=w, density=True)[0],
         (In((4, 5)), In((4, 5), 0.1, 1)), dtypes=("float64",), gradient=(1,),
         torch_gradient=False),
    both("histogramdd", lambda lib, x, e: lib.histogramdd(x, [e, e]).hist,
         lambda x, e: np.histogramdd(x, [e, e])[0], (In((30, 2)), PLACES), dtypes=("float64",),
         gradient=False),
    both("nonzero_static", lambda lib, x: lib.nonzero_static(x, size=30), positions(30, -1), (FEW,),
         dtypes=(*FLOATS, *INTS, "bool"), gradient=False),
    both("nonzero_static-few", lambda lib, x: lib.nonzero_static(x, size=3, fill_value=7),
         positions(3, 7), (FEW,), dtypes=("float32",), gradient=False),
]
