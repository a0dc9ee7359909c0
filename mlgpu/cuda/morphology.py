"""Greyscale morphology on the device: kernels/morphology.cu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.constants import constant
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.types import ctype

Taps = Sequence[tuple[int, int]]
THREADS = 256
_MAP = np.dtype([("count", "i8"), ("height", "i4"), ("width", "i4"), ("taps", "i4")], align=True)


def best(x: Any, taps: Taps, least: bool, chosen: Any) -> tuple[Any, Any]:
    """The best element of each, and in the dtype `chosen`, where it is one, which tap it is."""
    out = runtime.empty(x.shape, x.dtype)
    choice = None if chosen is None else runtime.empty(x.shape, chosen)
    kinds = f"{ctype(x.dtype)}, {ctype(chosen or np.dtype(np.uint8))}, {str(least).lower()}"
    _launch(f"morphology_best<{kinds}>", x, taps, (runtime.contiguous(x),), (out, choice))
    return out, choice


def take(x: Any, taps: Taps, choice: Any) -> Any:
    """The element that `choice` names."""
    out = runtime.empty(x.shape, x.dtype)
    _launch(f"morphology_take<{ctype(x.dtype)}, {ctype(choice.dtype)}>", x, taps,
            (runtime.contiguous(x), choice), (out,))
    return out


def give(dy: Any, taps: Taps, choice: Any) -> Any:
    """The adjoint of `take`."""
    out = runtime.empty(dy.shape, dy.dtype)
    _launch(f"morphology_give<{ctype(dy.dtype)}, {ctype(choice.dtype)}>", dy, taps,
            (runtime.contiguous(dy), choice), (out,))
    return out


def _launch(name: str, x: Any, taps: Taps, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    if not x.size:
        return
    map = np.zeros(1, _MAP)
    map["count"], map["taps"] = x.size, len(taps)
    map["height"], map["width"] = x.shape[-2:]
    launch("morphology", name, blocks(x.size, THREADS), THREADS,
           (*before, constant(np.asarray(taps, np.int32)), *after, map))
