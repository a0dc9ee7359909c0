"""Rows for mlgpu/ops/distance.py and for pdist of mlgpu/ops/cdist.py."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from table.case import Case, In, both

INF = math.inf
NOT_HALF = ("float64", "float32", "bfloat16")  # in which the default eps is not 0


def apart(rng, shape):
    """Values whose sizes are all different and not near 0: every norm is smooth there."""
    values = np.linspace(0.3, 2.2, math.prod(shape)) * rng.choice([-1.0, 1.0], math.prod(shape))
    return rng.permutation(values).reshape(shape)


def row(name, tag, reference, *inputs, dtypes=("float64", "float32", "float16", "bfloat16"),
        gradient=True, second=True, tolerance=1.0, **options) -> Case:
    def call(library, *xs):
        return getattr(library.nn.functional, name)(*xs, **options)

    return both(f"{name}-{tag}", call, reference, inputs, dtypes=dtypes, gradient=gradient,
                second=second, tolerance=tolerance)


def cosine(dim=1, eps=1e-8):
    def reference(a, b):
        a, b = np.broadcast_arrays(a, b)
        lengths = [np.maximum(np.linalg.norm(x, axis=dim), eps) for x in (a, b)]
        return (a * b).sum(dim) / lengths[0] / lengths[1]
    return reference


def similarities():
    for tag, shapes, options in (
            ("", ((4, 5), (4, 5)), {}), ("last", ((2, 3, 4), (2, 3, 4)), {"dim": -1}),
            ("first", ((3, 4), (3, 4)), {"dim": 0}), ("vector", ((5,), (5,)), {"dim": 0}),
            ("broadcast", ((2, 5, 3), (5, 3)), {}), ("eps", ((4, 5), (4, 5)), {"eps": 0.01}),
            ("one", ((3, 1), (3, 1)), {}), ("empty", ((0, 4), (0, 4)), {}),
            ("long", ((2, 1031), (2, 1031)), {})):
        yield row("cosine_similarity", tag, cosine(**options), *(In(s, make=apart) for s in shapes),
                  **options)
    yield row("cosine_similarity", "scalar", lambda a, b: np.sign(a * b), In(()), In(()), dim=0)
    # Below eps the gradient is the norm's, not the one of the length that is divided by.
    yield row("cosine_similarity", "short", cosine(eps=3.0), In((4, 5), -0.1, 0.1),
              In((4, 5), -0.1, 0.1), eps=3.0, gradient=False)
    yield row("cosine_similarity", "zero", lambda a, b: np.zeros(2), In((2, 3), 0, 0), In((2, 3)),
              gradient=(1,), second=False, dtypes=NOT_HALF)


def distances():
    def distance(p=2.0, eps=1e-6, keepdim=False):
        return lambda a, b: np.linalg.norm(a - b + eps, p, -1, keepdim)

    for p in (2.0, 1.0, 3.0, 0.5, INF, 0.0):
        # The eps of PyTorch is lost in the half types next to values of this size.
        yield row("pairwise_distance", f"p{p}", distance(p), In((4, 5), make=apart),
                  In((4, 5), -0.1, 0.1), p=p, gradient=p > 0, tolerance=2)
    yield row("pairwise_distance", "options", distance(2.0, 0.25, True), In((4, 5)),
              In((4, 5), 3, 4), eps=0.25, keepdim=True)
    yield row("pairwise_distance", "broadcast", distance(), In((4, 5)), In((5,), 3, 4))
    yield row("pairwise_distance", "vector", distance(), In((5,)), In((5,), 3, 4))
    yield row("pairwise_distance", "empty", distance(), In((0, 5)), In((0, 5)))


def normals():
    def normal(p=2.0, dim=1, eps=1e-12):
        def reference(x):
            if isinstance(dim, tuple):
                length = np.sqrt((x * x).sum(dim, keepdims=True))
            else:
                length = np.linalg.norm(x, p, dim, keepdims=True)
            return x / np.maximum(length, eps)
        return reference

    for tag, shape, options in (
            ("", (4, 5), {}), ("p1", (4, 5), {"p": 1.0}), ("p3", (4, 5), {"p": 3.0}),
            ("inf", (4, 5), {"p": INF}), ("last", (2, 3, 4), {"dim": -1}),
            ("first", (3, 4), {"dim": 0}), ("dims", (2, 3, 4), {"dim": (1, 2)}),
            ("eps", (4, 5), {"eps": 50.0}), ("empty", (0, 4), {}), ("one", (3, 1), {})):
        yield row("normalize", tag, normal(**options), In(shape, make=apart), **options)
    yield row("normalize", "zero", lambda x: np.zeros((2, 3)), In((2, 3), 0, 0), gradient=False,
              dtypes=NOT_HALF)


def window_rows():
    def response(size, alpha=1e-4, beta=0.75, k=1.0):
        def reference(x):
            padded = np.pad(x * x, ((0, 0), (size // 2, (size - 1) // 2),
                                    *((0, 0),) * (x.ndim - 2)))
            total = sum(padded[:, i:i + x.shape[1]] for i in range(size))
            return x / (k + alpha * total / size)**beta
        return reference

    for tag, shape, size, options in (
            ("", (2, 6, 4), 3, {}), ("even", (2, 6, 4), 4, {"alpha": 0.5}),
            ("image", (2, 5, 3, 2), 3, {"alpha": 0.8, "beta": 0.6, "k": 2.0}),
            ("volume", (1, 4, 2, 3, 2), 2, {"alpha": 1.0}), ("one", (2, 3, 4), 1, {"alpha": 1.0}),
            ("wider", (2, 3, 4), 9, {"alpha": 1.0}), ("one-channel", (2, 1, 4), 3, {"alpha": 1.0}),
            ("empty", (0, 3, 4), 3, {})):
        yield row("local_response_norm", tag, response(size, **options), In(shape), size=size,
                  **options)


def pdist(p):
    def reference(x):
        first, second = np.triu_indices(len(x), 1)
        return np.linalg.norm(x[first] - x[second], p, axis=-1)
    return reference


def pairs():
    for p in (2.0, 1.0, 3.0, 1.5, INF):
        yield row("pdist", f"p{p}", pdist(p), In((6, 4), make=apart), p=p,
                  dtypes=("float64", "float32"))
    yield row("pdist", "p0", pdist(0), In((6, 4)), p=0.0, gradient=False,
              dtypes=("float64", "float32"))
    for tag, shape in (("one", (1, 3)), ("two", (2, 1)), ("many", (40, 3))):
        yield row("pdist", tag, pdist(2.0), In(shape), dtypes=("float64", "float32"))
    # PyTorch 2.13 ends the process in this gradient.
    yield replace(row("pdist", "none", pdist(2.0), In((0, 3)), dtypes=("float64", "float32")),
                  torch=None)


CASES = [*similarities(), *distances(), *normals(), *window_rows(), *pairs()]
