"""The op table on CUDA: every row computes what it computes on the CPU, gradients included.

The CPU's results are proven by tests/test_table.py.  Here each operation's first row runs in
float32 (or its first dtype); of every fourth operation the second row, or where there is none the
first again, in another, and every tenth one from there in a dtype that differs from row to row.
MLGPU_TABLE=all runs each in every dtype.
`pytest --device cuda tests/test_table.py` proves the rows on the device all by themselves.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from eachrow import operation
from table.case import TOLERANCE, Case, close, flat, host, rows, tensors

import mlgpu

EVERY = os.environ.get("MLGPU_TABLE") == "all"


def chosen(cases: list[tuple[str, Case]]) -> Iterator[tuple[str, Case, str]]:
    """Rows of one operation, with the dtypes to run them in."""
    further = zlib.crc32(operation(cases[0][0]).encode()) % 4 == 1
    for place, (name, case) in enumerate(cases):
        number = zlib.crc32(name.encode())
        first = "float32" if "float32" in case.dtypes else case.dtypes[0]
        others = [d for d in case.dtypes if d != first] or [first]
        if EVERY:
            dtypes = list(case.dtypes)
        elif place == 0:
            dtypes = [first, others[number % len(others)]] if len(cases) == 1 and further else [
                first]
        elif place == 1:
            dtypes = [others[number % len(others)]] if further else []
        else:
            dtypes = [case.dtypes[number % len(case.dtypes)]] if place % 10 == 1 else []
        yield from ((name, case, dtype) for dtype in dict.fromkeys(dtypes))


def operations() -> list[list[tuple[str, Case]]]:
    """The rows of each operation."""
    found: dict[str, list[tuple[str, Case]]] = {}
    for name, case in rows():
        found.setdefault(operation(name), []).append((name, case))
    return list(found.values())


PAIRS = [pytest.param(case, dtype, id=f"{name}-{dtype}")
         for cases in operations() for name, case, dtype in chosen(cases)]


def results(case: Case, dtype: str, device: str):
    """The outputs of a row, and its gradients where it has any."""
    with mlgpu.Device(device):
        return computed(case, dtype, device)


def computed(case: Case, dtype: str, device: str):
    mlgpu.manual_seed(5)
    wanted = bool(case.differentiated(dtype))
    inputs = tensors(case, dtype, wanted, device)
    outputs = flat(case.fn(*inputs))
    roots = [y for y in outputs if y.requires_grad] if wanted else []
    if not roots:
        return outputs, []
    rng = np.random.default_rng(3)
    weights = [mlgpu.tensor(rng.standard_normal(tuple(y.shape)), device=device).to(y.dtype)
               for y in roots]
    leaves = [x for x in inputs if x.requires_grad]
    return outputs, mlgpu.autograd.grad(roots, leaves, weights, allow_unused=True,
                                        materialize_grads=True)


@pytest.mark.parametrize(("case", "dtype"), PAIRS)
def test_cuda_computes_what_the_cpu_does(case: Case, dtype: str):
    outputs, gradients = results(case, dtype, "cuda")
    expected, derivatives = results(case, dtype, "cpu")
    tolerance = 2 * TOLERANCE.get(dtype, TOLERANCE["float32"]) * case.tolerance
    assert len(outputs) == len(expected)
    for k, (y, z) in enumerate(zip(outputs, expected, strict=True)):
        stays = case.name.startswith(("cpu", "to-device", "from_numpy"))
        assert y.is_cuda or stays, f"output {k} is on the CPU"
        assert y.dtype is z.dtype
        assert y.shape == z.shape
        close(host(y), host(z), tolerance, f"output {k}")
    for k, (g, h) in enumerate(zip(gradients, derivatives, strict=True)):
        assert g.is_cuda, f"gradient {k} is on the CPU"
        assert g.dtype is h.dtype
        scale = max(1.0, float(np.abs(host(h).astype(np.complex128)).max(initial=0)))
        close(host(g), host(h), 2 * tolerance * scale, f"gradient {k}")
