"""Rows for mlgpu/ops/pad.py, fold.py, and the pixel and channel shuffles of resample.py."""

from __future__ import annotations

import itertools

import numpy as np
from table.case import ALL, COMPLEX, FLOATS, INTS, In, both

NUMBERS = (*FLOATS, *COMPLEX, *INTS)


def padded(x, pad, mode="constant", value=0):
    """Removes what is negative, then adds borders; reflections are of what was there before."""
    for i in range(0, len(pad), 2):
        axis = x.ndim - 1 - i // 2
        low, high = pad[i:i + 2]
        places = np.arange(-low, x.shape[axis] + high)
        n = x.shape[axis]
        if mode == "reflect":
            period = max(1, 2 * (n - 1))
            places = np.abs((places + n - 1) % period - (n - 1))
            x = x.take(places, axis)
        elif mode == "replicate":
            x = x.take(np.clip(places, 0, n - 1), axis)
        elif mode == "circular":
            start, stop = max(0, -low), n - max(0, -high)
            x = x.take(start + (places - start) % (stop - start), axis)
        else:
            inside = (places >= 0) & (places < n)
            shape = [-1 if a == axis else 1 for a in range(x.ndim)]
            taken = x.take(np.where(inside, places, 0), axis) if n else np.zeros(
                (*x.shape[:axis], len(places), *x.shape[axis + 1:]), x.dtype)
            x = np.where(inside.reshape(shape), taken, np.asarray(value).astype(x.dtype))
    return x


def pad(tag, shape, amounts, mode="constant", value=None, dtypes=NUMBERS):
    return both(f"pad-{tag}",
                lambda library, x: library.nn.functional.pad(x, amounts, mode, value),
                lambda x: padded(x, amounts, mode, value or 0), (In(shape),), dtypes=dtypes)


def borders(mode, dtypes=NUMBERS):
    """The modes that fill the borders from inside."""
    def one(tag, shape, amounts):
        return pad(f"{mode} {tag}", shape, amounts, mode, dtypes=dtypes)

    yield one("1d", (2, 3, 7), (3, 2))
    yield one("1d full", (2, 3, 4), (3, 3))
    yield one("1d unbatched", (3, 7), (0, 4))
    yield one("1d removed", (2, 3, 7), (-2, 3))
    yield one("1d removed high", (2, 3, 7), (2, -3))
    yield one("2d", (2, 3, 5, 4), (3, 1, 0, 4))
    yield one("2d unbatched", (3, 5, 4), (1, 2, 2, 1))
    yield one("2d removed", (2, 3, 5, 4), (-1, 2, 1, -2))
    yield one("3d", (1, 2, 3, 4, 3), (2, 1, 3, 0, 1, 2))
    yield one("3d unbatched", (2, 3, 4, 3), (1, 1, 1, 1, 1, 1))
    yield one("empty batch", (0, 3, 7), (3, 2))


# --- sliding windows ------------------------------------------------------------------------------


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def window_places(size, kernel, dilation, padding, stride):
    """For each tap and window the element (row, column) of the padded image."""
    kernel, dilation, padding, stride = map(pair, (kernel, dilation, padding, stride))
    counts = [(n + 2 * p - d * (k - 1) - 1) // s + 1
              for n, k, d, p, s in zip(size, kernel, dilation, padding, stride, strict=True)]
    for tap, place in itertools.product(np.ndindex(*kernel), np.ndindex(*counts)):
        yield (np.ravel_multi_index(tap, kernel), np.ravel_multi_index(place, counts),
               tuple(p * s + t * d for p, s, t, d in zip(place, stride, tap, dilation,
                                                         strict=True)))


def unfolded(x, kernel, dilation=1, padding=0, stride=1):
    if x.ndim == 3:
        return unfolded(x[None], kernel, dilation, padding, stride)[0]
    places = list(window_places(x.shape[2:], kernel, dilation, padding, stride))
    taps, count = (1 + max(p[i] for p in places) for i in (0, 1))
    high, wide = pair(padding)
    x = np.pad(x, ((0, 0), (0, 0), (high, high), (wide, wide)))
    out = np.zeros((*x.shape[:2], taps, count), x.dtype)
    for tap, window, (i, j) in places:
        out[:, :, tap, window] = x[:, :, i, j]
    return out.reshape(len(x), x.shape[1] * taps, count)


def folded(columns, size, kernel, dilation=1, padding=0, stride=1):
    if columns.ndim == 2:
        return folded(columns[None], size, kernel, dilation, padding, stride)[0]
    (rows, width), (high, wide) = pair(size), pair(padding)
    taps = np.prod(pair(kernel))
    columns = columns.reshape(len(columns), columns.shape[1] // taps, taps, -1) if (
        columns.size) else np.zeros((0, columns.shape[1] // taps, taps, columns.shape[2]))
    out = np.zeros((*columns.shape[:2], rows + 2 * high, width + 2 * wide), columns.dtype)
    for tap, window, (i, j) in window_places((rows, width), kernel, dilation, padding, stride):
        out[:, :, i, j] += columns[:, :, tap, window]
    return out[:, :, high:high + rows, wide:wide + width]


def unfold(tag, shape, *args):
    return both(f"unfold-{tag}", lambda library, x: library.nn.functional.unfold(x, *args),
                lambda x: unfolded(x, *args), (In(shape),), dtypes=(*FLOATS, *COMPLEX))


def fold(tag, shape, *args):
    return both(f"fold-{tag}", lambda library, x: library.nn.functional.fold(x, *args),
                lambda x: folded(x, *args), (In(shape),), dtypes=(*FLOATS, *COMPLEX))


def windows(tag, shape, dimension, size, step):
    def reference(x):
        if not x.ndim:
            return x.reshape(1)[:size]
        view = np.lib.stride_tricks.sliding_window_view(x, size, dimension)
        return view[(slice(None),) * (dimension % x.ndim) + (slice(None, None, step),)]

    return both(f"Tensor.unfold-{tag}", lambda library, x: x.unfold(dimension, size, step),
                reference, (In(shape),), dtypes=ALL)


# --- shuffles -------------------------------------------------------------------------------------


def pixel_shuffled(x, r):
    *lead, c, h, w = x.shape
    out = np.empty((*lead, c // r**2, h * r, w * r), x.dtype)
    for i, j in np.ndindex(r, r):
        out[..., i::r, j::r] = x[..., i * r + j::r * r, :, :]
    return out


def pixel_unshuffled(x, r):
    *lead, c, h, w = x.shape
    out = np.empty((*lead, c * r**2, h // r, w // r), x.dtype)
    for i, j in np.ndindex(r, r):
        out[..., i * r + j::r * r, :, :] = x[..., i::r, j::r]
    return out


def channel_shuffled(x, groups):
    count = x.shape[1] // groups
    return x[:, [g * count + c for c in range(count) for g in range(groups)]]


def shuffle(name, reference, tag, shape, factor, dtypes=ALL):
    return both(f"{name}-{tag}", lambda library, x: getattr(library.nn.functional, name)(x, factor),
                lambda x: reference(x, factor), (In(shape),), dtypes=dtypes)


CASES = [
    pad("plain", (2, 3, 5), (1, 2)),
    pad("value", (2, 3, 5), (1, 2, 0, 1), "constant", 3),
    pad("fraction", (2, 3), (1, 2), "constant", 1.5, dtypes=(*FLOATS, *COMPLEX)),
    pad("bool", (2, 3), (1, 2), "constant", 1, dtypes=("bool",)),
    pad("nothing", (2, 3), (0, 0)),
    pad("no pairs", (2, 3), ()),
    pad("all dimensions", (2, 3, 2), (1, 2, 0, 3, 2, 1)),
    pad("negative", (2, 4, 5), (-1, 2, 1, -2)),
    pad("negative over all", (2, 4, 5), (-3, -2)),
    pad("all removed, some added", (2, 5), (-5, 4)),
    pad("empty", (0, 3), (1, 1, 2, 1)),
    pad("empty stays", (0, 3), (1, 1)),
    pad("vector", (4,), (2, 0)),
    *borders("reflect"),
    *borders("replicate"),
    *borders("circular"),

    unfold("plain", (2, 3, 5, 4), (2, 3)),
    unfold("all", (2, 2, 7, 6), (2, 3), (3, 1), (1, 2), (2, 1)),
    unfold("numbers", (1, 2, 7, 6), 3, 1, 1, 2),
    unfold("unbatched", (3, 5, 4), 2),
    unfold("empty batch", (0, 3, 5, 4), 2),
    fold("plain", (2, 12, 12), (4, 5), (2, 2)),
    fold("all", (2, 12, 24), (7, 6), (2, 3), (3, 1), (1, 2), (2, 1)),
    fold("numbers", (1, 18, 12), (7, 6), 3, 1, 1, 2),
    fold("unbatched", (8, 12), (4, 5), 2),
    fold("empty batch", (0, 8, 12), (4, 5), 2),
    windows("overlap", (2, 7, 3), 1, 3, 1),
    windows("apart", (2, 7, 3), 1, 2, 3),
    windows("many taps", (9, 2), 0, 8, 1),
    windows("last", (2, 7), -1, 3, 2),
    windows("whole", (2, 7), 1, 7, 1),
    windows("scalar", (), 0, 1, 1),

    shuffle("pixel_shuffle", pixel_shuffled, "plain", (2, 8, 3, 2), 2),
    shuffle("pixel_shuffle", pixel_shuffled, "unbatched", (9, 2, 1), 3),
    shuffle("pixel_shuffle", pixel_shuffled, "two leads", (2, 3, 4, 2, 3), 2),
    shuffle("pixel_unshuffle", pixel_unshuffled, "plain", (2, 3, 4, 6), 2),
    shuffle("pixel_unshuffle", pixel_unshuffled, "unbatched", (2, 3, 6), 3),
    shuffle("channel_shuffle", channel_shuffled, "plain", (2, 6, 3, 2), 2),
    shuffle("channel_shuffle", channel_shuffled, "line", (2, 6, 5), 3),
]
