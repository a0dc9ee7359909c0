"""Rows for mlgpu/ops/norm.py, batch_norm.py and softmax.py."""

from __future__ import annotations

import numpy as np
from table.case import FLOATS, INTS, Case, In, both

import mlgpu

WIDE = ("float64", "float32")
MIXED = ("float32", "float16", "bfloat16")


def row(tag, name, reference, *inputs, gradient=True, second=True, dtypes=FLOATS, tolerance=1.0,
        call=None):
    """A row for nn.functional's `name`; `call(functional, *tensors)` where it takes more."""
    def whole(library, *xs):
        functional = library.nn.functional
        return call(functional, *xs) if call else getattr(functional, name)(*xs)

    return both(f"{name}-{tag}", whole, reference, inputs, dtypes=dtypes, gradient=gradient,
                second=second, tolerance=tolerance)


def standard(x, axes, eps=1e-5, centered=True):
    mean = x.mean(axes, keepdims=True) if centered else 0.0
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + eps)


def channels(v, x):
    """A vector of one value for each channel, beside x (N, C, ...)."""
    return v.reshape(-1, *(1,) * (x.ndim - 2))


def affine(y, weight=1.0, bias=0.0):
    return y * weight + bias


# --- over the last dimensions ---------------------------------------------------------------------


def over_last(name, tag, shape, count, weight=False, bias=False, parameters=None, eps=None,
              **options):
    """layer_norm or rms_norm over the last `count` dimensions."""
    last = shape[len(shape) - count:]
    extra = [In(last, dtype=parameters)] * (weight + bias)

    def split(parts):
        parts = list(parts)
        return {key: parts.pop(0) for key, given in (("weight", weight), ("bias", bias)) if given}

    def call(functional, x, *parts):
        more = {} if eps is None else {"eps": eps}
        return getattr(functional, name)(x, last, **split(parts), **more)

    def reference(x, *parts):
        axes = tuple(range(-count, 0))
        if name == "layer_norm":
            return affine(standard(x, axes, 1e-5 if eps is None else eps), **split(parts))
        y = x.astype(float)
        given = np.finfo(np.float64).eps if eps is None else eps
        return affine(standard(y, axes, given, centered=False), **split(parts))

    return row(tag, name, reference, In(shape), *extra, call=call, **options)


def last_rows(name):
    biased = name == "layer_norm"
    yield over_last(name, "plain", (3, 7), 1)
    yield over_last(name, "weight", (3, 7), 1, weight=True)
    yield over_last(name, "affine", (2, 3, 13), 1, weight=True, bias=biased)
    yield over_last(name, "two dimensions", (4, 3, 5), 2, weight=True, bias=biased)
    yield over_last(name, "all dimensions", (3, 5), 2, weight=True, bias=biased)
    yield over_last(name, "eps", (3, 7), 1, weight=True, bias=biased, eps=0.3)
    yield over_last(name, "vector", (7,), 1, weight=True, bias=biased)
    yield over_last(name, "empty", (0, 7), 1, weight=True, bias=biased)
    yield over_last(name, "mixed", (3, 7), 1, weight=True, bias=biased, parameters="float32",
                    dtypes=MIXED)
    yield over_last(name, "many rows", (700, 257), 1, weight=True, bias=biased, dtypes=WIDE)
    yield over_last(name, "long rows", (1, 140001), 1, weight=True, bias=biased, dtypes=WIDE,
                    tolerance=2.0)
    yield over_last(name, "long rows, half", (2, 5001), 1, weight=True, bias=biased)


def added(name, tag, shape, count, parameters=0, mixed=None, **options):
    """add_layer_norm or add_rms_norm: the sum, and its norm, which are two steps in PyTorch."""
    last = shape[len(shape) - count:]
    norm = name.removeprefix("add_")

    def reference(x, residual, *parts):
        total = x.astype(float) + residual
        centered = name == "add_layer_norm"
        eps = 1e-5 if centered else np.finfo(np.float64).eps
        axes = tuple(range(-count, 0))
        return total, affine(standard(total, axes, eps, centered), *parts)

    def torch(library, x, residual, *parts):
        total = x + residual
        return total, getattr(library.nn.functional, norm)(total, last, *parts)

    return Case(f"{name}-{tag}",
                lambda *xs: getattr(mlgpu.nn.functional, name)(*xs[:2], last, *xs[2:]),
                (In(shape), In(shape), *[In(last, dtype=mixed)] * parameters), reference, torch,
                **options)


def added_rows(name):
    biased = name == "add_layer_norm"
    for tag, parameters in (("plain", 0), ("weight", 1), *([("affine", 2)] * biased)):
        yield added(name, tag, (3, 7), 1, parameters)
    yield added(name, "two dimensions", (4, 3, 5), 2, 1 + biased)
    yield added(name, "empty", (0, 7), 1, 1 + biased)
    yield added(name, "mixed", (3, 8), 1, 1 + biased, mixed="float32", dtypes=MIXED)
    yield added(name, "many rows", (300, 257), 1, 1 + biased, dtypes=WIDE)
    yield added(name, "long rows", (2, 20001), 1, 1 + biased, dtypes=WIDE)


def grouped(tag, shape, groups, parameters=0, mixed=None, eps=1e-5, **options):
    """group_norm with none, weight, or weight and bias."""
    def reference(x, *vectors):
        y = standard(x.reshape(shape[0], groups, -1 if x.size else 1), (2,), eps).reshape(x.shape)
        return affine(y, *[channels(v, x) for v in vectors])

    return row(tag, "group_norm", reference, In(shape), *[In(shape[1:2], dtype=mixed)] * parameters,
               call=lambda functional, x, *vectors: functional.group_norm(
                   x, groups, *vectors, eps=eps), **options)


# --- with running statistics ----------------------------------------------------------------------


def batch_reference(x, mean=None, var=None, weight=1.0, bias=0.0, training=True, momentum=0.1,
                    eps=1e-5):
    """The result, and the running statistics after it."""
    axes = (0, *range(2, x.ndim))
    now, spread = (x.mean(axes), x.var(axes)) if training else (mean, var)
    y = (x - channels(now, x)) / np.sqrt(channels(spread, x) + eps)
    y = y * channels(np.asarray(weight), x) + channels(np.asarray(bias), x)
    if mean is None:
        return y
    if training:
        count = x.size / x.shape[1]
        mean = (1 - momentum) * mean + momentum * now
        var = (1 - momentum) * var + momentum * spread * count / (count - 1)
    return y, mean, var


def batch(tag, shape, stats=False, parameters=0, training=True, mixed=None, name="batch_norm",
          reference=batch_reference, **options):
    """A row whose outputs are the result and, with `stats`, the running statistics."""
    size = shape[1:2]
    inputs = [In(shape)]
    inputs += [In(size, dtype=mixed), In(size, 0.5, 2.0, dtype=mixed)] * stats
    inputs += [In(size, dtype=mixed)] * parameters
    settings = {key: options.pop(key) for key in ("momentum", "eps") if key in options}
    flag = "training" if name == "batch_norm" else "use_input_stats"

    def call(functional, x, *rest):
        running = [v.clone() for v in rest[:2 * stats]] or [None, None]
        y = getattr(functional, name)(x, *running, *rest[2 * stats:], **{flag: training},
                                      **settings)
        return (y, *running) if stats else y

    def expected(x, *rest):
        running = rest[:2 * stats] or (None, None)
        return reference(x, *running, *rest[2 * stats:], training=training, **settings)

    differentiated = (0, *range(1 + 2 * stats, len(inputs)))
    return row(tag, name, expected, *inputs, call=call, gradient=differentiated, **options)


def instance_reference(x, mean=None, var=None, weight=1.0, bias=0.0, training=True, momentum=0.1,
                       eps=1e-5):
    if not training:
        return batch_reference(x, mean, var, weight, bias, False, momentum, eps)
    axes = tuple(range(2, x.ndim))
    y = standard(x, axes, eps) * channels(np.asarray(weight), x) + channels(np.asarray(bias), x)
    if mean is None:
        return y
    mean = (1 - momentum) * mean + momentum * x.mean(axes).mean(0)
    return y, mean, (1 - momentum) * var + momentum * x.var(axes, ddof=1).mean(0)


def instance(tag, shape, **options):
    return batch(tag, shape, name="instance_norm", reference=instance_reference, **options)


# --- softmax --------------------------------------------------------------------------------------


def softmax(x, dim):
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(dim, keepdims=True, initial=-np.inf))
    return e / e.sum(dim, keepdims=True)


def log_softmax(x, dim):
    shifted = x - x.max(dim, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(dim, keepdims=True))


SOFTMAXES = {"softmax": softmax, "log_softmax": log_softmax, "softmin": lambda x, d: softmax(-x, d)}


def masked(rng, shape):
    """Some places -inf, but not a whole row or column."""
    x = rng.uniform(-2, 2, shape)
    x[..., 1] = -np.inf
    x[0, 0, -1] = -np.inf
    return x


def wholly_masked(rng, shape):
    x = masked(rng, shape)
    x[1, 1, :] = -np.inf
    return x


def softmax_rows(name):
    def one(tag, spec, dim, **options):
        return row(tag, name, lambda x: SOFTMAXES[name](x, dim), spec,
                   call=lambda functional, x: getattr(functional, name)(x, dim), **options)

    for dim in (0, 1, 2, -1):
        yield one(f"dim {dim}", In((3, 4, 5)), dim)
    yield one("scalar", In(()), 0)
    yield one("vector", In((7,)), 0)
    yield one("one", In((3, 1)), 1)
    yield one("no rows", In((0, 3)), 1)
    yield one("no columns", In((3, 0)), 1)
    yield one("huge", In((3, 5), -1e4, 1e4), 1, dtypes=WIDE)
    yield one("many rows", In((700, 257)), 1, dtypes=WIDE)
    yield one("long rows", In((2, 140001)), 1, dtypes=WIDE)
    yield one("columns", In((2, 300, 501)), 1, dtypes=WIDE)
    yield one("long rows, half", In((2, 5001)), 1)
    if name != "softmin":
        yield one("masked", In((3, 2, 4), make=masked), 2, gradient=name == "softmax",
                  second=name == "softmax")
        yield one("masked, middle", In((3, 2, 4), make=masked), 0, gradient=False, second=False)
    yield one("all masked", In((3, 2, 4), make=wholly_masked if name != "softmin" else
                               lambda rng, shape: -wholly_masked(rng, shape)), -1,
              gradient=False, second=False)
    yield both(f"{name}-dtype", lambda library, x: getattr(library.nn.functional, name)(
        x, 1, dtype=library.float64), lambda x: SOFTMAXES[name](x.astype(float), 1),
        (In((3, 5)),), dtypes=(*FLOATS, *INTS[:4]))


CASES = [
    *last_rows("layer_norm"),
    over_last("layer_norm", "bias", (3, 7), 1, bias=True),
    *last_rows("rms_norm"),
    *added_rows("add_layer_norm"),
    *added_rows("add_rms_norm"),

    grouped("plain", (2, 6, 5), 3),
    grouped("weight", (2, 6, 5), 3, 1),
    grouped("affine", (2, 6, 3, 3), 2, 2),
    grouped("one group", (2, 5, 3), 1, 2),
    grouped("groups of one", (2, 5, 3), 5, 2),
    grouped("no positions", (3, 6), 2, 2),
    grouped("eps", (2, 6, 5), 3, 2, eps=0.2),
    grouped("empty", (0, 6, 5), 3, 2),
    grouped("mixed", (2, 6, 5), 3, 2, mixed="float32", dtypes=MIXED),
    grouped("blocks", (9, 8, 61, 67), 2, 2, dtypes=WIDE),
    grouped("long rows", (2, 4, 301, 233), 2, 2, dtypes=WIDE),

    batch("plain", (4, 3, 5)),
    batch("weight", (4, 3, 5), parameters=1),
    batch("affine", (4, 3, 5, 2), parameters=2),
    batch("two dimensions", (7, 3), parameters=2),
    batch("statistics", (4, 3, 5), stats=True, parameters=2),
    batch("momentum, eps", (4, 3, 5), stats=True, parameters=2, momentum=0.37, eps=0.1),
    batch("statistics alone", (4, 3, 2, 2, 3), stats=True),
    batch("eval", (4, 3, 5), stats=True, parameters=2, training=False),
    batch("eval plain", (4, 3, 5, 2), stats=True, training=False, eps=0.1),
    batch("eval one", (1, 3), stats=True, parameters=2, training=False),
    batch("eval empty", (0, 3, 5), stats=True, parameters=2, training=False),
    batch("mixed", (4, 3, 5), stats=True, parameters=2, mixed="float32", dtypes=MIXED),
    batch("eval mixed", (4, 3, 5), stats=True, parameters=2, mixed="float32", training=False,
          dtypes=MIXED),
    batch("many channels", (2, 301, 301), stats=True, parameters=2, dtypes=WIDE),
    batch("long channels", (4, 3, 201, 199), stats=True, parameters=2, dtypes=WIDE),

    instance("plain", (2, 3, 5)),
    instance("affine", (2, 3, 5, 2), parameters=2),
    instance("statistics", (2, 3, 5), stats=True, parameters=2, momentum=0.3),
    instance("eval", (2, 3, 5), stats=True, parameters=2, training=False),
    instance("eps", (2, 3, 4), eps=0.3),

    *softmax_rows("softmax"),
    *softmax_rows("log_softmax"),
    *softmax_rows("softmin"),
]
