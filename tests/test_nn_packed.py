"""Packed sequences: what packing does, recurrences over them, and PyTorch's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import twin

import mlgpu
from mlgpu import nn
from mlgpu.errors import ShapeError
from mlgpu.nn.utils import rnn

LENGTHS = [3, 5, 1, 3]
KINDS = [("RNN", {}), ("GRU", {"num_layers": 2, "bidirectional": True}),
         ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
         ("LSTM", {"proj_size": 2, "bias": False})]


def sequences(features=4):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((n, features)) for n in LENGTHS]


def states(mode, options, number=4):
    """A state to begin with, drawn."""
    rng = np.random.default_rng(1)
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    sizes = [options.get("proj_size", 3), 3][:1 + (mode == "LSTM")]
    return [rng.standard_normal((count, number, size)) for size in sizes]


def test_packing(device):
    values = [mlgpu.tensor(s).requires_grad_() for s in sequences()]
    packed = rnn.pack_sequence(values, enforce_sorted=False)
    assert packed.batch_sizes.tolist() == [4, 3, 3, 1, 1]
    assert packed.sorted_indices.tolist() == [1, 0, 3, 2]
    assert packed.unsorted_indices.tolist() == [1, 0, 3, 2]
    rows = [sequences()[i][step] for step in range(5) for i in (1, 0, 3, 2) if step < LENGTHS[i]]
    np.testing.assert_array_equal(packed.data.detach().cpu().numpy(), rows)
    for found, expected in zip(rnn.unpack_sequence(packed), sequences(), strict=True):
        np.testing.assert_array_equal(found.detach().cpu().numpy(), expected)
    padded, lengths = rnn.pad_packed_sequence(packed, True, -1.0, total_length=7)
    assert lengths.tolist() == LENGTHS
    assert padded.shape == (4, 7, 4)
    assert (padded[2, 1:] == -1).all()
    padded.sum().backward()
    assert all((v.grad == 1).all() for v in values)
    assert packed.to(mlgpu.float32).data.dtype is mlgpu.float32


@pytest.mark.parametrize(("mode", "options"), KINDS, ids=range(len(KINDS)))
@pytest.mark.parametrize("given", [False, True])
def test_recurrence(mode, options, given, device):
    """Each sequence as if it were alone: outputs, last states, and gradients."""
    layer = getattr(nn, mode)(4, 3, **options).double()
    inputs = [mlgpu.tensor(s).requires_grad_() for s in sequences()]
    start = [mlgpu.tensor(s) for s in states(mode, options)]
    hx = None if not given else tuple(start) if mode == "LSTM" else start[0]
    output, last = layer(rnn.pack_sequence(inputs, enforce_sorted=False), hx)
    outputs = rnn.unpack_sequence(output)
    last = last if mode == "LSTM" else (last,)
    gradients = mlgpu.autograd.grad(sum((y * y).sum() for y in outputs)
                                    + sum(s.sin().sum() for s in last), inputs)
    for i, values in enumerate(sequences()):
        x = mlgpu.tensor(values).requires_grad_()
        one = [s[:, i] for s in start]
        alone, end = layer(x, None if not given else tuple(one) if mode == "LSTM" else one[0])
        end = end if mode == "LSTM" else (end,)
        np.testing.assert_allclose(outputs[i].detach().cpu().numpy(),
                                   alone.detach().cpu().numpy(), rtol=1e-12)
        for found, expected in zip(last, end, strict=True):
            np.testing.assert_allclose(found[:, i].detach().cpu().numpy(),
                                       expected.detach().cpu().numpy(), rtol=1e-12)
        (dx,) = mlgpu.autograd.grad((alone * alone).sum() + sum(s.sin().sum() for s in end), (x,))
        np.testing.assert_allclose(gradients[i].cpu().numpy(), dx.cpu().numpy(), rtol=1e-9,
                                   atol=1e-14)


@pytest.mark.parametrize(("mode", "options"), KINDS, ids=range(len(KINDS)))
def test_equals_pytorch(mode, options):
    torch = twin.torch()
    mine, theirs = twin.twins(mode, 4, 3, **options)
    results = []
    for library, layer, tools in ((mlgpu, mine, rnn), (torch, theirs, torch.nn.utils.rnn)):
        padded = tools.pad_sequence([library.tensor(s) for s in sequences()])
        packed = tools.pack_padded_sequence(padded, library.tensor(LENGTHS), enforce_sorted=False)
        output, last = layer(packed)
        results.append([output.data, output.batch_sizes, output.sorted_indices,
                        output.unsorted_indices, *tools.pad_packed_sequence(output),
                        *(last if mode == "LSTM" else (last,))])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize(("call", "match"), [
    (lambda x: rnn.pack_padded_sequence(x, [2, 1]), "one for each"),
    (lambda x: rnn.pack_padded_sequence(x, [2, 0, 1]), "between 1"),
    (lambda x: rnn.pack_padded_sequence(x, [1, 2, 1]), "must fall"),
    (lambda x: rnn.pad_packed_sequence(rnn.pack_padded_sequence(x, [2, 2, 1]), total_length=1),
     "at least 2"),
    (lambda x: nn.GRU(5, 3)(rnn.pack_padded_sequence(x, [2, 2, 1])), "packed data"),
    (lambda x: nn.GRU(4, 3)(rnn.pack_padded_sequence(x, [2, 2, 1]), mlgpu.ones(1, 2, 3)),
     "state must have"),
], ids=range(6))
def test_errors(call, match):
    with pytest.raises(ShapeError, match=match):
        call(mlgpu.ones(2, 3, 4))
