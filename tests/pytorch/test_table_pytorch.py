"""Every row of the op table against PyTorch: values, dtypes, shapes, views, gradients."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from eachrow import each_row
from table.case import TOLERANCE, Case, as_exact, close, flat, host, tensors

import mlgpu

torch = pytest.importorskip("torch", reason="comparison with PyTorch needs it installed")


@pytest.fixture(autouse=True)
def _quiet():
    """PyTorch's warnings about its own plans are not ours to fail on."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def theirs(case: Case, dtype: str, requires: bool):
    """The row's inputs in PyTorch, leaves as ours are."""
    made = []
    for i, array in enumerate(case.arrays(dtype)):
        if array.dtype == ml_dtypes.bfloat16:
            tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(array.copy())
        if not array.size:
            tensor = tensor.new_empty(tensor.shape)  # NumPy's strides are 0, PyTorch's are in order
        made.append(tensor.requires_grad_(requires and i in case.differentiated(dtype)))
    return made


def array_of(tensor):
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype is torch.bfloat16:
        return tensor.float().numpy()
    return tensor.numpy(force=True)  # zeros that PyTorch never made are made


def dtype_name(tensor):
    return str(tensor.dtype).rpartition(".")[2]


def call(case, inputs):
    """PyTorch's outputs; a dtype that it does not have on the CPU is skipped, and said so."""
    try:
        return flat(case.torch(torch, *inputs))
    except (RuntimeError, NotImplementedError) as error:
        if "not implemented for" in str(error) or "Unsupported dtype" in str(error):
            pytest.skip(f"PyTorch: {str(error).splitlines()[0]}")
        raise


@each_row(lambda case: case.dtypes if case.torch else ())
def test_forward(case: Case, dtype: str):
    inputs = theirs(case, dtype, False)
    expected = call(case, inputs)
    mine = tensors(case, dtype, False)
    found = flat(case.fn(*mine))
    assert len(found) == len(expected)
    tolerance = 2 * TOLERANCE.get(dtype, TOLERANCE["float32"]) * case.tolerance
    for y, z in zip(found, expected, strict=True):
        assert dtype_name(y) == dtype_name(z)
        close(host(y), array_of(z), tolerance, dtype)
        assert _aliases(y, mine) == _aliases_theirs(z, inputs), "views of different inputs"


def _aliases(y, inputs):
    """The inputs whose memory a result shares."""
    return [i for i, x in enumerate(inputs) if y._storage is x._storage and y.numel()]


def _aliases_theirs(y, inputs):
    def start(t):
        return t.untyped_storage().data_ptr()

    return [i for i, x in enumerate(inputs) if start(y) == start(x) and y.numel()]


@each_row(lambda case: [d for d in case.dtypes if case.torch and case.torch_gradient
                        and case.differentiated(d)])
def test_gradient(case: Case, dtype: str):
    inputs = theirs(case, dtype, True)
    expected = call(case, inputs)
    mine = tensors(case, dtype, True)
    found = flat(case.fn(*mine))
    assert [y.requires_grad for y in found] == [y.requires_grad for y in expected]
    found = [y for y in found if y.requires_grad]
    expected = [y for y in expected if y.requires_grad]
    rng = np.random.default_rng(5)
    weights = [_random(rng, y) for y in found]
    ours = mlgpu.autograd.grad(
        found, [x for x in mine if x.requires_grad],
        [mlgpu.tensor(w).to(y.dtype) for w, y in zip(weights, found, strict=True)],
        allow_unused=True)
    other = torch.autograd.grad(
        expected, [x for x in inputs if x.requires_grad],
        [torch.empty_like(y).copy_(torch.from_numpy(w))
         for w, y in zip(weights, expected, strict=True)],
        allow_unused=True)
    for i, g, h in zip(case.differentiated(dtype), ours, other, strict=True):
        assert (g is None) == (h is None), f"gradient of input {i}: {g} here, {h} there"
        if g is not None:
            assert dtype_name(g) == dtype_name(h)
            scale = max(1.0, float(np.abs(as_exact(array_of(h))).max(initial=0)))
            close(host(g), array_of(h), 4 * TOLERANCE[dtype] * case.tolerance * scale,
                  f"gradient of input {i} in {dtype}")


def _random(rng, y):
    w = rng.standard_normal(tuple(y.shape))
    return np.asarray(w + 1j * rng.standard_normal(w.shape) if y.dtype.is_complex else w)


