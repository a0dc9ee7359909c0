"""Losses with their gradients, norms of gradients, optimisers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, log_softmax, softmax
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]
BF16 = ml_dtypes.bfloat16


@program("training.cu")
def cross_entropy(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    for rows, n, block, smoothing in ((4, 50, 32, 0.0), (3, 130, 64, 0.1)):
        x = (3 * rng.standard_normal((rows, n))).astype(np.float32)
        labels = rng.integers(0, n, rows, np.int32)
        labels[1] = -100
        logits, b_labels = m.array(x), m.array(labels)
        losses, log_sums = m.empty(rows, np.float32), m.empty(rows, np.float32)
        settings = np.int32(n), np.int32(-100), np.float32(smoothing)
        mod.kernel("cross_entropy").launch(rows, block, (losses, log_sums, logits, b_labels,
                                                         *settings))
        logs = log_softmax(x.astype(np.float64), 1)
        target = np.full((rows, n), smoothing / n)
        target[np.arange(rows), np.maximum(labels, 0)] += 1 - smoothing
        used = (labels >= 0)[:, None]
        assert_allclose(losses.numpy(), -(used * target * logs).sum(1), rtol=1e-5, atol=1e-6)

        args = logits, log_sums, b_labels, *settings, np.float32(0.5)
        mod.kernel("cross_entropy_backward").launch((-(-n // 64), rows), 64, args)
        expected = used * 0.5 * (softmax(x.astype(np.float64), 1) - target)
        assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-7)


@program("training.cu")
def bce_with_logits(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(1)
    n = 150
    x = (4 * rng.standard_normal(n)).astype(np.float16)
    target = rng.integers(0, 2, n, np.uint8)
    loss, grad = m.zeros((), np.float32), m.empty(n, np.float16)
    args = loss, grad, m.array(x), m.array(target), np.int32(n)
    mod.kernel("bce_with_logits").launch(2, 64, args)
    wide = x.astype(np.float64)
    expected = (np.maximum(wide, 0) - wide * target + np.log1p(np.exp(-np.abs(wide)))).mean()
    assert_allclose(loss.numpy(), expected, rtol=1e-5)
    assert_allclose(grad.numpy().astype(np.float64), (expit(wide) - target) / n, rtol=1e-3,
                    atol=1e-7)


@program("training.cu")
def adamw_many(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(2)
    sizes, chunk = [5, 200, 64, 1, 130], 64
    layout = np.dtype([*((name, np.uint64, 16) for name in
                         ("parameter", "gradient", "first", "second")), ("size", np.int32, 16),
                       ("block_tensor", np.uint8, 64), ("block_chunk", np.uint16, 64)], align=True)
    table = np.zeros((), layout)
    blocks = [(t, c) for t, size in enumerate(sizes) for c in range(-(-size // chunk))]
    table["block_tensor"][:len(blocks)], table["block_chunk"][:len(blocks)] = zip(*blocks,
                                                                                  strict=True)
    parameters, gradients = ([rng.standard_normal(n).astype(np.float32) for n in sizes]
                             for _ in range(2))
    p, g = [m.array(a) for a in parameters], [m.array(a) for a in gradients]
    first, second = ([m.zeros(n, np.float32) for n in sizes] for _ in range(2))
    for name, buffers in (("parameter", p), ("gradient", g), ("first", first),
                          ("second", second)):
        table[name][:len(sizes)] = [b.ptr for b in buffers]
    table["size"][:len(sizes)] = sizes
    rate, beta1, beta2, eps, decay = 0.01, 0.9, 0.99, 1e-8, 0.1
    for step in (1, 2):
        numbers = rate, beta1, beta2, eps, decay, 1 - beta1**step, 1 - beta2**step
        mod.kernel("adamw_many").launch(len(blocks), 32, (
            table[()], np.int32(chunk), *(np.float32(v) for v in numbers)))
    for i, size in enumerate(sizes):
        x, grad = parameters[i].astype(np.float64), gradients[i].astype(np.float64)
        mean, square = np.zeros(size), np.zeros(size)
        for step in (1, 2):
            mean = beta1 * mean + (1 - beta1) * grad
            square = beta2 * square + (1 - beta2) * grad**2
            x = x * (1 - rate * decay) - rate * (mean / (1 - beta1**step)) / (
                np.sqrt(square / (1 - beta2**step)) + eps)
        assert_allclose(p[i].numpy(), x, rtol=1e-5, atol=1e-6)
        assert_allclose(first[i].numpy(), mean, rtol=1e-5, atol=1e-7)
        assert_allclose(second[i].numpy(), square, rtol=1e-4, atol=1e-7)


@program("training.cu")
def sgd_mixed(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    sizes = [3, 100, 41]
    layout = np.dtype([("master", np.uint64), ("weight", np.uint64), ("gradient", np.uint64),
                       ("momentum", np.uint64), ("size", np.int64)])
    masters = [rng.standard_normal(n).astype(np.float32) for n in sizes]
    gradients = [rng.standard_normal(n).astype(BF16) for n in sizes]
    master, gradient = [m.array(a) for a in masters], [m.array(a) for a in gradients]
    weight = [m.array(a.astype(BF16)) for a in masters]
    momentum = [m.zeros(n, np.float32) for n in sizes]
    entries = [(a.ptr, b.ptr, c.ptr, d.ptr, n) for a, b, c, d, n in
               zip(master, weight, gradient, momentum, sizes, strict=True)]
    table = m.array(np.array(entries, layout))
    numbers = np.float32(0.1), np.float32(0.5), np.float32(0.25)
    kernel = mod.kernel("sgd_mixed")
    for flag in (0, 1, 0):
        overflow = m.array(np.int32(flag))
        kernel.launch((2, len(sizes)), 32, (table, overflow, *numbers))
    for i in range(len(sizes)):
        grad = gradients[i].astype(np.float64) * 0.25
        expected = masters[i] - 0.1 * grad - 0.1 * 1.5 * grad  # two of the three steps count
        assert_allclose(master[i].numpy(), expected, rtol=1e-6, atol=1e-6)
        assert_array_equal(weight[i].numpy().view(np.uint16),
                           master[i].numpy().astype(BF16).view(np.uint16))


@program("training.cu")
def clip_gradients(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(4)
    arrays = [rng.standard_normal(n).astype(np.float32) for n in (50, 3, 170)]
    buffers = [m.array(a) for a in arrays]
    table = m.array(np.array([b.ptr for b in buffers], np.uint64))
    sizes = m.array(np.array([a.size for a in arrays], np.int32))
    norm = np.sqrt(sum((a.astype(np.float64)**2).sum() for a in arrays))
    total, flag = m.zeros((), np.float64), m.zeros((), np.int32)
    mod.kernel("gradient_norm").launch((2, 3), 64, (total, flag, table, sizes))
    assert_allclose(total.numpy(), norm**2, rtol=1e-12)
    assert flag.numpy() == 0
    for most, factor in ((100.0, 1.0), (2.0, 2 / norm)):
        mod.kernel("clip").launch((2, 3), 64, (table, sizes, total, np.float32(most)))
        for buffer, array in zip(buffers, arrays, strict=True):
            assert_allclose(buffer.numpy(), factor * array, rtol=1e-5)


@program("training.cu")
def overflow_is_seen(m: sim.Machine, mod: Any) -> None:
    array = np.ones(200, np.float32)
    array[150] = np.nan
    x, size = m.array(array), m.array(np.array([200], np.int32))
    table = m.array(np.array([x.ptr], np.uint64))
    total, flag = m.zeros((), np.float64), m.zeros((), np.int32)
    mod.kernel("gradient_norm").launch((3, 1), 64, (total, flag, table, size))
    assert flag.numpy() == 1
    assert np.isnan(total.numpy())


@program("training.cu")
def accuracy(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(5)
    n = 150
    labels, predicted = rng.integers(-1, 3, n, np.int32), rng.integers(0, 3, n, np.int32)
    labels[:64] = np.abs(labels[:64])  # the first block is complete
    right, seen = m.zeros((), np.int32), m.zeros(2, np.int32)
    args = right, seen, m.array(predicted), m.array(labels), np.int32(n)
    mod.kernel("accuracy").launch(3, 64, args)
    assert right.numpy() == ((labels >= 0) & (labels == predicted)).sum()
    assert_array_equal(seen.numpy(), [(labels >= 0).sum(), 1])
