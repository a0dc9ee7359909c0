"""Rows for mlgpu/ops/conv.py: convolutions and transposed convolutions in 1, 2 and 3 dimensions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from table.case import COMPLEX, FLOATS, INTS, In, both


def per_axis(value, axes):
    return value if isinstance(value, tuple) else (value,) * axes


def convolution(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Every position of the output sees its window of the padded input."""
    axes = weight.ndim - 2
    if x.ndim == axes + 1:
        return convolution(x[None], weight, bias, stride, padding, dilation, groups)[0]
    stride, dilation = per_axis(stride, axes), per_axis(dilation, axes)
    reach = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
    if padding == "same":
        ends = [(r // 2, r - r // 2) for r in reach]
    else:
        ends = [(p, p) for p in per_axis(0 if padding == "valid" else padding, axes)]
    x = np.pad(x, [(0, 0), (0, 0), *ends])
    sizes = [(n - r - 1) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True)]
    split = weight.reshape(groups, weight.shape[0] // groups, -1)
    out = np.zeros((len(x), len(weight), *sizes), x.dtype)
    for place in np.ndindex(*sizes):
        window = tuple(slice(p * s, p * s + r + 1, d)
                       for p, s, r, d in zip(place, stride, reach, dilation, strict=True))
        seen = x[(..., *window)].reshape(len(x), groups, split.shape[2])
        out[(..., *place)] = np.einsum("ngk,gok->ngo", seen, split).reshape(len(x), len(weight))
    return out if bias is None else out + bias.reshape(-1, *(1,) * axes)


def transposed(y, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Every element of the input adds the kernel, times itself, to its window of the output."""
    axes = weight.ndim - 2
    if y.ndim == axes + 1:
        return transposed(y[None], weight, bias, stride, padding, output_padding, groups,
                          dilation)[0]
    stride, dilation = per_axis(stride, axes), per_axis(dilation, axes)
    padding, more = per_axis(padding, axes), per_axis(output_padding, axes)
    reach = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
    full = [(n - 1) * s + r + 1 + m
            for n, s, r, m in zip(y.shape[2:], stride, reach, more, strict=True)]
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    out = np.zeros((len(y), groups, weight.shape[1], *full), y.dtype)
    for place in np.ndindex(*y.shape[2:]):
        window = tuple(slice(p * s, p * s + r + 1, d)
                       for p, s, r, d in zip(place, stride, reach, dilation, strict=True))
        here = y[(..., *place)].reshape(len(y), groups, split.shape[1])
        out[(..., *window)] += np.einsum("ngo,goc...->ngc...", here, split)
    inside = tuple(slice(p, n - p) for p, n in zip(padding, full, strict=True))
    out = out.reshape(len(y), groups * weight.shape[1], *full)[(..., *inside)]
    return out if bias is None else out + bias.reshape(-1, *(1,) * axes)


def row(axes, tag, x, weight, bias=True, transpose=False, dtypes=FLOATS, **options):
    """A row; `x` and `weight` are shapes, the bias has its size from them."""
    name = f"conv{'_transpose' * transpose}{axes}d"
    groups = options.get("groups", 1)
    channels = weight[1] * groups if transpose else weight[0]
    inputs = (In(x), In(weight), In((channels,)))[:2 + bias]
    reference = transposed if transpose else convolution
    return both(f"{name}-{tag}",
                lambda library, *xs: getattr(library.nn.functional, name)(*xs, **options),
                lambda *xs: reference(*xs, **options), inputs, dtypes=dtypes)


def back(axes, tag, x, weight, **options):
    return row(axes, tag, x, weight, transpose=True, **options)


HALVES = ("float16", "bfloat16")
NUMBERS = (*FLOATS, *COMPLEX)

CASES = [
    row(1, "plain", (2, 4, 11), (6, 4, 3), dtypes=NUMBERS),
    row(1, "integers", (2, 4, 11), (6, 4, 3), dtypes=INTS),
    row(1, "no bias", (2, 4, 11), (6, 4, 3), bias=False),
    row(1, "stride", (2, 4, 11), (6, 4, 3), stride=2),
    row(1, "stride over kernel", (2, 3, 11), (2, 3, 2), stride=3),
    row(1, "padding", (2, 4, 11), (6, 4, 3), padding=2),
    row(1, "dilation", (2, 4, 11), (6, 4, 3), dilation=3, padding=(1,)),
    row(1, "groups", (2, 4, 11), (6, 2, 3), groups=2, dtypes=NUMBERS),
    row(1, "depthwise", (2, 4, 11), (8, 1, 3), groups=4),
    row(1, "same", (2, 4, 11), (6, 4, 3), padding="same", dilation=2),
    row(1, "same even", (2, 4, 11), (6, 4, 4), padding="same"),
    row(1, "valid", (2, 4, 11), (6, 4, 3), padding="valid"),
    row(1, "unbatched", (4, 11), (6, 4, 3)),
    row(1, "pointwise", (2, 4, 11), (6, 4, 1)),
    row(1, "few channels out", (2, 7, 11), (2, 7, 3), padding=1),
    row(1, "kernel over input", (2, 2, 3), (3, 2, 5), padding=2),
    row(1, "all padding", (1, 1, 1), (2, 1, 3), padding=4),
    row(1, "empty batch", (0, 4, 11), (6, 4, 3)),
    row(1, "tensor cores", (2, 12, 17), (20, 12, 5), stride=2, padding=2, dtypes=HALVES),

    row(2, "plain", (2, 3, 7, 5), (4, 3, 3, 2), dtypes=NUMBERS),
    row(2, "tensor cores", (2, 16, 6, 4), (40, 16, 3, 3), padding=1, dtypes=HALVES),
    row(2, "tensor cores strided", (2, 3, 9, 7), (12, 3, 5, 3), stride=2, padding=1,
        dtypes=HALVES),
    row(2, "tensor cores groups", (1, 24, 5, 5), (40, 12, 2, 3), groups=2, dtypes=HALVES),
    row(2, "tensor cores pointwise", (2, 12, 4, 4), (36, 12, 1, 1), dtypes=HALVES),
    row(2, "integers", (2, 3, 7, 5), (4, 3, 3, 2), dtypes=INTS),
    row(2, "no bias", (2, 3, 7, 5), (4, 3, 3, 2), bias=False),
    row(2, "stride", (2, 3, 7, 5), (4, 3, 3, 3), stride=2, padding=1, dtypes=NUMBERS),
    row(2, "tuples", (2, 3, 9, 8), (4, 3, 3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3)),
    row(2, "groups", (2, 4, 7, 5), (6, 2, 3, 3), groups=2, padding=1),
    row(2, "groups strided", (2, 4, 7, 5), (6, 2, 3, 3), groups=2, stride=2),
    row(2, "depthwise", (2, 4, 7, 5), (4, 1, 3, 3), groups=4, padding=1),
    row(2, "depthwise strided", (2, 3, 7, 5), (6, 1, 3, 3), groups=3, stride=2, padding=1),
    row(2, "same", (2, 3, 7, 5), (4, 3, 3, 2), padding="same", dilation=(2, 1)),
    row(2, "valid", (2, 3, 7, 5), (4, 3, 3, 2), padding="valid", stride=2),
    row(2, "unbatched", (3, 7, 5), (4, 3, 3, 2), padding=1),
    row(2, "pointwise", (2, 3, 7, 5), (4, 3, 1, 1), dtypes=NUMBERS),
    row(2, "pointwise groups", (2, 4, 7, 5), (6, 2, 1, 1), groups=2),
    row(2, "pointwise strided", (2, 3, 7, 5), (4, 3, 1, 1), stride=2),
    row(2, "few channels out", (2, 7, 6, 5), (2, 7, 3, 3), padding=1),
    row(2, "kernel over input", (1, 2, 2, 3), (3, 2, 4, 5), padding=(1, 2)),
    row(2, "one row", (2, 3, 1, 9), (4, 3, 1, 3)),
    row(2, "empty batch", (0, 3, 7, 5), (4, 3, 3, 2), padding=1),
    # The bias alone.  PyTorch's result loses the channels of the weight.
    *(replace(each, torch=None) for each in (
        row(1, "no channels in", (2, 0, 11), (6, 0, 3)),
        row(2, "no channels in", (2, 0, 7, 5), (4, 0, 3, 2), padding=1),
        row(2, "no channels in, pointwise", (2, 0, 7, 5), (4, 0, 1, 1)))),
    row(2, "blocks", (2, 8, 61, 67), (5, 8, 3, 3), padding=1, dtypes=("float64", "float32")),
    row(2, "blocks strided", (3, 8, 131, 129), (5, 8, 3, 3), stride=2, bias=False,
        dtypes=("float64", "float32")),
    row(3, "tensor cores", (1, 10, 3, 4, 5), (16, 10, 2, 1, 3), padding=1, dtypes=HALVES),

    row(3, "plain", (2, 2, 4, 5, 3), (3, 2, 2, 3, 2), dtypes=NUMBERS),
    row(3, "no bias", (2, 2, 4, 5, 3), (3, 2, 2, 3, 2), bias=False),
    row(3, "tuples", (1, 2, 5, 6, 7), (3, 2, 2, 3, 2), stride=(1, 2, 3), padding=(1, 0, 2),
        dilation=(2, 1, 1)),
    row(3, "groups", (2, 4, 3, 4, 3), (4, 2, 2, 2, 2), groups=2, padding=1),
    row(3, "depthwise", (2, 3, 3, 4, 3), (3, 1, 2, 2, 2), groups=3),
    row(3, "same", (1, 2, 4, 5, 3), (3, 2, 2, 3, 2), padding="same"),
    row(3, "unbatched", (2, 4, 5, 3), (3, 2, 2, 3, 2)),
    row(3, "pointwise", (2, 2, 4, 5, 3), (3, 2, 1, 1, 1)),
    row(3, "empty batch", (0, 2, 4, 5, 3), (3, 2, 2, 3, 2)),

    back(1, "plain", (2, 4, 7), (4, 3, 3), dtypes=NUMBERS),
    back(1, "no bias", (2, 4, 7), (4, 3, 3), bias=False),
    back(1, "stride", (2, 4, 7), (4, 3, 3), stride=2, padding=1, dtypes=NUMBERS),
    back(1, "output padding", (2, 4, 7), (4, 3, 3), stride=3, padding=1, output_padding=2),
    back(1, "dilation", (2, 4, 7), (4, 3, 3), dilation=3, padding=2),
    back(1, "output padding, dilation", (2, 4, 7), (4, 3, 3), dilation=3, output_padding=2),
    back(1, "groups", (2, 4, 7), (4, 3, 3), groups=2, stride=2),
    back(1, "depthwise", (2, 4, 7), (4, 1, 3), groups=4, stride=2),
    back(1, "many channels out", (2, 2, 7), (2, 7, 3)),
    back(1, "unbatched", (4, 7), (4, 3, 3), stride=2),
    back(1, "stride over kernel", (2, 3, 5), (3, 2, 2), stride=4),
    back(1, "pointwise", (2, 3, 5), (3, 2, 1)),
    back(1, "empty batch", (0, 4, 7), (4, 3, 3)),

    back(2, "tensor cores", (1, 20, 3, 4), (20, 12, 3, 2), stride=2, dtypes=HALVES),
    back(2, "plain", (2, 3, 4, 5), (3, 2, 3, 2), dtypes=NUMBERS),
    back(2, "tuples", (2, 3, 4, 5), (3, 2, 3, 2), stride=(2, 3), padding=(1, 0),
         output_padding=(1, 2), dilation=(2, 1)),
    back(2, "groups", (2, 4, 4, 5), (4, 3, 3, 2), groups=2, stride=2, output_padding=1),
    back(2, "groups dense", (2, 4, 4, 5), (4, 3, 3, 2), groups=2, padding=1, bias=False),
    back(2, "depthwise", (2, 3, 4, 5), (3, 2, 3, 3), groups=3, stride=2),
    back(2, "unbatched", (3, 4, 5), (3, 2, 3, 2)),
    back(2, "padding over kernel", (1, 2, 4, 5), (2, 2, 1, 2), padding=1),
    back(2, "empty batch", (0, 3, 4, 5), (3, 2, 3, 2), stride=2),
    back(2, "blocks", (2, 8, 61, 67), (8, 5, 3, 3), stride=2, dtypes=("float64", "float32")),

    back(3, "plain", (1, 2, 3, 2, 4), (2, 3, 2, 3, 2)),
    back(3, "tuples", (2, 2, 3, 2, 3), (2, 3, 2, 3, 2), stride=(2, 1, 3), padding=(1, 1, 0),
         output_padding=(1, 0, 2)),
    back(3, "groups", (1, 4, 2, 2, 3), (4, 1, 2, 2, 2), groups=2, dilation=2),
    back(3, "unbatched", (2, 3, 2, 3), (2, 3, 2, 3, 2)),
]
