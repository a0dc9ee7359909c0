"""The op table on CUDA: every row computes what it computes on the CPU, gradients included.

The CPU's results are proven by tests/test_table.py.  Here each operation's first row runs in
float32 (or its first dtype) and in one other, its second and every third one of the rest in one
dtype that differs from row to row; MLGPU_TABLE=all runs each in every dtype.
`pytest --device cuda tests/test_table.py` proves the rows on the device all by themselves.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter

import numpy as np
import pytest
from table.case import TOLERANCE, Case, close, flat, host, rows, tensors

import mlgpu

EVERY = os.environ.get("MLGPU_TABLE") == "all"


def chosen(name: str, case: Case, seen: Counter[str]) -> list[str]:
    """The dtypes that a row runs in; `seen`: how many rows an operation has had."""
    if EVERY:
        return list(case.dtypes)
    number = zlib.crc32(name.encode())
    operation = name.partition("-")[0]
    seen[operation] += 1
    if seen[operation] > 1:
        runs = seen[operation] % 3 == 2
        return [case.dtypes[number % len(case.dtypes)]] if runs else []
    first = "float32" if "float32" in case.dtypes else case.dtypes[0]
    others = [d for d in case.dtypes if d != first]
    return [first, others[number % len(others)]] if others else [first]


SEEN: Counter[str] = Counter()
PAIRS = [pytest.param(c, d, id=f"{n}-{d}") for n, c in rows() for d in chosen(n, c, SEEN)]


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
