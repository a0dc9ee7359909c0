"""Rows for mlgpu/ops/view_copy.py, placed.py, native.py, segment_reduce.py, fractional_pool.py and
older names.

Each is made of an operation with rows of its own: so few dtypes.
"""

from __future__ import annotations

import numpy as np
from table.case import Case, In, both

import mlgpu

TWO = ("float64", "int32")
ONE = ("float64",)
X = In((2, 3, 4))


def copied(name, reference, *args, shape=(2, 3, 4), **options):
    """`name(x, *args)`, named for a view, as its reference; of the copies only the first has two
    rows on CUDA."""
    def call(library, x):
        found = getattr(library, name)(x.contiguous(), *args, **options)
        return tuple(found) if isinstance(found, (tuple, list)) else found

    return both(f"copy-{name}", call, reference, (In(shape),), dtypes=TWO, second=False)


def windows(x, size, step):
    return np.stack([x[..., i:i + size] for i in range(0, x.shape[-1] - size + 1, step)], -2)


def scattered(x, src):
    out = x.copy()
    out.reshape(-1)[[1, 4, 3, 6]] = src.reshape(-1)
    return out


def put(x, index, source, accumulate=False):
    out = x.copy()
    np.add.at(out.reshape(-1), index, source) if accumulate else np.put(out, index, source)
    return out


def layer_norm(x, eps=0.1):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + eps), mean, 1 / np.sqrt(var + eps)


def batch_norm(x, eps=0.1):
    mean, rstd = x.mean((0, 2)), 1 / np.sqrt(x.var((0, 2)) + eps)
    return (x - mean[:, None]) * rstd[:, None], mean, rstd


def group_norm(x, eps=0.1):
    groups = x.reshape(2, 2, -1)
    mean, rstd = groups.mean(-1), 1 / np.sqrt(groups.var(-1) + eps)
    return ((groups - mean[..., None]) * rstd[..., None]).reshape(x.shape), mean, rstd


def fractional(x, u, kernel, out, order):
    """The maximum of each window, and where it is."""
    dims = len(kernel)
    values = np.empty((*x.shape[:2], *out), x.dtype)
    places = np.empty(values.shape, np.int64)
    for at in np.ndindex(values.shape):
        plane, corner = x[at[:2]], []
        for d in range(dims):
            step = (plane.shape[d] - kernel[d]) / (out[d] - 1)
            first = u[at[:2]][order[d]]
            last = at[2 + d] == out[d] - 1
            corner.append(plane.shape[d] - kernel[d] if last
                          else int((at[2 + d] + first) * step) - int(first * step))
        window = plane[tuple(slice(c, c + k) for c, k in zip(corner, kernel, strict=True))]
        best = np.unravel_index(window.argmax(), window.shape)
        values[at] = window[best]
        places[at] = np.ravel_multi_index([c + b for c, b in zip(corner, best, strict=True)],
                                          plane.shape)
    return values, places


def pooled(dims, size, kernel, out, order):
    def call(library, x, u):
        pool = getattr(library.nn.functional, f"fractional_max_pool{dims}d")
        return pool(x, kernel, out, return_indices=True, _random_samples=u)

    return Case(f"fractional_max_pool{dims}d", lambda x, u: call(mlgpu, x, u),
                (In((2, 2, *size)), In((2, 2, dims), 0, 1)),
                lambda x, u: fractional(x, u, kernel, out, order),
                lambda library, x, u: call(library, x, u), dtypes=ONE, gradient=(0,))


def segments(lengths, reduce, axis, initial=None):
    """A row: each segment of an axis by NumPy's reduction."""
    shape = (5, 2) if axis == 0 else (2, 4)

    def call(library, x):
        options = {} if initial is None else {"initial": initial}
        if axis:
            ends = np.cumsum([[0, *row] for row in lengths], -1)
            options["offsets"] = library.tensor(ends, device=x.device)
        else:
            options["lengths"] = library.tensor(lengths, device=x.device)
        return library.segment_reduce(x, reduce, axis=axis, **options)

    def reference(x):
        neutral = {"sum": 0, "prod": 1, "max": -np.inf}[reduce] if initial is None else initial
        found = []
        for row in lengths if axis else [lengths]:
            part = x[len(found)] if axis else x
            cuts = np.split(part, np.cumsum(row)[:-1])
            found.append([getattr(np, reduce)(c, axis=0, initial=neutral) for c in cuts])
        return np.array(found if axis else found[0])

    return both(f"segment_reduce-{reduce}", call, reference, (In(shape),),
                dtypes=("float64", "float32"))


def sampled(library, x, grid, name):
    if library is mlgpu:
        return getattr(mlgpu, name)(x, grid, 0, 1, False)
    return library.nn.functional.grid_sample(x, grid, "bilinear", "border", False)


CASES = [
    copied("alias_copy", lambda x: x),
    copied("as_strided_copy", lambda x: x.reshape(-1)[[[1, 5], [3, 7]]], (2, 2), (2, 4), 1),
    copied("diagonal_copy", lambda x: x.diagonal(1, 0, 2), 1, 0, 2),
    copied("expand_copy", lambda x: np.broadcast_to(x, (2, 3, 4)), (2, 3, 4), shape=(3, 1)),
    copied("narrow_copy", lambda x: x[:, 1:], 1, 1, 2),
    copied("permute_copy", lambda x: x.transpose(2, 0, 1), (2, 0, 1)),
    copied("select_copy", lambda x: x[:, 1], 1, 1),
    copied("slice_copy", lambda x: x[..., 1:4:2], 2, 1, 4, 2),
    copied("split_copy", lambda x: (x[:, :2], x[:, 2:]), 2, 1),
    copied("split_with_sizes_copy", lambda x: (x[..., :1], x[..., 1:]), (1, 3), 2),
    copied("squeeze_copy", lambda x: x.squeeze(1), 1, shape=(2, 1, 3)),
    copied("t_copy", lambda x: x.T, shape=(2, 3)),
    copied("transpose_copy", lambda x: x.swapaxes(0, 2), 0, 2),
    copied("unbind_copy", lambda x: (x[:, 0], x[:, 1], x[:, 2]), 1),
    copied("unfold_copy", lambda x: windows(x, 3, 1), 2, 3, 1),
    copied("unsqueeze_copy", lambda x: x[:, None], 1),
    copied("view_copy", lambda x: x.reshape(6, 4), (6, 4)),
    both("copy-view_as_real_copy", lambda m, x: m.view_as_real_copy(x),
         lambda x: np.stack([x.real, x.imag], -1), (X,), dtypes=("complex128",), second=False),
    # PyTorch has no gradient of this one.
    Case("copy-view_as_complex_copy", lambda x: mlgpu.view_as_complex_copy(x.contiguous()),
         (In((3, 2)),), lambda x: x[..., 0] + 1j * x[..., 1], dtypes=ONE, second=False),
    copied("unsafe_chunk", lambda x: (x[..., :2], x[..., 2:]), 2, 2),
    copied("unsafe_split", lambda x: (x[:, :2], x[:, 2:]), 2, 1),
    copied("unsafe_split_with_sizes", lambda x: (x[..., :1], x[..., 1:]), (1, 3), 2),
    copied("fill", lambda x: np.full_like(x, 3), 3),
    copied("constant_pad_nd", lambda x: np.pad(x, ((0, 0), (0, 0), (1, 2)), constant_values=5),
           (1, 2), 5),
    # PyTorch's gradient of what is scattered into is that of what is overwritten.
    Case("as_strided_scatter", lambda x, src: mlgpu.as_strided_scatter(
        x.contiguous(), src, (2, 2), (2, 3), 1),
         (In((3, 3)), In((2, 2))), scattered, dtypes=TWO),
    both("put", lambda m, x, s: m.put(x, m.tensor([[0, -1], [4, 7]]), s.reshape(2, 2)),
         lambda x, s: put(x, [0, -1, 4, 7], s), (In((3, 4)), In((4,))), dtypes=TWO),
    both("put-accumulate", lambda m, x, s: m.put(x, m.tensor([1, 1, 5]), s, accumulate=True),
         lambda x, s: put(x, [1, 1, 5], s, True), (In((3, 4)), In((3,))), dtypes=TWO),
    both("put_", lambda m, x, s: x.clone().mT.put_(m.tensor([0, 2]), s),
         lambda x, s: put(x.T.copy(), [0, 2], s), (In((3, 4)), In((2,))), dtypes=ONE),
    # PyTorch leaves out what goes through the statistics of these two.
    Case("native-layer_norm", lambda x: mlgpu.native_layer_norm(x, (4,), None, None, 0.1), (X,),
         layer_norm, dtypes=ONE),
    Case("native-batch_norm",
         lambda x: mlgpu.native_batch_norm(x, None, None, None, None, True, 0.1, 0.1), (X,),
         batch_norm, dtypes=ONE, second=False),
    both("native-group_norm",
         lambda m, x: m.native_group_norm(x, None, None, 2, 4, 3, 2, 0.1), group_norm,
         (In((2, 4, 3)),), dtypes=ONE, second=False),
    *(Case(f"grid_sampler-{name}", lambda x, g, n=name: sampled(mlgpu, x, g, n),
           (In((1, 2, *size)), In((1, *size, len(size)), -0.9, 0.9)), None,
           lambda torch, x, g, n=name: sampled(torch, x, g, n), dtypes=ONE, gradient=False,
           second=False)
      for name, size in (("grid_sampler", (3, 3)), ("grid_sampler_2d", (3, 3)),
                         ("grid_sampler_3d", (2, 2, 2)))),
    segments([2, 0, 3], "sum", 0),
    segments([[1, 3], [4, 0]], "max", 1, 0.5),
    segments([2, 3], "prod", 0, 2.0),
    pooled(2, (6, 7), (2, 3), (3, 4), (1, 0)),
    pooled(3, (5, 5, 4), (2, 2, 1), (3, 2, 3), (0, 1, 2)),
    both("native-upsample_nearest",
         lambda m, x: m.nn.functional.upsample_nearest(x, scale_factor=2),
         lambda x: x.repeat(2, -1).repeat(2, -2), (In((1, 2, 2, 3)),), dtypes=ONE),
    both("native-upsample_bilinear", lambda m, x: m.nn.functional.upsample_bilinear(x, size=(3, 3)),
         lambda x: np.stack([x[..., 0], x.mean(-1), x[..., 1]], -1), (In((1, 1, 3, 2)),),
         dtypes=ONE),
]
