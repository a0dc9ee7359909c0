"""The books: what is alive, what may still be asked for, and what release() takes back."""

from __future__ import annotations

import copy
import dataclasses
import gc
import mmap
import os
import pickle
import sys
import threading
import time

import numpy as np
import pytest

import mlgpu
from mlgpu import memory
from mlgpu.cpu import runtime
from mlgpu.errors import OutOfMemoryError, ReleasedError, ShapeError

KIB = 1024


def floats(n):
    """A tensor of 4n bytes."""
    return mlgpu.zeros(n)


def refused(n):
    """Whether n floats are over budget."""
    try:
        floats(n)
    except OutOfMemoryError:
        return True
    return False


class Watch:
    """What changed on the books since it was made."""

    def __init__(self):
        gc.collect()
        memory.reset_peak()
        self.before = memory.stats()

    def __getattr__(self, name):
        return getattr(memory.stats(), name) - getattr(self.before, name)


# --- statistics -----------------------------------------------------------------------------------


def test_bytes_and_blocks():
    watch = Watch()
    x = floats(KIB)
    assert (watch.allocated, watch.count, watch.allocations) == (4096, 1, 1)
    y = mlgpu.tensor(np.zeros(100))
    assert (watch.allocated, watch.count) == (4096 + 800, 2)
    del x
    assert (watch.allocated, watch.count, watch.allocations) == (800, 1, 2)
    assert memory.stats().peak - watch.before.allocated == 4096 + 800
    memory.reset_peak()
    assert memory.stats().peak == memory.stats().allocated
    del y
    assert (watch.allocated, watch.count) == (0, 0)


@pytest.mark.parametrize(("make", "nbytes"), [
    (lambda: mlgpu.zeros(10, 10), 400),
    (lambda: mlgpu.zeros(0, 10), 0),
    (lambda: mlgpu.tensor(1.0), 4),
    (lambda: mlgpu.arange(10), 80),
    (lambda: mlgpu.ones(7, dtype=mlgpu.bool), 7),
    (lambda: mlgpu.ones(7, dtype=mlgpu.bfloat16), 14),
    (lambda: mlgpu.ones(7, dtype=mlgpu.complex128), 112),
    (lambda: mlgpu.empty_strided((2, 3), (5, 1)), 32),
    (lambda: mlgpu.full((3,), 2.5), 12),
    (lambda: mlgpu.tensor([[1, 2], [3, 4]]), 32),
    (lambda: mlgpu.eye(3), 36),
    (lambda: mlgpu.linspace(0, 1, 5), 20),
    (lambda: mlgpu.ones(4) + mlgpu.ones(4), 16),
    (lambda: mlgpu.ones(4, 1) + mlgpu.ones(3), 48),
    (lambda: mlgpu.ones(4, 3) @ mlgpu.ones(3, 2), 32),
    (lambda: mlgpu.ones(4, 3).sum(0), 12),
    (lambda: mlgpu.cat([mlgpu.ones(4), mlgpu.ones(3)]), 28),
    (lambda: mlgpu.ones(4).to(mlgpu.float64), 32),
    (lambda: mlgpu.ones(4).clone(), 16),
    (lambda: mlgpu.ones(4)[mlgpu.tensor([0, 1])], 8),
    (lambda: mlgpu.ones(4) > 0, 4),
    (lambda: mlgpu.arange(4).sort().values, 32),
])
def test_a_result_is_charged_exactly_and_workspaces_are_gone(make, nbytes):
    make()  # what is made once for all is made now
    watch = Watch()
    result = make()
    assert watch.allocated == nbytes
    assert watch.count == 1
    del result
    assert (watch.allocated, watch.count) == (0, 0)


@pytest.mark.parametrize("fail", [
    lambda: mlgpu.full((KIB,), 300, dtype=mlgpu.uint8),
    lambda: mlgpu.tensor([1, 300], dtype=mlgpu.uint8),
    lambda: mlgpu.tensor([1, 2], requires_grad=True),
    lambda: mlgpu.ones(KIB) @ mlgpu.ones(3),
    lambda: mlgpu.arange(KIB) // 0,
    lambda: mlgpu.cat([mlgpu.ones(KIB), mlgpu.ones(2, 2)]),
])
def test_what_fails_leaves_nothing_on_the_books(fail):
    watch = Watch()
    for _ in range(3):
        try:
            fail()
        except RuntimeError:
            pass
        else:
            pytest.fail("it did not fail")
    gc.collect()
    assert (watch.allocated, watch.count) == (0, 0)
    fresh = floats(10)  # whose array may have the id of one that died unclaimed
    assert (watch.allocated, watch.count) == (fresh.nbytes, 1)


@pytest.mark.parametrize("view", [
    lambda x: x[1:], lambda x: x[:, 0], lambda x: x.T, lambda x: x.view(-1), lambda x: x.detach(),
    lambda x: x.expand(5, 16, 64), lambda x: x.reshape(64, 16), lambda x: x.data,
    lambda x: x.split(4), lambda x: x.unfold(0, 2, 1), lambda x: x.diagonal(),
    lambda x: x.squeeze(),
    lambda x: x.contiguous(), lambda x: x.to(mlgpu.float32), lambda x: x.view(mlgpu.int32),
])
def test_views_cost_nothing_and_keep_the_memory(view):
    x = floats(KIB).view(16, 64)
    watch = Watch()
    other = view(x)
    assert (watch.allocated, watch.count, watch.allocations) == (0, 0, 0)
    del x
    assert watch.allocated == 0
    del other
    assert watch.allocated == -4096


def test_gradients_and_saved_values():
    x = mlgpu.ones(KIB, requires_grad=True)
    watch = Watch()
    y = x.exp()
    z = y.sum()
    assert watch.allocated == 4096 + 4
    del y  # exp saved its result
    assert watch.allocated == 4096 + 4
    z.backward()
    assert watch.allocated == 4 + 4096  # the graph is freed, x.grad was made
    x.grad = None
    assert watch.allocated == 4


def test_borrowed_and_mapped_memory_is_counted_apart(tmp_path):
    watch = Watch()
    shared = mlgpu.from_numpy(np.zeros(100))
    assert (watch.allocated, watch.mapped, watch.count) == (0, 800, 1)
    view = shared[10:]
    copied = mlgpu.tensor(shared.numpy())
    assert (watch.allocated, watch.mapped) == (800, 800)
    del shared, view, copied
    assert (watch.allocated, watch.mapped) == (0, 0)
    mlgpu.save({"w": mlgpu.ones(KIB)}, tmp_path / "w.safetensors")
    watch = Watch()
    loaded = mlgpu.load(tmp_path / "w.safetensors")
    assert (watch.allocated, watch.mapped) == (0, 4096)
    with memory.budget(0):
        assert loaded["w"].sum is not None
        loaded["w"].add_(1)  # private pages: the file keeps its values
    del loaded
    assert watch.mapped == 0
    assert mlgpu.load(tmp_path / "w.safetensors")["w"][0].item() == 1


def test_memory_maps_of_the_user(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(4096))
    watch = Watch()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
        tensor = mlgpu.from_numpy(np.frombuffer(mapped, np.float32))
        assert (watch.allocated, watch.mapped) == (0, 4096)
        tensor.fill_(2)
        del tensor
    assert np.frombuffer(path.read_bytes(), np.float32).tolist() == [2] * 1024
    assert watch.mapped == 0


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "nbytes"), [
    (0, 0), (4096, 4096), (np.int64(4096), 4096), ("4096", 4096),
    ("1 KiB", 1024), ("2 GiB", 2 << 30), ("1.5GB", 15 * 10**8),
    (" 3 mb ", 3000000), ("7B", 7), ("1tib", 1 << 40), ("0.5 MiB", 1 << 19),
])
def test_sizes(text, nbytes):
    assert memory.parse_bytes(text) == nbytes
    assert type(memory.parse_bytes(text)) is int


def test_sizes_from_numpy_stay_out_of_the_books():
    watch = Watch()
    array = runtime.empty((np.int64(3), 5), np.float32)
    assert watch.allocated == 60
    assert type(memory.stats().allocated) is type(memory.stats().peak) is int
    del array
    assert watch.allocated == 0


@pytest.mark.parametrize("text", [-1, True, 1.5, None, "", "GiB", "1 GG", "-1 KiB", "1 2", "1e3",
                                  b"1"])
def test_what_is_no_size(text):
    with pytest.raises(ShapeError, match=r"memory: expected a size such as .* got"):
        memory.parse_bytes(text)
    with pytest.raises(ValueError), memory.budget(text):
        pass


@pytest.mark.parametrize(("nbytes", "text"), [
    (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (3 << 20, "3.00 MiB"),
    (5 << 40, "5120.00 GiB"),
])
def test_formatting(nbytes, text):
    assert memory.format_bytes(nbytes) == text


# --- limits and budgets ---------------------------------------------------------------------------


@pytest.fixture
def limited():
    """Allows 10 KiB more than is alive."""
    gc.collect()
    memory.limit(memory.stats().allocated + 10 * KIB)
    yield
    memory.limit(None)


def test_the_limit(limited):
    assert memory.stats().limit == memory.stats().allocated + 10 * KIB
    x = floats(2 * KIB)
    watch = Watch()
    with pytest.raises(OutOfMemoryError, match=r"the limit of"):
        floats(KIB)
    assert (watch.allocated, watch.count, watch.allocations) == (0, 0, 0)
    del x
    assert floats(2 * KIB).numel() == 2 * KIB
    found = []
    thread = threading.Thread(target=lambda: found.append(refused(3 * KIB)))
    thread.start()
    thread.join()
    assert found == [True]  # it holds in all threads


def test_the_limit_can_be_lifted(limited):
    memory.limit(None)
    assert memory.stats().limit is None
    assert floats(100 * KIB).numel() == 100 * KIB
    with pytest.raises(ValueError):
        memory.limit("much")


def test_the_error_tells_what_was_asked_and_what_is_alive():
    with memory.trace():
        big = mlgpu.zeros(77, 33)
    line = test_the_error_tells_what_was_asked_and_what_is_alive.__code__.co_firstlineno + 2
    with memory.budget("12 KiB"):
        kept = floats(KIB)
        with pytest.raises(OutOfMemoryError) as raised:
            mlgpu.ones(3, KIB)
    message = str(raised.value)
    assert "12.00 KiB (12288 bytes) asked for on cpu" in message
    assert "4.00 KiB of the budget of 12.00 KiB are in use" in message
    assert "raise the budget" in message
    assert isinstance(raised.value, MemoryError)
    assert isinstance(raised.value, RuntimeError)
    lines = message.partition("Largest live blocks:\n")[2].splitlines()
    assert 1 <= len(lines) <= 5
    sizes = [block.nbytes for block in memory.snapshot()[:5]]
    assert sizes == sorted(sizes, reverse=True)
    if big.nbytes >= sizes[-1]:
        assert f"float32 [77x33], 0.0 s old at {__file__}:{line}" in message
    assert kept.numel() == KIB


@pytest.mark.parametrize("ask", [
    lambda x: x + 1, lambda x: x.clone(), lambda x: x.exp(), lambda x: mlgpu.zeros_like(x),
    lambda x: x.double(), lambda x: mlgpu.cat([x, x]), lambda x: x.sort(), lambda x: x.cumsum(0),
    lambda x: x[x > -1], lambda x: x[mlgpu.arange(KIB)], lambda x: x.view(32, 32) @ x.view(32, 32),
    lambda x: mlgpu.tensor(x.numpy()), lambda x: x.softmax(0), lambda x: x.flip(0),
    lambda x: x.repeat(2), lambda x: mlgpu.stack([x, x]), lambda x: x.view(32, 32).T.contiguous(),
    lambda x: x.view(32, 32).inverse(), lambda x: mlgpu.fft.fft(x), lambda x: x.tril() if x.ndim > 1
    else x.view(32, 32).tril(), lambda x: x.topk(KIB), lambda x: mlgpu.arange(KIB),
    lambda x: mlgpu.eye(32), lambda x: mlgpu.linspace(0, 1, KIB), lambda x: mlgpu.rand(KIB),
    lambda x: mlgpu.randperm(KIB), lambda x: x.where(x > 0, x), lambda x: x.max(0, keepdim=True)
    if x.ndim > 1 else x.view(1, KIB).max(0), lambda x: x.masked_fill(x > 0, 1.0),
    lambda x: x.gather(0, mlgpu.arange(KIB)), lambda x: mlgpu.nn.functional.gelu(x),
    lambda x: mlgpu.nn.functional.layer_norm(x, (KIB,)), lambda x: mlgpu.nn.functional.dropout(x),
    lambda x: mlgpu.nn.functional.pad(x, (1, 1)), lambda x: mlgpu.from_dlpack(x, copy=True),
    lambda x: mlgpu.nn.Linear(32, 32),
])
def test_a_budget_refuses_before_anything_is_allocated(ask):
    x = mlgpu.rand(KIB) + 0.5
    mlgpu.arange(KIB)
    watch = Watch()
    with memory.budget(4 * KIB - 1), pytest.raises(OutOfMemoryError, match="of the budget of"):
        ask(x)
    gc.collect()
    assert (watch.allocated, watch.count) == (0, 0)
    assert memory.stats().peak - watch.before.allocated < 4 * KIB
    ask(x)


@pytest.mark.parametrize("change", [
    lambda x, y: x.add_(y), lambda x, y: x.mul_(x.view(32, 32).T.reshape(-1)),
    lambda x, y: x.view(32, 32).add_(x.view(32, 32).T), lambda x, y: x.sub_(y.exp()),
    lambda x, y: x.cumsum_(0), lambda x, y: x.copy_(x.flip(0)),
    lambda x, y: x.masked_fill_(y > 0, 3.0), lambda x, y: x.scatter_(0, mlgpu.arange(KIB), y),
    lambda x, y: x.__setitem__(mlgpu.arange(KIB), y), lambda x, y: x.tril_() if x.ndim > 1
    else x.view(32, 32).tril_(), lambda x, y: x.addcdiv_(y, y + 1), lambda x, y: x.sigmoid_(),
    lambda x, y: x[1:].mul_(x[:-1]), lambda x, y: x.uniform_(), lambda x, y: x.fill_(2.0),
    lambda x, y: x.index_add_(0, mlgpu.arange(KIB), y),
])
def test_a_refused_change_leaves_its_target_as_it_was(change):
    """Whatever budget it runs under, a change in place is made in full or not at all."""
    x, y = mlgpu.rand(KIB), mlgpu.rand(KIB)
    before = x.tolist()
    for budget in (0, 100, 3000, 4 * KIB, 5 * KIB, 8 * KIB, 9 * KIB, 12 * KIB):
        version = x._version
        try:
            with memory.budget(budget):
                change(x, y)
        except OutOfMemoryError:
            assert x.tolist() == before
            assert x._version == version
        else:
            assert x.tolist() != before or budget == 0
            break
    else:
        change(x, y)
    assert x.tolist() != before


def test_budgets_count_what_is_still_held():
    old = floats(KIB)
    with memory.budget("8 KiB"):
        for _ in range(10):
            floats(2 * KIB)
        x = floats(KIB)
        old.release()  # made before: frees nothing of the budget
        with pytest.raises(OutOfMemoryError):
            floats(2 * KIB)
        x.release()
        y = floats(2 * KIB)
        with pytest.raises(OutOfMemoryError):
            floats(1)
    assert floats(100 * KIB).numel() == 100 * KIB
    del y


def test_budgets_nest():
    with memory.budget("16 KiB"):
        a = floats(2 * KIB)
        with memory.budget("12 KiB"):
            with pytest.raises(OutOfMemoryError, match=r"8\.00 KiB of the budget of 16\.00 KiB"):
                floats(3 * KIB)
            del a
            b = floats(3 * KIB)
            with pytest.raises(OutOfMemoryError, match=r"budget of 12\.00 KiB"):
                floats(KIB)
        c = floats(KIB)
        with pytest.raises(OutOfMemoryError, match=r"16\.00 KiB of the budget of 16\.00 KiB"):
            floats(1)
    del b, c


def test_a_budget_ends_with_an_exception():
    with pytest.raises(KeyError), memory.budget(10):
        {}["nothing"]
    assert floats(KIB).numel() == KIB


def test_budgets_belong_to_their_thread():
    found = []

    def elsewhere():
        found.append(floats(100 * KIB))
        with memory.budget(100):
            found.append(refused(26))

    with memory.budget("4 KiB"):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert found[1]
        x = floats(KIB)
        with pytest.raises(OutOfMemoryError):
            floats(1)
        # What another thread frees is free here.
        holder = [x]
        del x
        thread = threading.Thread(target=holder.clear)
        thread.start()
        thread.join()
        assert floats(KIB).numel() == KIB


def test_the_system_running_out_is_the_same_error():
    watch, before = Watch(), memory.stats("cpu")
    with pytest.raises(OutOfMemoryError, match=r"memory: the system has no"):
        mlgpu.empty(1 << 60, dtype=mlgpu.uint8)
    assert (watch.allocated, watch.count) == (0, 0)
    # What was kept for reuse has been given to the system, which might have made the room.
    assert memory.stats("cpu") == dataclasses.replace(before, cached=0)


def test_backward_under_a_budget_can_be_repeated():
    x = mlgpu.rand(KIB).requires_grad_()
    y = (x.exp() * x).sum()
    with memory.budget(100), pytest.raises(OutOfMemoryError):
        y.backward(retain_graph=True)
    assert x.grad is None
    y.backward()
    assert x.grad is not None


# --- snapshots ------------------------------------------------------------------------------------


def test_snapshot():
    start = time.monotonic()
    small = mlgpu.zeros(3, 5, dtype=mlgpu.int16)
    large = mlgpu.zeros(70_001)
    scalar = mlgpu.tensor(1.0)
    blocks = memory.snapshot()
    assert [b.nbytes for b in blocks] == sorted((b.nbytes for b in blocks), reverse=True)
    mine = [b for b in blocks if b.age <= time.monotonic() - start]
    assert [(b.nbytes, b.shape, b.dtype, b.where) for b in mine] == [
        (280_004, (70_001,), "float32", None), (30, (3, 5), "int16", None),
        (4, (), "float32", None)]
    assert str(mine[1]).startswith("30 B int16 [3x5], 0.0 s old")
    assert str(mine[2]).startswith("4 B float32 [scalar]")
    assert all(0 <= b.age < 60 for b in mine)
    del large
    assert not [b for b in memory.snapshot() if b.nbytes == 280_004]
    assert small.numel() + scalar.numel() == 16


def own_line():
    return f"{__file__}:{sys._getframe(1).f_lineno}"


def test_tracing_names_the_line_of_the_user():
    x = mlgpu.ones(1, requires_grad=True)
    with memory.trace():
        a, here = mlgpu.zeros(11_111), own_line()
        b, there = (a + 1).requires_grad_(), own_line()
        model, in_init = mlgpu.nn.Linear(101, 103), own_line()
        (b * x).sum().backward(); backward = own_line()  # noqa: E702
    after = mlgpu.zeros(22_222)
    where = {b.shape: b.where for b in memory.snapshot() if b.shape[:1] in (
        (11_111,), (22_222,), (103,))}
    assert where[22_222,] is None
    assert where[103, 101] == in_init
    traced = {b.where for b in memory.snapshot() if b.shape == (11_111,)}
    assert traced == {here, there, backward}
    assert after.numel() + model.in_features > 0


# --- release --------------------------------------------------------------------------------------


def test_release_gives_memory_back_at_once():
    watch = Watch()
    x = floats(KIB)
    view = x[10:]
    x.release()
    assert (watch.allocated, watch.count) == (0, 0)
    x.release()  # once more is harmless
    for gone in (x, view):
        with pytest.raises(ReleasedError, match="release"):
            gone.add_(1)
    assert (tuple(view.shape), view.dtype) == ((KIB - 10,), mlgpu.float32)


def test_releasing_a_view_releases_the_storage():
    x = floats(KIB)
    x[3:].release()
    with pytest.raises(ReleasedError):
        x.sum()


USES = {
    "item": lambda t: t.item(), "tolist": lambda t: t.tolist(),
    "numpy": lambda t: t.numpy(), "array": lambda t: np.asarray(t), "bool": lambda t: bool(t),
    "float": lambda t: float(t), "int": lambda t: int(t), "index": lambda t: [1, 2][t.int()],
    "add": lambda t: t + 1, "radd": lambda t: 1 + t, "iadd": lambda t: t.__iadd__(1),
    "neg": lambda t: -t, "compare": lambda t: t == 0, "matmul": lambda t: t @ t,
    "getitem": lambda t: t[0], "slice": lambda t: t[:], "mask": lambda t: t[mlgpu.tensor([True])],
    "setitem": lambda t: t.__setitem__(0, 1.0), "gather": lambda t: t[mlgpu.tensor([0])],
    "view": lambda t: t.view(-1), "reshape": lambda t: t.reshape(1), "T": lambda t: t.T,
    "expand": lambda t: t.expand(3), "unbind": lambda t: t.unbind(), "iter": lambda t: list(t),
    "split": lambda t: t.split(1), "squeeze": lambda t: t.squeeze(), "detach": lambda t: t.detach(),
    "data": lambda t: t.data, "clone": lambda t: t.clone(), "contiguous": lambda t: t.contiguous(),
    "to": lambda t: t.to(mlgpu.float64), "to same": lambda t: t.to("cpu"), "cpu": lambda t: t.cpu(),
    "float()": lambda t: t.double(), "float same": lambda t: t.float(),
    "copy_": lambda t: t.copy_(mlgpu.ones(1)), "copy_ from": lambda t: mlgpu.ones(1).copy_(t),
    "fill_": lambda t: t.fill_(1), "zero_": lambda t: t.zero_(), "sum": lambda t: t.sum(),
    "max": lambda t: t.max(), "sort": lambda t: t.sort(), "exp_": lambda t: t.exp_(),
    "cat": lambda t: mlgpu.cat([t, t]), "where": lambda t: mlgpu.where(t > 0, t, t),
    "pow": lambda t: t ** 2, "zeros_": lambda t: t.mul_(0), "dlpack": lambda t: t.__dlpack__(),
    "from_dlpack": lambda t: mlgpu.from_dlpack(t), "deepcopy": lambda t: copy.deepcopy(t),
    "pickle": lambda t: pickle.dumps(t), "tensor": lambda t: mlgpu.tensor(t),
    "as_tensor": lambda t: mlgpu.as_tensor(t), "linear": lambda t: mlgpu.nn.functional.linear(
        mlgpu.ones(1), t.view(1, 1)), "data_ptr": lambda t: t.data_ptr(),
    "stride": lambda t: t.stride(), "storage_offset": lambda t: t.storage_offset(),
    "is_contiguous": lambda t: t.is_contiguous(), "set data": lambda t: setattr(
        mlgpu.ones(1), "data", t), "set grad": lambda t: setattr(mlgpu.ones(1), "grad", t),
    "save": lambda t: mlgpu.save({"t": t}, os.devnull + ".safetensors"),
    "equal": lambda t: mlgpu.equal(t, t), "allclose": lambda t: t.allclose(t),
    "softmax": lambda t: t.softmax(0), "index_select": lambda t: t.index_select(
        0, mlgpu.tensor([0])), "einsum": lambda t: mlgpu.einsum("i->", t),
    "mean": lambda t: t.mean(),
    "uniform_": lambda t: t.uniform_(), "Parameter": lambda t: mlgpu.nn.Parameter(t),
    "pin_memory": lambda t: t.pin_memory(), "requires": lambda t: (t.requires_grad_() * 2),
    "ones_like": lambda t: mlgpu.ones_like(t).add(t), "type_as": lambda t: t.type_as(mlgpu.ones(1)),
    "repeat": lambda t: t.repeat(2), "cumsum": lambda t: t.cumsum(0), "norm": lambda t: t.norm(),
    "fuse": lambda t: mlgpu.fuse(lambda x: x * 2)(t), "unfold": lambda t: t.unfold(0, 1, 1),
    "view dtype": lambda t: t.view(mlgpu.int32), "real": lambda t: t.to(mlgpu.complex64).real,
    "amax": lambda t: t.amax(), "ravel": lambda t: t.ravel(), "outer": lambda t: t.outer(t),
    "expand_as": lambda t: t.expand_as(mlgpu.ones(2)),
    "reshape_as": lambda t: t.reshape_as(mlgpu.ones(1)),
    "share": lambda t: mlgpu.from_numpy(t.numpy()), "normal_": lambda t: t.normal_(),
    "broadcast_to": lambda t: t.broadcast_to((2,)), "diag": lambda t: t.diag(),
    "masked_fill_": lambda t: t.masked_fill_(mlgpu.tensor([True]), 0),
    "backward grad": lambda t: (mlgpu.ones(1, requires_grad=True) * 2).backward(t),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("which", ["tensor", "view"])
def test_every_use_of_a_released_tensor_raises(use, which):
    base = mlgpu.ones(3)
    target = base[:1] if which == "view" else base[:1].clone()
    (base if which == "view" else target).release()
    with pytest.raises(ReleasedError, match="release"):
        USES[use](target)
    # What it was is still known, and printing says what became of it.
    assert (tuple(target.shape), target.ndim, target.dtype, target.numel()) == (
        (1,), 1, mlgpu.float32, 1)
    assert (target.device.type, target.nbytes, target.size(0), len(target)) == ("cpu", 4, 1, 1)
    assert "released" in repr(target)
    assert "released" in str(target)


def test_backward_that_needs_released_memory_raises():
    x = mlgpu.ones(3, requires_grad=True)
    weight = mlgpu.full((3,), 2.0)
    y = (x * weight).sum()
    weight.release()
    with pytest.raises(ReleasedError, match=r"mul: backward needs a tensor of shape \(3,\) that "
                                            r"was released; release it later"):
        y.backward()
    assert x.grad is None


def test_backward_that_does_not_need_it_works():
    x = mlgpu.ones(3, requires_grad=True)
    hidden = x * 2
    y = hidden + 1
    hidden.release()
    y.sum().backward()
    assert x.grad.tolist() == [2, 2, 2]


@pytest.mark.parametrize("export", [np.asarray, np.from_dlpack, lambda t: t.numpy()[5:],
                                    lambda t: np.asarray(memoryview(t.numpy()))])
@pytest.mark.parametrize("end", ["release", "del"])
def test_exported_memory_stays_valid(export, end):
    watch = Watch()
    tensor = mlgpu.full((KIB,), 7.0)
    lent = export(tensor)
    if end == "release":
        tensor.release()
        with pytest.raises(ReleasedError):
            tensor.sum()
    del tensor
    for _ in range(10):
        floats(KIB).fill_(-1)
    assert (lent == 7).all()
    assert watch.allocated == 4096  # on the books as long as somebody holds it
    del lent
    assert watch.allocated == 0


def test_data_assignment_moves_to_other_memory():
    watch = Watch()
    x = floats(KIB)
    x.data = floats(10)
    assert watch.allocated == 40
    old = x[2:]
    x.data = mlgpu.ones(3)
    old.release()
    assert x.tolist() == [1, 1, 1]


# --- threads and processes ------------------------------------------------------------------------


def test_the_books_balance_under_threads():
    watch = Watch()

    def work(seed):
        rng = np.random.default_rng(seed)
        kept = []
        for _ in range(300):
            kept.append(floats(int(rng.integers(1, 100))) + 1)
            if len(kept) > 5:
                kept.pop(int(rng.integers(0, 5)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert (watch.allocated, watch.count) == (0, 0)
