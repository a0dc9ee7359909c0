"""A module of ours beside PyTorch's of the same name, with the same weights."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu import nn


def torch():
    return pytest.importorskip("torch", reason="comparison with PyTorch needs it installed")


def twins(name: str, *args, **kwargs):
    """(ours, PyTorch's), in float64, with the weights PyTorch drew."""
    library = torch()
    library.manual_seed(0)
    theirs = getattr(library.nn, name)(*args, **kwargs).double()
    mine = getattr(nn, name)(*args, **kwargs).double()
    copy_weights(theirs, mine)
    return mine, theirs


def copy_weights(theirs, mine) -> None:
    assert [(k, tuple(v.shape)) for k, v in theirs.state_dict().items()] == [
        (k, tuple(v.shape)) for k, v in mine.state_dict().items()]
    mine.load_state_dict({k: mlgpu.tensor(v.numpy()) for k, v in theirs.state_dict().items()})


def leaves(values, constants=()):
    """The arrays as tensors of both libraries; floating ones, but `constants`, require grad."""
    library = torch()
    grads = [v.dtype.kind == "f" and k not in constants for k, v in enumerate(values)]
    return ([mlgpu.tensor(v, requires_grad=g) for v, g in zip(values, grads, strict=True)],
            [library.tensor(v, requires_grad=g) for v, g in zip(values, grads, strict=True)])


def flat(result) -> list:
    """The tensors of a result, in order."""
    if isinstance(result, (tuple, list)):
        return [tensor for part in result for tensor in flat(part)]
    return [] if result is None else [result]


def compare(mine, theirs, *inputs, tolerance: float = 1e-10, constants=(), **options) -> None:
    """Same outputs, and same gradients of inputs and parameters for random output gradients."""
    ours, other = leaves(inputs, constants)
    found, expected = flat(mine(*ours, **options)), flat(theirs(*other, **options))
    close(found, expected, tolerance)
    rng = np.random.default_rng(1)
    kept = [k for k, y in enumerate(expected) if y.requires_grad]
    assert kept == [k for k, y in enumerate(found) if y.requires_grad]
    if not kept:
        return
    grads = [rng.standard_normal(tuple(expected[k].shape)) for k in kept]
    mlgpu.autograd.backward([found[k] for k in kept], [mlgpu.tensor(g) for g in grads])
    torch().autograd.backward([expected[k] for k in kept], [torch().tensor(g) for g in grads])
    pairs = [*zip(ours, other, strict=True),
             *zip(parameters(mine), parameters(theirs), strict=True)]
    close([a.grad for a, _ in pairs], [b.grad for _, b in pairs], tolerance)
    close(buffers(mine), buffers(theirs), tolerance)


def parameters(module) -> list:
    return list(module.parameters()) if hasattr(module, "parameters") else []


def buffers(module) -> list:
    return list(module.buffers()) if hasattr(module, "buffers") else []


def close(found: list, expected: list, tolerance: float) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert tuple(a.shape) == tuple(b.shape)
            assert repr(a.dtype).split(".")[1] == str(b.dtype).split(".")[1]
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance,
                                       atol=tolerance)
