"""Rows for mlgpu/ops/pool.py and max_pool.py: max, average, power-average, adaptive pooling."""

from __future__ import annotations

import itertools
import math

import numpy as np
from table.case import FLOATS, In, both


def distinct(rng, shape):
    """Values apart from each other: each window has one maximum."""
    return rng.permutation(np.linspace(-2, 2, math.prod(shape))).reshape(shape)


def few(rng, shape):
    """Values with ties, infinities and NaN."""
    return rng.choice([1.0, 1.5, -np.inf, np.inf, np.nan, 0.0, -1.0], shape,
                      p=[0.25, 0.2, 0.15, 0.05, 0.05, 0.2, 0.1])


def per_axis(value, axes):
    return value if isinstance(value, tuple) else (value,) * axes


# --- windows, as a list of lists of elements for each axis ----------------------------------------


def sliding(sizes, kernel, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Windows that start every `stride`; with ceil_mode also one that is cut off."""
    axes = len(sizes)
    steps = per_axis(kernel if stride is None else stride, axes)
    found = []
    for n, k, s, p, d in zip(sizes, per_axis(kernel, axes), steps, per_axis(padding, axes),
                             per_axis(dilation, axes), strict=True):
        starts = itertools.takewhile(
            lambda start: start + d * (k - 1) < n + p or (  # noqa: B023
                ceil_mode and start < n and start - s + d * (k - 1) < n + p - 1),  # noqa: B023
            itertools.count(-p, s))
        found.append([[start + d * tap for tap in range(k)] for start in starts])
    return found


def adaptive(sizes, output):
    given = per_axis(output, len(sizes))
    return [[list(range(i * n // m, -(-(i + 1) * n // m))) for i in range(m)]
            for n, m in zip(sizes, (n if m is None else m for m, n in zip(given, sizes,
                                                                          strict=True)),
                            strict=True)]


def pooled(x, windows, fold):
    """fold(values, flat places, elements outside too) for each window, values last."""
    axes = len(windows)
    sizes = x.shape[-axes:]
    flat = x.reshape(*x.shape[:-axes], math.prod(sizes))
    out = []
    for window in itertools.product(*windows):
        inside = [[i for i in part if 0 <= i < n] for part, n in zip(window, sizes, strict=True)]
        places = np.ravel_multi_index(np.ix_(*inside), sizes).reshape(-1)
        padded = [[i for i in part if i < n + outside] for part, n, outside in zip(
            window, sizes, (-min(p[0] for p in w) for w in windows), strict=True)]
        out.append(fold(flat[..., places], places, math.prod(map(len, padded))))
    shape = (*x.shape[:-axes], *map(len, windows))
    return np.stack(out, -1).reshape(shape) if out else np.zeros(shape)


def maximum(values, places, count):
    return values.max(-1)


def first_place(values, places, count):
    """Of the maximum: the first in order, or the last NaN."""
    nan = values.shape[-1] - 1 - np.isnan(values)[..., ::-1].argmax(-1)
    return places[np.where(np.isnan(values).any(-1), nan, values.argmax(-1))]


# --- rows -----------------------------------------------------------------------------------------


def row(name, tag, shape, reference, *args, make=None, low=-2.0, dtypes=FLOATS, gradient=True,
        second=True, **options):
    return both(f"{name}-{tag}",
                lambda library, x: getattr(library.nn.functional, name)(x, *args, **options),
                reference, (In(shape, low, make=make),), dtypes=dtypes, gradient=gradient,
                second=second)


def max_pool(axes, tag, shape, kernel, make=distinct, dtypes=FLOATS, gradient=True, **options):
    """Two rows: the maxima alone, and with their places."""
    def windows(x):
        return sliding(x.shape[-axes:], kernel, **options)

    for indices in (False, True):
        def reference(x, indices=indices):
            y = pooled(x, windows(x), maximum)
            return (y, pooled(x, windows(x), first_place)) if indices else y

        more = {"return_indices": True} if indices else {}
        yield row(f"max_pool{axes}d", tag + "-indices" * indices, shape, reference, kernel,
                  make=make, dtypes=dtypes, gradient=gradient, second=gradient, **options, **more)


def avg_pool(axes, tag, shape, kernel, include=True, divisor=None, dtypes=FLOATS, **options):
    def mean(values, places, count):
        return values.sum(-1) / (divisor or (count if include else len(places)))

    def reference(x):
        return pooled(x, sliding(x.shape[-axes:], kernel, **options), mean)

    more = dict(options)
    if not include:
        more["count_include_pad"] = False
    if divisor:
        more["divisor_override"] = divisor
    return row(f"avg_pool{axes}d", tag, shape, reference, kernel, dtypes=dtypes, **more)


def lp_pool(axes, tag, shape, order, kernel, low=0.5, make=None, **options):
    def norm(values, places, count):
        # PyTorch's windows that are cut off count as full ones with the same mean.
        full = math.prod(per_axis(kernel, axes))
        return ((values**order).sum(-1) * full / len(places)) ** (1 / order)

    def reference(x):
        return pooled(x, sliding(x.shape[-axes:], kernel, **options), norm)

    return row(f"lp_pool{axes}d", tag, shape, reference, order, kernel, low=low, make=make,
               **options)


def adaptives(axes, tag, shape, size):
    def windows(x):
        return adaptive(x.shape[-axes:], size)

    def mean(values, places, count):
        return values.mean(-1)

    yield row(f"adaptive_avg_pool{axes}d", tag, shape,
              lambda x: pooled(x, windows(x), mean), size)
    yield row(f"adaptive_max_pool{axes}d", tag, shape,
              lambda x: pooled(x, windows(x), maximum), size, make=distinct)
    yield row(f"adaptive_max_pool{axes}d", f"{tag}-indices", shape,
              lambda x: (pooled(x, windows(x), maximum), pooled(x, windows(x), first_place)), size,
              make=distinct, return_indices=True)


WIDE = ("float64", "float32")

CASES = [
    *max_pool(1, "plain", (2, 3, 11), 3),
    *max_pool(1, "overlap", (2, 3, 11), 3, stride=1, padding=1),
    *max_pool(1, "gaps", (2, 3, 11), 2, stride=3),
    *max_pool(1, "dilation", (2, 3, 13), 3, stride=2, dilation=2, padding=1),
    *max_pool(1, "ceil", (2, 3, 11), 3, stride=4, ceil_mode=True),
    *max_pool(1, "ceil padding", (2, 3, 10), 4, stride=3, padding=2, ceil_mode=True),
    *max_pool(1, "unbatched", (3, 11), 2),
    *max_pool(1, "empty batch", (0, 3, 11), 2),
    *max_pool(1, "nan", (4, 5, 13), 3, stride=2, make=few, gradient=False),
    *max_pool(2, "plain", (2, 3, 7, 5), 2),
    *max_pool(2, "integers", (2, 3, 7, 5), 2, make=None, gradient=False,
              dtypes=("int64", "int32", "int16", "int8", "uint8")),
    *max_pool(2, "tuples", (2, 3, 9, 8), (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    *max_pool(2, "overlap", (2, 2, 7, 6), 3, stride=1, padding=1),
    *max_pool(2, "ceil", (2, 3, 8, 7), 3, stride=2, padding=1, ceil_mode=True),
    *max_pool(2, "unbatched", (3, 7, 5), 2),
    *max_pool(2, "empty batch", (0, 3, 7, 5), 2),
    *max_pool(2, "nan", (2, 3, 9, 8), 3, stride=2, padding=1, make=few, gradient=False),
    *max_pool(2, "wide", (1, 2, 5, 300), (3, 260), stride=(1, 20)),
    *max_pool(2, "blocks", (3, 7, 200, 150), 3, stride=2, padding=1, dtypes=WIDE,
              gradient=False),
    *max_pool(3, "plain", (2, 2, 4, 5, 3), 2),
    *max_pool(3, "tuples", (1, 2, 5, 4, 6), (2, 3, 2), stride=(1, 2, 3), padding=(1, 1, 0),
              dilation=(2, 1, 1)),
    *max_pool(3, "ceil", (1, 2, 5, 4, 3), 2, ceil_mode=True),
    *max_pool(3, "unbatched", (2, 4, 5, 3), 2),
    *max_pool(3, "nan", (1, 2, 5, 4, 6), 2, make=few, gradient=False),

    avg_pool(1, "plain", (2, 3, 11), 3),
    avg_pool(1, "padding", (2, 3, 11), 3, stride=2, padding=1),
    avg_pool(1, "exclude pad", (2, 3, 11), 3, include=False, stride=2, padding=1),
    avg_pool(1, "ceil", (2, 3, 11), 3, stride=4, padding=1, ceil_mode=True),
    avg_pool(1, "ceil exclude pad", (2, 3, 11), 3, include=False, stride=4, padding=1,
             ceil_mode=True),
    avg_pool(1, "unbatched", (3, 11), 2),
    avg_pool(1, "empty batch", (0, 3, 11), 2),
    avg_pool(2, "plain", (2, 3, 7, 5), 2),
    avg_pool(2, "tuples", (2, 3, 7, 5), (3, 2), stride=(1, 2), padding=(1, 0)),
    avg_pool(2, "exclude pad", (2, 3, 7, 5), 3, include=False, stride=2, padding=1),
    avg_pool(2, "ceil", (2, 3, 8, 7), 3, stride=2, padding=1, ceil_mode=True),
    avg_pool(2, "divisor", (2, 3, 7, 5), 3, divisor=4, stride=2, padding=1),
    avg_pool(2, "unbatched", (3, 7, 5), 2),
    avg_pool(2, "empty batch", (0, 3, 7, 5), 2),
    avg_pool(3, "plain", (2, 2, 4, 5, 3), 2),
    avg_pool(3, "tuples", (1, 2, 5, 4, 6), (2, 3, 2), stride=(1, 2, 3), padding=(1, 0, 1)),
    avg_pool(3, "exclude pad", (1, 2, 5, 4, 6), 2, include=False, padding=1),
    avg_pool(3, "divisor", (1, 2, 5, 4, 6), 2, divisor=-3, ceil_mode=True),
    avg_pool(3, "unbatched", (2, 4, 5, 3), 2),

    lp_pool(1, "plain", (2, 3, 11), 2, 3, low=-2.0),
    lp_pool(1, "cubes", (2, 3, 11), 3, 3, stride=2),
    lp_pool(1, "ones", (3, 11), 1.0, 3, stride=2),
    lp_pool(1, "ceil", (2, 3, 11), 2, 3, stride=3, ceil_mode=True),
    lp_pool(2, "plain", (2, 3, 7, 5), 2, 3, low=-2.0),
    lp_pool(2, "tuples", (2, 3, 7, 5), 1.5, (3, 2), stride=(1, 2)),
    lp_pool(2, "ceil", (2, 3, 7, 5), 2, 3, ceil_mode=True),
    lp_pool(3, "plain", (2, 2, 4, 5, 3), 2, 2),
    lp_pool(3, "tuples", (2, 2, 4, 5, 3), 3, (2, 3, 1), stride=1),

    *adaptives(1, "down", (2, 3, 11), 4),
    *adaptives(1, "up", (2, 3, 4), 7),
    *adaptives(1, "one", (3, 11), 1),
    *adaptives(1, "empty batch", (0, 3, 11), 4),
    *adaptives(2, "down", (2, 3, 7, 5), (3, 4)),
    *adaptives(2, "one", (2, 3, 7, 5), 1),
    *adaptives(2, "none", (2, 3, 7, 5), (None, 2)),
    *adaptives(2, "up", (3, 2, 3), (5, 3)),
    *adaptives(3, "down", (2, 2, 4, 5, 3), (2, 3, 2)),
    *adaptives(3, "none", (1, 2, 4, 5, 3), (3, None, 1)),
    *adaptives(3, "unbatched", (2, 4, 5, 3), 2),
]
