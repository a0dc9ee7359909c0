"""Rows for what PyTorch has not: further losses, activations, and deformable convolution."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import special
from table.case import Case, In
from table.losses import REDUCTIONS, WIDE, reduce_, signs

import mlgpu

F = mlgpu.nn.functional


def row(name, tag, reference, *inputs, gradient=True, dtypes=WIDE, second=True, **options):
    function = getattr(F, name)
    return Case(f"{name}-{tag}", lambda *xs: function(*xs, **options), inputs, reference,
                dtypes=dtypes, gradient=gradient, second=second)


def each(name, losses, *inputs, **options):
    for reduction in REDUCTIONS:
        yield row(name, "-".join((*map(str, options.values()), reduction)),
                  lambda *xs, r=reduction: reduce_(losses(*xs, **options), r), *inputs,
                  reduction=reduction, gradient=(0,), **options)


# --- losses ---------------------------------------------------------------------------------------


def focal(x, t, alpha=0.25, gamma=2):
    p = special.expit(x)
    right = np.where(t == 1, p, 1 - p)
    weight = np.where(t == 1, alpha, 1 - alpha) if alpha >= 0 else 1
    return -weight * (1 - right) ** gamma * np.log(right)


def hinge(x, t, margin=1.0, squared=False):
    return np.maximum(margin - t * x, 0) ** (2 if squared else 1)


def contrastive(a, b, t, margin=1.0):
    d = np.linalg.norm(a - b, axis=-1)
    return 0.5 * np.where(t == 1, d ** 2, np.maximum(margin - d, 0) ** 2)


def info_nce(q, k, temperature=0.1):
    cosines = (q / np.linalg.norm(q, axis=1)[:, None]) @ (
        k / np.linalg.norm(k, axis=1)[:, None]).T / temperature
    return special.logsumexp(cosines, axis=1) - np.diag(cosines)


def grams(x):
    flat = x.reshape(*x.shape[:2], -1)
    return np.einsum("nip,njp->nij", flat, flat) / flat[0].size


def transducer(logits, targets, frames, labels, blank, log=True):
    """The loss of each sequence by listing all paths through the lattice."""
    if log:
        logits = logits - special.logsumexp(logits, axis=-1, keepdims=True)
    found = []
    for n, (t, u) in enumerate(zip(frames, labels, strict=True)):
        paths = []
        # Which of the t - 1 + u moves before the last blank emit a label.
        for moves in itertools.combinations(range(t - 1 + u), u):
            at, said, score = 0, 0, 0.0
            for move in range(t - 1 + u):
                if move in moves:
                    score += logits[n, at, said, targets[n, said]]
                    said += 1
                else:
                    score += logits[n, at, said, blank]
                    at += 1
            paths.append(score + logits[n, at, said, blank])
        found.append(-special.logsumexp(paths))
    return np.array(found)


def binary(rng, shape):
    return rng.integers(0, 2, shape).astype(float)


def rnnt(tag, frames, labels, blank=-1, reduction="mean", **options):
    most, width = max(frames), max(labels)

    def labels_of(rng, shape):
        return rng.integers(0, 3, shape) if blank == -1 else rng.integers(1, 4, shape)

    def call(logits, targets):
        return F.rnnt_loss(logits, targets, mlgpu.tensor(frames), mlgpu.tensor(labels), blank,
                           reduction=reduction, **options)

    def reference(logits, targets):
        return reduce_(transducer(logits, targets, frames, labels, blank,
                                  options.get("fused_log_softmax", True)), reduction)

    return Case(f"rnnt_loss-{tag}", call, (
        In((len(frames), most, width + 1, 4)),
        In((len(frames), width), dtype="int32", make=labels_of)), reference, gradient=(0,))


LOSSES = [
    *each("sigmoid_focal_loss", focal, In((3, 5), -4, 4), In((3, 5), make=binary)),
    *each("sigmoid_focal_loss", focal, In((3, 5)), In((3, 5), make=binary), alpha=-1, gamma=1.5),
    *each("hinge_loss", hinge, In((4, 5), -0.9, 0.9), In((4, 5), make=signs)),
    *each("hinge_loss", hinge, In((7,), -2, 2), In((7,), make=signs), margin=0.5, squared=True),
    *each("contrastive_loss", contrastive, In((6, 4)), In((6, 4)), In((6,), make=binary),
          margin=2.0),
    *each("info_nce_loss", info_nce, In((5, 4)), In((5, 4)), temperature=0.5),
    *each("lp_loss", lambda x, t, p: np.abs(x - t) ** p, In((4, 5)), In((4, 5), 3, 5), p=2.5),
    row("gram_matrix", "plain", grams, In((2, 3, 4, 5))),
    *each("gram_matrix_loss", lambda x, t: (grams(x) - grams(t)) ** 2, In((2, 3, 4, 2)),
          In((2, 3, 4, 3))),
    rnnt("mean", [4, 3], [2, 1]),
    rnnt("first-blank", [3, 4, 1], [0, 3, 2], blank=0, reduction="none"),
    rnnt("log-probabilities", [2], [1], reduction="sum", fused_log_softmax=False),
]

# --- activations ----------------------------------------------------------------------------------

EDGES = In((5, 6), make=lambda rng, shape: rng.choice([-1.83, -0.61, -0.2, 0.17, 0.73, 1.64],
                                                      shape))


def swiglu(x, dim=-1):
    a, b = np.split(x, 2, dim)
    return a * special.expit(a) * b


ACTIVATIONS = [
    row("relu_squared", "plain", lambda x: np.maximum(x, 0) ** 2, EDGES),
    row("thresholded_relu", "plain", lambda x: np.where(x > 0.5, x, 0), EDGES, alpha=0.5),
    row("shrink", "plain", lambda x: np.where(x > 0.4, x - 0.1, np.where(x < -0.4, x + 0.1, 0)),
        EDGES, lambd=0.4, bias=0.1),
    row("swiglu", "last", swiglu, In((3, 6))),
    row("swiglu", "first", lambda x: swiglu(x, 0), In((4, 3)), dim=0),
    row("quiet_softmax", "plain", lambda x: np.exp(x) / (1 + np.exp(x).sum(1, keepdims=True)),
        In((4, 5), -3, 3), dim=1),
    row("quiet_softmax", "large", lambda x: np.exp(x - 100) / (
        np.exp(-100) + np.exp(x - 100).sum(1, keepdims=True)), In((3, 4), 90, 100), dim=1),
]

# --- deformable convolution -----------------------------------------------------------------------


def bilinear(image, y, x):
    """The image (c, h, w) at one place; 0 outside."""
    total = np.zeros(len(image))
    for i, j in itertools.product((int(np.floor(y)), int(np.floor(y)) + 1),
                                  (int(np.floor(x)), int(np.floor(x)) + 1)):
        if 0 <= i < image.shape[1] and 0 <= j < image.shape[2]:
            total += image[:, i, j] * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


def deform(stride, padding, dilation, masked):
    def reference(x, offset, weight, bias, *mask):
        n, channels, _, _ = x.shape
        out, per, kh, kw = weight.shape
        oh, ow = offset.shape[2:]
        parts, groups = offset.shape[1] // (2 * kh * kw), channels // per
        result = np.zeros((n, out, oh, ow))
        for b, i, j in np.ndindex(n, oh, ow):
            taken = np.zeros((channels, kh, kw))
            for part, u, v in np.ndindex(parts, kh, kw):
                tap = (part * kh + u) * kw + v
                dy, dx = offset[b, 2 * tap:2 * tap + 2, i, j]
                chosen = slice(part * channels // parts, (part + 1) * channels // parts)
                value = bilinear(x[b, chosen], i * stride[0] - padding + u * dilation + dy,
                                 j * stride[1] - padding + v * dilation + dx)
                taken[chosen, u, v] = value * (mask[0][b, tap, i, j] if masked else 1)
            for o in range(out):
                group = o // (out // groups)
                result[b, o, i, j] = bias[o] + (taken[group * per:(group + 1) * per]
                                                * weight[o]).sum()
        return result

    return reference


def deform_row(tag, sizes, weight, parts, stride=(1, 1), padding=0, dilation=1, masked=False):
    kh, kw = weight[2:]
    oh, ow = ((s + 2 * padding - dilation * (k - 1) - 1) // t + 1
              for s, k, t in zip(sizes[2:], (kh, kw), stride, strict=True))
    inputs = [In(sizes), In((sizes[0], 2 * parts * kh * kw, oh, ow), -1.4, 1.4), In(weight),
              In((weight[0],))]
    if masked:
        inputs.append(In((sizes[0], parts * kh * kw, oh, ow), 0, 1))

    def call(x, offset, kernel, bias, *mask):
        return F.deform_conv2d(x, offset, kernel, bias, stride, padding, dilation,
                               mask[0] if mask else None)

    return Case(f"deform_conv2d-{tag}", call, tuple(inputs),
                deform(stride, padding, dilation, masked), dtypes=WIDE, second=False)


# --- unpooling ------------------------------------------------------------------------------------


def places(count):
    """Different places among `count` in each channel."""
    def make(rng, shape):
        lead, size = shape[:2], int(np.prod(shape[2:]))
        return np.stack([rng.permutation(count)[:size] for _ in range(int(np.prod(lead)))]
                        ).reshape(shape)
    return make


def unpooled(size):
    def reference(x, indices):
        out = np.zeros((*x.shape[:2], int(np.prod(size))))
        for at in np.ndindex(x.shape):
            out[(*at[:2], indices[at])] = x[at]
        return out.reshape(*x.shape[:2], *size)
    return reference


def unpool_row(dims, shape, kernel, size, **options):
    inputs = In(shape), In(shape, dtype="int64", make=places(int(np.prod(size))))
    return row(f"max_unpool{dims}d", "plain", unpooled(size), *inputs, gradient=(0,),
               kernel_size=kernel, **options)


CASES = [
    *LOSSES, *ACTIVATIONS,
    unpool_row(1, (2, 3, 4), 2, (8,)),
    unpool_row(2, (2, 1, 3, 2), (2, 3), (7, 5), stride=(2, 3), output_size=(7, 5)),
    unpool_row(3, (1, 2, 2, 2, 1), 2, (4, 4, 2)),
    deform_row("plain", (2, 2, 5, 4), (3, 2, 2, 3), 1),
    deform_row("parts", (1, 4, 5, 6), (4, 2, 2, 2), 2, stride=(2, 1), padding=1, dilation=2,
               masked=True),
]
