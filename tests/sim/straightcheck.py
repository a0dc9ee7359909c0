"""Compares instructions with references in Python integers, on edge values and random ones."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sim.straight import run_line

from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import SIZES

Reference = Callable[..., Any]


def bits(value: int, width: int) -> int:
    """The value modulo 2**width."""
    return value & ((1 << width) - 1)


def signed(value: int, width: int) -> int:
    """The lowest bits of a value as a signed number."""
    value = bits(value, width)
    return value - (value >> (width - 1) << width)


def width_of(type: str) -> int:
    """How many bits values of a type have."""
    return 1 if type == "pred" else 8 * SIZES[type]


def of_type(value: int, type: str) -> int:
    """An integer wrapped into the range of a type."""
    wrap = signed if type[0] == "s" and "x" not in type else bits
    return wrap(value, width_of(type))


def edges(type: str) -> list[int]:
    """Values of a type where things go wrong, most telling first."""
    if type == "pred":
        return [0, 1]
    w = width_of(type)
    top = 1 << (w - 1)
    near = [0, 1, -1, top, top - 1, 2, -2, top + 1, top - 2, 3, 7, w - 1, w, w + 1, 255, 256]
    patterns = [0x0123456789ABCDEF, 0xFEDCBA9876543210, 0x5555555555555555, 0x8000800080008000,
                0x7FFF80007FFF8000, 0x80FF7F0180FF7F01, 1 << (w // 2), (1 << (w // 2)) - 1]
    return list(dict.fromkeys(of_type(value, type) for value in near + patterns))


AMOUNTS = [0, 1, 5, 7, 8, 15, 16, 17, 24, 31, 32, 33, 47, 63, 64, 65, 127, 128, 254, 255, 256, 257,
           288, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, (1 << 32) - 1]


def cases(types: list[str], pools: Mapping[int, list[int]], count: int = 250) -> list[list[int]]:
    """Columns of values: every pair of edges for up to two sources, then random mixtures."""
    chosen = [pools.get(k) or edges(type) for k, type in enumerate(types)]
    source = random.Random(repr(types))
    rows = list(itertools.product(*chosen)) if len(types) <= 2 else []

    def draw(k: int) -> int:
        if k in pools or source.random() < 0.5:
            return source.choice(chosen[k])
        w = width_of(types[k])
        return of_type(source.getrandbits(source.randint(1, w)) * source.choice([1, -1]), types[k])

    rows += [tuple(draw(k) for k in range(len(types))) for _ in range(count)]
    return [list(column) for column in zip(*rows, strict=True)]


def check(text: str, sources: Mapping[str, str], results: Mapping[str, str], reference: Reference,
          pools: Mapping[str, list[int]] | None = None) -> None:
    """The instruction's results equal the reference's: a number, or a tuple of one per result.

    `sources` and `results` give the type of each register; the reference takes the sources as
    Python integers of their types.  Pools replace the values that a source takes.
    """
    names, types = list(sources), list(sources.values())
    pools = pools or {}
    columns = cases(types, {names.index(name): pool for name, pool in pools.items()})
    _compare(text, sources, results, reference, dict(zip(names, columns, strict=True)))
    # Broadcasting: sources that vary by block, by thread, or not at all.
    for turn in range(len(names)):
        shaped = {}
        for k, name in enumerate(names):
            shape = ((3, 1), (1, 4), (1, 1))[(k + turn) % 3]
            picked = columns[k][turn * 7:][:shape[0] * shape[1]]
            shaped[name] = np.reshape(np.array(picked, object), shape)
        _compare(text, sources, results, reference, shaped)


def _compare(text: str, sources: Mapping[str, str], results: Mapping[str, str],
             reference: Reference, values: Mapping[str, Any]) -> None:
    inputs = {name: _array(values[name], type) for name, type in sources.items()}
    got = run_line(text, {**sources, **results}, inputs)
    shape = np.broadcast_shapes(*(array.shape for array in inputs.values()))
    expanded = [np.broadcast_to(np.atleast_2d(np.array(values[name], object)), shape).ravel()
                for name in sources]
    outcomes = {name: np.broadcast_to(got[name], shape).ravel().tolist() for name in results}
    for k, given in enumerate(zip(*expanded, strict=True)):
        wanted = reference(*(int(value) for value in given))
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        for (name, type), value in zip(results.items(), wanted, strict=True):
            have = bits(int(outcomes[name][k]), width_of(type))
            assert have == bits(int(value), width_of(type)), (
                f"{text} of {[hex(v) for v in given]}: {name} is {have:#x}, not {value:#x}")


def _array(values: Any, type: str) -> np.ndarray[Any, Any]:
    flat = np.atleast_2d(np.array(values, object))
    dtype = DTYPES[type]
    if dtype.kind == "b":
        return flat.astype(bool)
    return np.array([[bits(v, width_of(type)) for v in row] for row in flat.tolist()],
                    f"u{dtype.itemsize}").view(dtype)
