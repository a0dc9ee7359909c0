"""Rows for mlgpu/ops/view.py and mlgpu/ops/part.py."""

from __future__ import annotations

import numpy as np
from table.case import ALL, Case, In

import mlgpu

A = In((2, 3, 5))
M = In((3, 5))


def row(name, fn, reference, inputs=(A,), torch=None, **options):
    """A row whose call is the same in both libraries, unless `torch` says otherwise."""
    return Case(name=name, fn=fn, inputs=inputs, reference=reference,
                torch=torch or (lambda torch, *xs: fn(*xs)), dtypes=ALL, **options)


CASES = [
    row("reshape", lambda x: x.reshape(5, -1), lambda x: x.reshape(5, 6)),
    row("reshape-tuple", lambda x: x.reshape((6, 5)), lambda x: x.reshape(6, 5)),
    row("reshape-empty", lambda x: x.reshape(0, 7), lambda x: x.reshape(0, 7), (In((3, 0)),)),
    row("reshape-transposed", lambda x: x.mT.reshape(2, 15),
        lambda x: x.swapaxes(1, 2).reshape(2, 15)),
    row("reshape_as", lambda x, y: x.reshape_as(y), lambda x, y: x.reshape(y.shape),
        (In((6,)), In((2, 3)))),
    row("view", lambda x: x.contiguous().view(6, 5), lambda x: x.reshape(6, 5)),
    row("view_as", lambda x, y: x.contiguous().view_as(y), lambda x, y: x.reshape(y.shape),
        (In((6,)), In((2, 3)))),
    row("flatten", lambda x: x.flatten(), lambda x: x.reshape(-1)),
    row("flatten-dims", lambda x: x.flatten(1, 2), lambda x: x.reshape(2, 15)),
    row("flatten-scalar", lambda x: x.flatten(), lambda x: x.reshape(1), (In(()),)),
    row("unflatten", lambda x: x.contiguous().unflatten(-1, (1, -1)),
        lambda x: x.reshape(2, 3, 1, 5)),
    row("ravel", lambda x: x.ravel(), lambda x: x.reshape(-1)),
    row("squeeze", lambda x: x.squeeze(), lambda x: x.reshape(3, 5), (In((1, 3, 1, 5)),)),
    row("squeeze-dim", lambda x: x.squeeze(0), lambda x: x[0], (In((1, 3, 1)),)),
    row("squeeze-dims", lambda x: x.squeeze((0, 1)), lambda x: x[0], (In((1, 3, 1)),)),
    row("unsqueeze", lambda x: x.unsqueeze(-2), lambda x: x[:, :, None]),
    row("transpose", lambda x: x.transpose(0, -1), lambda x: x.swapaxes(0, 2)),
    row("swapaxes", lambda x: x.swapaxes(0, 1), lambda x: x.swapaxes(0, 1)),
    row("permute", lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1)),
    row("movedim", lambda x: x.movedim((0, 1), (-1, 0)), lambda x: np.moveaxis(x, (0, 1), (-1, 0))),
    row("t", lambda x: x.t(), lambda x: x.T, (M,)),
    row("T", lambda x: x.T, lambda x: x.T, (M,)),
    row("mT", lambda x: x.mT, lambda x: x.swapaxes(1, 2)),
    row("expand", lambda x: x.expand(4, -1, 5), lambda x: np.broadcast_to(x, (4, 3, 5)),
        (In((3, 1)),)),
    row("expand_as", lambda x, y: x.expand_as(y), lambda x, y: np.broadcast_to(x, y.shape),
        (In((1, 5)), M)),
    row("broadcast_to", lambda x: x.broadcast_to((2, 3, 5)),
        lambda x: np.broadcast_to(x, (2, 3, 5)), (M,)),
    row("broadcast_tensors", lambda x, y: mlgpu.broadcast_tensors(x, y),
        lambda x, y: tuple(np.broadcast_arrays(x, y)), (In((3, 1)), In((5,))),
        torch=lambda torch, x, y: torch.broadcast_tensors(x, y)),
    row("select", lambda x: x.select(1, -1), lambda x: x[:, -1]),
    row("narrow", lambda x: x.narrow(2, 1, 3), lambda x: x[:, :, 1:4]),
    row("narrow-empty", lambda x: x.narrow(0, 2, 0), lambda x: x[2:2]),
    row("split", lambda x: x.split(2, 2), lambda x: (x[..., :2], x[..., 2:4], x[..., 4:])),
    row("split-sizes", lambda x: x.split((4, 1), -1), lambda x: (x[..., :4], x[..., 4:])),
    row("chunk", lambda x: x.chunk(3, 2), lambda x: (x[..., :2], x[..., 2:4], x[..., 4:])),
    row("tensor_split", lambda x: x.tensor_split(3, 2), lambda x: tuple(np.array_split(x, 3, 2))),
    row("tensor_split-indices", lambda x: x.tensor_split((1, 7), 2),
        lambda x: (x[..., :1], x[..., 1:], x[..., 5:])),
    row("unbind", lambda x: x.unbind(1), lambda x: (x[:, 0], x[:, 1], x[:, 2])),
    row("diagonal", lambda x: x.diagonal(1, 0, 2), lambda x: x.diagonal(1, 0, 2)),
    row("diagonal-below", lambda x: x.diagonal(-1), lambda x: x.diagonal(-1), (M,)),
]
