"""Convolution and pooling at sizes that take several tasks, in Winograd's form and directly."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
import mlgpu.nn.functional as F
from mlgpu.cpu import conv as cpu_conv
from mlgpu.cpu import threads, winograd
from mlgpu.ops.window import Windows

# N, C, O, H, W, padding: whole tiles, cut-off tiles, images grouped and cut by rows and columns.
WINOGRAD = [(4, 64, 64, 32, 32, 1), (3, 20, 24, 33, 31, 1), (40, 64, 48, 8, 8, 1),
            (20, 17, 19, 5, 7, 2), (1, 16, 16, 70, 2101, 0), (8, 24, 16, 17, 40, 3)]
# As above with kernel, stride, dilation and groups.
DIRECT = [(16, 3, 32, 32, 32, 1, 3, 1, 1, 1), (6, 24, 48, 17, 40, 1, 3, 1, 1, 4),
          (6, 24, 24, 17, 40, 1, 3, 1, 1, 24), (8, 24, 16, 40, 41, 2, 5, 2, 1, 1),
          (8, 24, 16, 40, 41, 2, 3, 1, 2, 1), (30, 40, 24, 20, 21, 0, 1, 1, 1, 1),
          (12, 64, 3, 32, 32, 2, 5, 1, 1, 1), (8, 32, 32, 32, 32, 0, 1, 2, 1, 1)]


COUNTS = [1, 2]


@pytest.fixture(params=COUNTS)
def count(request):
    before = mlgpu.get_num_threads()
    mlgpu.set_num_threads(request.param)
    yield request.param
    mlgpu.set_num_threads(before)


@pytest.fixture
def counts():
    """Each number of threads in turn, for what is expected of all."""
    def each():
        for number in COUNTS:
            mlgpu.set_num_threads(number)
            yield number

    before = mlgpu.get_num_threads()
    yield each
    mlgpu.set_num_threads(before)


def arrays(n, c, o, h, w, kernel=3, groups=1, seed=0):
    random = np.random.default_rng(seed)
    return (random.standard_normal((n, c, h, w)),
            random.standard_normal((o, c // groups, kernel, kernel)) / kernel,
            random.standard_normal(o))


def by_definition(x, weight, dy, padding, stride, dilation, groups):
    """y and the gradients of the sum of y * dy, in float64."""
    n, c, h, w = x.shape
    o, per, kernel, _ = weight.shape
    padded = np.zeros((n, c, h + 2 * padding, w + 2 * padding))
    padded[:, :, padding:padding + h, padding:padding + w] = x
    high = (padded.shape[2] - dilation * (kernel - 1) - 1) // stride + 1
    wide = (padded.shape[3] - dilation * (kernel - 1) - 1) // stride + 1
    y, dx, dw = np.zeros((n, o, high, wide)), np.zeros_like(padded), np.zeros_like(weight)
    dy = dy(y.shape)
    for group in range(groups):
        ins = slice(group * per, (group + 1) * per)
        outs = slice(group * o // groups, (group + 1) * o // groups)
        for i in range(kernel):
            for j in range(kernel):
                rows = slice(i * dilation, i * dilation + stride * (high - 1) + 1, stride)
                columns = slice(j * dilation, j * dilation + stride * (wide - 1) + 1, stride)
                seen, taps = padded[:, ins, rows, columns], weight[outs, :, i, j]
                y[:, outs] += np.moveaxis(np.tensordot(seen, taps, ([1], [1])), 3, 1)
                dx[:, ins, rows, columns] += np.moveaxis(
                    np.tensordot(dy[:, outs], taps, ([1], [0])), 3, 1)
                dw[outs, :, i, j] += np.tensordot(dy[:, outs], seen, ([0, 2, 3], [0, 2, 3]))
    return y, dx[:, :, padding:padding + h, padding:padding + w], dw, dy


def gradients(x, weight, bias, dy, dtype, **options):
    given = [mlgpu.tensor(a).to(dtype).requires_grad_(True) for a in (x, weight, bias)]
    y = F.conv2d(*given, **options)
    y.backward(mlgpu.tensor(dy).to(dtype))
    return [t.detach().to(mlgpu.float64).numpy() for t in (y, *(g.grad for g in given))]


def rounded(array, dtype):
    return mlgpu.tensor(array).to(dtype).to(mlgpu.float64).numpy()


def compare(case, dtype, tolerance, counts):
    n, c, o, h, w, padding, kernel, stride, dilation, groups = case
    x, weight, bias = (rounded(a, dtype) for a in arrays(n, c, o, h, w, kernel, groups))
    random = np.random.default_rng(1)
    y, dx, dw, dy = by_definition(x, weight,
                                  lambda s: rounded(random.standard_normal(s), dtype),
                                  padding, stride, dilation, groups)
    expected = y + bias[:, None, None], dx, dw, dy.sum((0, 2, 3))
    for count in counts():
        found = gradients(x, weight, bias, dy, dtype, padding=padding, stride=stride,
                          dilation=dilation, groups=groups)
        for name, ours, theirs in zip(("y", "dx", "dw", "db"), found, expected, strict=True):
            far = np.abs(ours - theirs).max()
            assert far <= tolerance * np.abs(theirs).max(), (name, count)


@pytest.mark.parametrize("case", WINOGRAD, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [
    (mlgpu.float32, 2e-6), (mlgpu.float64, 1e-14), (mlgpu.bfloat16, 4e-3),
    (mlgpu.float16, 1e-3)], ids=str)
def test_winograd(case, dtype, tolerance, counts):
    n, c, o, h, w, padding = case
    if dtype is not mlgpu.float32 and h * w > 5000:
        pytest.skip("large")
    small = h + 2 * padding - 2, w + 2 * padding - 2
    win = Windows((h, w), small, (3, 3), (1, 1), (1, 1), (padding, padding))
    assert winograd.suits(win, n, c, o, 1, np.dtype(np.float32))
    compare((*case, 3, 1, 1, 1), dtype, tolerance, counts)


@pytest.mark.parametrize("case", DIRECT, ids=str)
def test_direct(case, counts):
    compare(case, mlgpu.float32, 1e-6, counts)


def test_the_blocks_cover_every_tile_once():
    for n, size, tiles in ((1, (7, 9), 4), (5, (8, 8), 64), (3, (1, 700), 128), (40, (4, 4), 16)):
        win = Windows(size, size, (3, 3), (1, 1), (1, 1), (1, 1))
        seen = np.zeros((n, -(-size[0] // 2), -(-size[1] // 2)), int)
        for b in winograd.cut(n, win, tiles):
            seen[b.image:b.image + b.images, b.row:b.row + b.rows,
                 b.column:b.column + b.columns] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize("kernel", [3, 5])
def test_results_repeat_bit_for_bit_and_do_not_depend_on_threads(kernel):
    x, weight, bias = arrays(12, 24, 32, 24, 24, kernel)
    dy = np.random.default_rng(2).standard_normal((12, 32, 24, 24))
    before = mlgpu.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 2, 3):
            mlgpu.set_num_threads(threads)
            found.append(gradients(x, weight, bias, dy, mlgpu.float32, padding=kernel // 2))
    finally:
        mlgpu.set_num_threads(before)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_what_is_not_finite_is_as_in_the_direct_form(value, count, monkeypatch):
    x, weight, bias = arrays(4, 16, 16, 20, 20)
    x[1, 3, 7, 8] = value
    x[2, 5, 0, 19] = value
    dy = np.random.default_rng(2).standard_normal((4, 16, 20, 20))
    dy[3, 2, 19, 0] = value
    fast = gradients(x, weight, bias, dy, mlgpu.float32, padding=1)
    monkeypatch.setattr(winograd, "suits", lambda *arguments: False)
    direct = gradients(x, weight, bias, dy, mlgpu.float32, padding=1)
    for ours, theirs in zip(fast, direct, strict=True):
        finite = np.isfinite(theirs)
        assert np.array_equal(np.isfinite(ours), finite)
        assert np.array_equal(ours[~finite], theirs[~finite], equal_nan=True)
        largest = np.abs(theirs[finite]).max()
        assert np.abs(ours[finite] - theirs[finite]).max() <= 2e-6 * largest


def test_strided_and_expanded_operands():
    random = np.random.default_rng(0)
    x = mlgpu.tensor(random.standard_normal((20, 18, 8, 32))).permute(3, 2, 0, 1)
    weight = mlgpu.tensor(random.standard_normal((3, 3, 16, 8))).permute(2, 3, 0, 1)
    x, weight = x.repeat(1, 2, 1, 1), weight.repeat(1, 2, 1, 1)
    turned = x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    a, b = (t.detach().requires_grad_(True) for t in (x, turned))
    first, second = F.conv2d(a, weight, padding=1), F.conv2d(b, weight, padding=1)
    first.sum().backward()  # the gradient of a sum is one number, expanded
    second.backward(mlgpu.ones(second.shape, dtype=second.dtype))
    np.testing.assert_allclose(first.detach().numpy(), second.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-10, atol=1e-10)


def test_the_fast_backward_agrees_with_the_differentiable_one():
    x, weight, bias = (mlgpu.tensor(a).requires_grad_(True) for a in arrays(8, 16, 24, 16, 16))
    y = F.conv2d(x, weight, bias, padding=1)
    dy = mlgpu.tensor(np.random.default_rng(3).standard_normal(y.shape))
    fast = mlgpu.autograd.grad(y, (x, weight, bias), dy, retain_graph=True)
    slow = mlgpu.autograd.grad(y, (x, weight, bias), dy, create_graph=True)
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-10, atol=1e-10)


def test_an_empty_batch():
    x, weight, bias = (mlgpu.tensor(a).requires_grad_(True) for a in arrays(0, 16, 16, 20, 20))
    y = F.conv2d(x, weight, bias, padding=1)
    y.sum().backward()
    assert y.shape == (0, 16, 20, 20)
    assert not weight.grad.numpy().any()


def test_partial_sums_are_added_in_their_order(count, monkeypatch):
    x = arrays(16, 16, 16, 32, 32, 5)[0]
    win = Windows((32, 32), (32, 32), (5, 5), (1, 1), (1, 1), (2, 2))
    y = np.random.default_rng(1).standard_normal((16, 16, 32, 32))
    whole = cpu_conv.to_weight(x, y, win, 1, True)
    monkeypatch.setattr(cpu_conv, "PARTS", 3)
    thirds = cpu_conv.to_weight(x, y, win, 1, True)
    for a, b in zip(whole, thirds, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"),
                         [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), (2, 3, 0, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_pool(kernel, stride, padding, dilation, dtype, count):
    random = np.random.default_rng(0)
    x = random.integers(-9, 9, (16, 24, 33, 40)).astype(dtype)  # with ties
    x[random.random(x.shape) < 0.02] = np.nan
    x[0, 0, 0, 0] = -np.inf
    given = mlgpu.tensor(x, requires_grad=True)
    y, places = F.max_pool2d(given, kernel, stride, padding, dilation, return_indices=True)
    high, wide = y.shape[2:]
    best = np.full(y.shape, -np.inf, dtype)
    where = np.full(y.shape, -1)
    for i in range(kernel):
        for j in range(kernel):
            rows = np.arange(high) * stride + i * dilation - padding
            columns = np.arange(wide) * stride + j * dilation - padding
            inside = ((rows >= 0) & (rows < 33))[:, None] & ((columns >= 0) & (columns < 40))
            value = x[:, :, np.clip(rows, 0, 32)[:, None], np.clip(columns, 0, 39)]
            wins = inside & ((value > best) | np.isnan(value) | (where < 0))
            best = np.where(wins, value, best)
            where = np.where(wins, np.clip(rows, 0, 32)[:, None] * 40 + columns, where)
    assert np.array_equal(y.detach().numpy(), best, equal_nan=True)
    assert np.array_equal(places.numpy(), where)
    dy = random.standard_normal(y.shape).astype(dtype)
    y.backward(mlgpu.tensor(dy))
    dx = np.zeros((16 * 24, 33 * 40))
    np.add.at(dx, (np.arange(16 * 24)[:, None], where.reshape(16 * 24, -1)),
              dy.reshape(16 * 24, -1))
    np.testing.assert_allclose(given.grad.numpy(), dx.reshape(x.shape), rtol=1e-5, atol=1e-5)


MAPS = {
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool of all sizes": lambda x: F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 7),
    "global": lambda x: F.adaptive_avg_pool2d(x, 1),
    "bilinear": lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"),
    "nearest": lambda x: F.interpolate(x, size=(50, 41)),
    "unfold": lambda x: F.unfold(x, 3, padding=1, stride=2),
    "fold": lambda x: F.fold(x.reshape(len(x), 18, -1), (62, 22), 3, padding=1),
    "windows": lambda x: x.unfold(2, 5, 3),
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.bfloat16], ids=str)
def test_maps_of_planes_on_threads_are_those_of_each_image_alone(name, dtype, count):
    random = np.random.default_rng(0)
    x = mlgpu.tensor(random.standard_normal((16, 24, 33, 31))).to(dtype).requires_grad_(True)
    y = MAPS[name](x)
    assert max(x.numel(), y.numel()) >= threads.SERIAL
    dy = mlgpu.tensor(random.standard_normal(y.shape)).to(dtype)
    y.backward(dy)
    for n in range(16):
        image = x.detach()[n:n + 1].requires_grad_(True)
        alone = MAPS[name](image)
        alone.backward(dy[n:n + 1])
        assert (alone[0] == y[n]).all()
        assert (image.grad[0] == x.grad[n]).all()
