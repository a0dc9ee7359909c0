"""The gradient of cross_entropy lies in the memory of its logits where nothing else can read it."""

from __future__ import annotations

import functools
import gc
import threading

import numpy as np
import pytest

import mlgpu
from mlgpu.autograd.graph import saved_tensors_hooks
from mlgpu.errors import GraphError
from mlgpu.nn import functional as F
from mlgpu.utils.checkpoint import checkpoint

ROWS, CLASSES, FEATURES = 32, 512, 4
BYTES = ROWS * CLASSES * 4


def on(values, **options):
    return mlgpu.tensor(values, device="cuda", **options)


def inputs():
    rng = np.random.default_rng(0)
    x, weight = (on(rng.standard_normal(shape).astype(np.float32), requires_grad=True)
                 for shape in ((ROWS, FEATURES), (CLASSES, FEATURES)))
    return x, weight, on(rng.integers(0, CLASSES, ROWS))


@functools.cache
def expected(scale=1.0, **options):
    """The gradient of x, by Tensor operations throughout."""
    x, weight, target = inputs()
    loss = F.cross_entropy(F.linear(x, weight), target, **options) * scale
    return mlgpu.autograd.grad(loss, [x], create_graph=True)[0].detach().cpu().numpy()


def close(x, want):
    np.testing.assert_allclose(x.grad.cpu().numpy(), want, 1e-4, 1e-6)


class Peak:
    """How many bytes more than at the start were held at once."""

    def __enter__(self):
        mlgpu.cuda.reset_peak_memory_stats()
        self.before = mlgpu.cuda.memory_allocated()
        return self

    def __exit__(self, *_):
        self.extra = mlgpu.cuda.max_memory_allocated() - self.before


def backward(loss, **options):
    """The logits' gradients that this pass allocates, in units of the logits."""
    with Peak() as peak:
        loss.backward(**options)
    return round(peak.extra / BYTES)


@pytest.mark.parametrize("options", [
    {}, {"reduction": "sum"}, {"label_smoothing": 0.1}, {"ignore_index": 3}])
def test_logits_that_nobody_holds_give_their_memory(options):
    x, weight, target = inputs()
    with Peak() as whole:
        loss = F.cross_entropy(F.linear(x, weight), target, **options)
        assert backward(loss) == 0
    assert whole.extra < 1.5 * BYTES
    close(x, expected(**options))
    with pytest.raises(GraphError, match="cross_entropy: backward a second time"):
        loss.backward()


def along_rows(x, weight, target):
    return F.linear(x, weight), target


def along_an_inner_dimension(x, weight, target):
    return F.linear(weight, x)[None], mlgpu.zeros_like(target)[None]


@pytest.mark.parametrize(("place", "dtype"), [
    (along_rows, mlgpu.float32), (along_an_inner_dimension, mlgpu.float16)])
def test_the_peak_falls_by_the_size_of_the_logits(dtype, place):
    peaks = []
    for kept in (True, False):
        x, weight, target = inputs()
        x, weight = x.detach().to(dtype).requires_grad_(), weight.to(dtype)
        with Peak() as peak:
            logits, classes = place(x, weight, target)
            loss = F.cross_entropy(logits, classes)
            if not kept:
                del logits
            loss.backward()
        peaks.append(peak.extra)
        del loss
        logits = None
    assert peaks[0] - peaks[1] == pytest.approx(BYTES * dtype.itemsize // 4, rel=0.02)


@pytest.mark.parametrize("shape", [(ROWS, CLASSES), (ROWS // 4, 4, CLASSES)])
def test_logits_seen_under_another_shape(shape):
    x, weight, target = inputs()
    logits = F.linear(x, weight).reshape(shape).reshape(ROWS, CLASSES)
    loss = F.cross_entropy(logits, target)
    del logits
    assert backward(loss) == 0
    close(x, expected())


def test_logits_that_do_not_lie_in_order():
    """The copy that is read is written over."""
    x, weight, target = inputs()
    loss = F.cross_entropy(F.linear(weight, x).T, target)
    assert backward(loss) == 1
    close(x, expected())


HOLDERS = {
    "the logits": lambda logits: logits,
    "a view": lambda logits: logits[3:5],
    "detached": lambda logits: logits.detach(),
    "a transposed view": lambda logits: logits.T,
    "a closure": lambda logits: lambda: logits,
    "a view of another shape": lambda logits: logits.reshape(-1)[:1],
    "a cycle": lambda logits: _cycle(logits),
}


def _cycle(value):
    held = [value]
    held.append(held)  # garbage, which a collector has not seen yet



@pytest.mark.parametrize("name", HOLDERS)
def test_logits_that_somebody_holds_stay(name):
    x, weight, target = inputs()
    logits = F.linear(x, weight)
    values = logits.detach().cpu().numpy()
    gc.collect()
    gc.disable()
    try:
        held = HOLDERS[name](logits)
        loss = F.cross_entropy(logits, target)
        seen = held if isinstance(held, mlgpu.Tensor) else None
        before = None if seen is None else seen.detach().cpu().numpy()
        if name != "the logits":
            del logits
        assert backward(loss) == 1
    finally:
        gc.enable()
    close(x, expected())
    if seen is not None:
        assert np.array_equal(seen.detach().cpu().numpy(), before)
    if name == "a closure":
        assert np.array_equal(held().detach().cpu().numpy(), values)


@pytest.mark.parametrize("other", [
    lambda z: z.exp().sum(), lambda z: (z * z).sum(), lambda z: F.softmax(z, 1).pow(2).sum(),
    lambda z: F.cross_entropy(z, mlgpu.zeros(ROWS, dtype=mlgpu.int64, device="cuda"))],
    ids=["exp", "mul", "softmax", "cross_entropy"])
@pytest.mark.parametrize("late", [False, True])
def test_logits_that_another_operation_saved(other, late):
    """Whichever comes first in the walk, each sees the logits."""
    grads = []
    for create_graph in (False, True):
        x, weight, target = inputs()
        logits = F.linear(x, weight)
        parts = [lambda z, t=target: F.cross_entropy(z, t) * 100, other]
        loss = None
        for part in parts[::-1] if late else parts:
            value = part(logits)
            loss = value if loss is None else loss + value
        del logits
        grads.append(mlgpu.autograd.grad(loss, [x, weight], create_graph=create_graph))
        del loss
    for got, want in zip(*grads, strict=True):
        np.testing.assert_allclose(got.cpu().numpy(), want.detach().cpu().numpy(), 1e-3, 1e-3)


def test_a_retained_graph_keeps_its_logits():
    x, weight, target = inputs()
    loss = F.cross_entropy(F.linear(x, weight), target)
    assert backward(loss, retain_graph=True) == 1
    close(x, expected())
    x.grad = None
    assert backward(loss) == 0
    close(x, expected())


def test_two_losses_of_the_same_logits():
    x, weight, target = inputs()
    logits = F.linear(x, weight)
    first, second = F.cross_entropy(logits, target), F.cross_entropy(logits, target)
    del logits
    assert backward(first, retain_graph=True) == 1
    x.grad = None
    assert backward(second) == 1  # the first is still there
    close(x, expected())


def test_second_derivatives():
    x, weight, target = inputs()
    loss = F.cross_entropy(F.linear(x, weight), target)
    grad, = mlgpu.autograd.grad(loss, [x], create_graph=True)
    grad.pow(2).sum().backward()
    y, weight, target = inputs()
    logits = F.linear(y, weight)
    grad, = mlgpu.autograd.grad(F.cross_entropy(logits, target), [y], create_graph=True)
    grad.pow(2).sum().backward()
    np.testing.assert_allclose(x.grad.cpu().numpy(), y.grad.cpu().numpy(), 1e-6)


def test_a_kept_gradient_and_hooks_of_the_logits():
    x, weight, target = inputs()
    logits = F.linear(x, weight)
    seen = []
    logits.register_hook(lambda grad: seen.append(grad))
    logits.retain_grad()
    loss = F.cross_entropy(logits, target)
    values = logits.detach().cpu().numpy()
    assert backward(loss) >= 1
    assert np.array_equal(logits.detach().cpu().numpy(), values)
    assert np.array_equal(logits.grad.cpu().numpy(), seen[0].cpu().numpy())
    close(x, expected())


def test_a_hook_keeps_the_gradient_that_took_the_memory():
    x, weight, target = inputs()
    logits = F.linear(x, weight)
    seen = []
    logits.register_hook(lambda grad: seen.append(grad) or grad * 2)
    loss = F.cross_entropy(logits, target)
    p = F.softmax(logits, 1).detach().cpu().numpy()
    del logits
    loss.backward()
    p[np.arange(ROWS), target.cpu().numpy()] -= 1
    np.testing.assert_allclose(seen[0].cpu().numpy(), p / ROWS, 1e-4, 1e-7)
    close(x, expected(2.0))


def test_a_leaf_stays():
    target = inputs()[2]
    leaf = mlgpu.randn(ROWS, CLASSES, device="cuda", requires_grad=True)
    before = leaf.detach().cpu().numpy()
    loss = F.cross_entropy(leaf, target)
    assert backward(loss) == 1
    assert np.array_equal(leaf.detach().cpu().numpy(), before)
    assert leaf.grad.data_ptr() != leaf.data_ptr()


def test_packed_values_are_the_hooks():
    x, weight, target = inputs()
    kept = []
    with saved_tensors_hooks(lambda t: kept.append(t) or len(kept) - 1, lambda at: kept[at]):
        loss = F.cross_entropy(F.linear(x, weight), target)
    values = [t.cpu().numpy() for t in kept]
    loss.backward()
    close(x, expected())
    for t, value in zip(kept, values, strict=True):
        assert np.array_equal(t.cpu().numpy(), value)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint(reentrant):
    x, weight, target = inputs()
    loss = checkpoint(lambda x: F.cross_entropy(F.linear(x, weight), target), x,
                      use_reentrant=reentrant)
    loss.backward()
    close(x, expected())


def test_logits_changed_in_place_are_refused():
    x, weight, target = inputs()
    logits = F.linear(x, weight)
    loss = F.cross_entropy(logits, target)
    logits.detach().zero_()
    del logits
    with pytest.raises(GraphError, match="changed in place"):
        loss.backward()


def test_memory_lent_to_another_library():
    cupy = pytest.importorskip("cupy")
    x, weight, target = inputs()
    logits = F.linear(x, weight)
    lent = cupy.from_dlpack(logits.detach())
    values = cupy.asnumpy(lent)
    loss = F.cross_entropy(logits, target)
    del logits
    assert backward(loss) == 1
    assert np.array_equal(cupy.asnumpy(lent), values)
    del lent
    logits = F.linear(x, weight)
    lent = cupy.asarray(logits.detach())
    loss = F.cross_entropy(logits, target)
    del logits, lent
    assert backward(loss) == 1  # whether its streams are done with it is not known


def test_memory_of_another_library():
    cupy = pytest.importorskip("cupy")
    x, weight, target = inputs()
    theirs = cupy.zeros((ROWS, CLASSES), "float32")
    logits = mlgpu.from_dlpack(theirs)
    logits.add_(F.linear(x, weight))
    values = cupy.asnumpy(theirs)
    loss = F.cross_entropy(logits, target)
    del logits
    assert backward(loss) == 1
    assert np.array_equal(cupy.asnumpy(theirs), values)


def test_a_part_of_larger_memory():
    x, weight, target = inputs()
    loss = F.cross_entropy(F.linear(x, weight)[:ROWS // 2], target[:ROWS // 2])
    with Peak() as peak:
        loss.backward()
    assert peak.extra >= BYTES // 2


def test_another_stream_reads_the_logits():
    x, weight, target = inputs()
    side = mlgpu.cuda.Stream()
    logits = F.linear(x, weight)
    values = F.softmax(logits, 1).detach().cpu().numpy()
    loss = F.cross_entropy(logits, target)
    with mlgpu.cuda.stream(side), mlgpu.no_grad():
        p = F.softmax(logits, 1)
    del logits
    assert backward(loss) == 0
    assert np.array_equal(p.cpu().numpy(), values)
    close(x, expected())


def test_the_backward_pass_on_another_stream():
    x, weight, target = inputs()
    loss = F.cross_entropy(F.linear(x, weight), target)
    with mlgpu.cuda.stream(mlgpu.cuda.Stream()):
        assert backward(loss) == 0
    close(x, expected())


def test_a_captured_step_repeats():
    def step(x, weight, target):
        loss = F.cross_entropy(F.linear(x, weight), target)
        return loss, *mlgpu.autograd.grad(loss, [x, weight])

    captured = mlgpu.cuda.graph(step)
    x, weight, target = inputs()
    want = [t.detach().cpu().numpy() for t in step(x, weight, target)]
    for _ in range(4):
        for got, value in zip(captured(x, weight, target), want, strict=True):
            assert np.array_equal(got.detach().cpu().numpy(), value)


def test_logits_in_the_memory_of_a_graph_stay():
    x, weight, target = inputs()
    graph = mlgpu.cuda.CUDAGraph()
    with mlgpu.cuda.graph(graph):
        loss = F.cross_entropy(F.linear(x, weight), target)
    graph.replay()
    assert backward(loss) == 1
    close(x, expected())


def test_threads_walk_one_retained_graph():
    x, weight, target = inputs()
    loss = F.cross_entropy(F.linear(x, weight), target)
    found = []

    def walk():
        found.append(mlgpu.autograd.grad(loss, [x], retain_graph=True)[0])

    threads = [threading.Thread(target=walk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    want = expected()
    for grad in [*found, mlgpu.autograd.grad(loss, [x])[0]]:
        np.testing.assert_allclose(grad.cpu().numpy(), want, 1e-4, 1e-6)
    assert len(found) == 4


def test_each_thread_has_its_own():
    want = expected()
    wrong = []

    def work():
        for _ in range(3):
            x, weight, target = inputs()
            F.cross_entropy(F.linear(x, weight), target).backward()
            if not np.allclose(x.grad.cpu().numpy(), want, 1e-4, 1e-6):
                wrong.append(x.grad)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_walk_within_a_walk_that_retains():
    """The flag is the walk's own: a nested one that frees does not free for the outer one."""
    x, weight, target = inputs()
    loss = F.cross_entropy(F.linear(x, weight), target)
    y, *_ = inputs()

    @mlgpu.enable_grad()
    def nested(grad):
        F.cross_entropy(F.linear(y, weight), target).backward()

    scaled = loss * 1
    scaled.register_hook(nested)
    scaled.backward(retain_graph=True)
    x.grad = None
    scaled.backward()
    close(x, expected())
