"""What small operations and the start of a program cost, in counts that no busy machine changes."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest

import mlgpu
from mlgpu import nn
from mlgpu.nn import functional as F


def calls(work):
    """How many Python functions are called, after everything has been decided and loaded."""
    work()
    work()
    count = 0

    def watch(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


X, P, B = mlgpu.full((4,), 0.5), mlgpu.full((4,), 0.9), mlgpu.full((4,), 0.8)
X.requires_grad_()
P.requires_grad_()
M = mlgpu.eye(4).requires_grad_()
ROW, LINEAR = mlgpu.ones(1, 8).requires_grad_(), nn.Linear(8, 8)

# Per link of a chain: Python calls forward, and forward and backward.
CHAINS = {
    "x + b": (X, lambda y: y + B, 6, 7),
    "x + p": (X, lambda y: y + P, 6, 8),
    "x * b": (X, lambda y: y * B, 6, 7),
    "x * 2": (X, lambda y: y * 2.0, 10, 13),
    "relu": (X, lambda y: y.relu(), 10, 13),
    "tanh": (X, lambda y: y.tanh(), 9, 11),
    "matmul": (M, lambda y: y @ M.detach(), 40, 76),
    "linear": (ROW, lambda y: F.linear(y, LINEAR.weight, LINEAR.bias), 50, 140),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_small_operation_takes_few_calls(name):
    start, link, forward, both = CHAINS[name]

    def chain(length, back):
        y = start
        for _ in range(length):
            y = link(y)
        if back:
            y.backward(mlgpu.ones(y.shape))
        return y

    def per_link(back):
        return (calls(lambda: chain(20, back)) - calls(lambda: chain(10, back))) / 10

    found = per_link(False), per_link(True)
    assert all(count <= most for count, most in zip(found, (forward, both), strict=True)), found


def test_a_small_network_takes_few_calls():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def infer():
        with mlgpu.no_grad():
            model(ROW)

    assert calls(infer) <= 110


@pytest.mark.parametrize(("program", "absent"), [
    ("import mlgpu", """mlgpu.nn mlgpu.ops.conv mlgpu.ops.arithmetic mlgpu.cuda.launch numpy.random
        ml_dtypes numba cupy"""),
    ("from mlgpu import nn", """mlgpu.nn.linear mlgpu.nn.utils mlgpu.ops.linear mlgpu.linalg
        mlgpu.optim numba cupy"""),
    ("from mlgpu import nn; nn.Linear(2, 3)(__import__('mlgpu').ones(1, 2))",
     """mlgpu.nn.conv mlgpu.nn.rnn mlgpu.ops.conv mlgpu.ops.norm mlgpu.ops.loss_class mlgpu.linalg
        mlgpu.optim mlgpu.cuda.gemm ml_dtypes numba cupy"""),
    ("from mlgpu import nn; nn.utils.skip_init(nn.Linear, 2, 3)",
     "numpy.random mlgpu.random mlgpu.linalg mlgpu.ops.optimizer mlgpu.nn.utils.clip_grad"),
])
def test_what_is_not_used_is_not_loaded(program, absent):
    check = f"import sys; {program}; print(*(m for m in {absent.split()} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_table_of_functional_is_what_the_families_offer():
    for module, names in F._FUNCTIONS.items():
        offered = set(importlib.import_module(module).__all__)
        assert set(names.split()) <= offered
        if module not in ("mlgpu.ops.cdist", "mlgpu.ops.embedding", "mlgpu.ops.fold"):
            assert set(names.split()) == offered
    assert all(callable(getattr(F, name)) for name in dir(F))
    with pytest.raises(AttributeError, match=r"'mlgpu.nn.functional' has no attribute 'gemm'"):
        F.gemm  # noqa: B018


@pytest.mark.parametrize(("package", "table"), [
    (nn, nn._LAYERS),
    (nn.utils, {"clip_grad": None, "convert_parameters": None, "init": "skip_init"})])
def test_the_table_of_nn_is_what_its_modules_offer(package, table):
    for module, names in table.items():
        found = importlib.import_module(f"{package.__name__}.{module}")
        offered = set(names.split()) if names else set(found.__all__)
        assert {name for name, home in package._HOME.items() if home == module} == offered
        assert getattr(package, module) is found
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name).__name__.endswith(name) for name in package.__all__)
    with pytest.raises(AttributeError, match=f"'{package.__name__}' has no attribute 'gemm'"):
        package.gemm  # noqa: B018


def test_a_module_of_cuda_is_imported_when_something_of_it_is_used():
    code = ("import sys\n"
            "from mlgpu.cuda import types\n"
            "assert 'mlgpu.cuda.types' not in sys.modules\n"
            "types.added = 1\n"
            "import mlgpu.cuda.types as real\n"
            "assert type(real) is type(sys) and real.added == 1 and types.ctype is real.ctype\n"
            "assert types.__dict__ is real.__dict__\n"
            "del types.added\n"
            "assert not hasattr(real, 'added') and dir(types) == dir(real)\n"
            "from mlgpu.cuda import types as again\n"
            "assert again is real\n"
            "try:\n"
            "    from mlgpu.cuda import no_such_module\n"
            "except ImportError as error:\n"
            "    print(error)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot import name 'no_such_module' from 'mlgpu.cuda'")


# --- the short way gives what the long way gives --------------------------------------------------


def both_ways(function, *arrays):
    """Results and gradients by the short way and, under an observer, by the long one."""
    found = []
    for long in (False, True):
        inputs = [mlgpu.tensor(a).requires_grad_(a.dtype.kind == "f") for a in arrays]
        if long:
            with mlgpu.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
                y = function(*inputs)
        else:
            y = function(*inputs)
        if y.requires_grad:
            y.backward(mlgpu.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape))
        found.append([y.detach().numpy(), *(x.grad.numpy() for x in inputs if x.grad is not None)])
    return found


SPECIAL = np.array([[0.0, -0.0, np.inf, -np.inf], [np.nan, 1e-30, 3.4e38, -2.5]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", [
    lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / y,
    lambda x, y: x * 1e30, lambda x, y: 2 - x, lambda x, y: x // 2, lambda x, y: x ** 2,
    lambda x, y: x.relu(), lambda x, y: x.tanh(), lambda x, y: x.sigmoid(), lambda x, y: x.exp(),
    lambda x, y: x.floor(), lambda x, y: F.gelu(x), lambda x, y: F.silu(x), lambda x, y: x > y,
    lambda x, y: x.isnan(), lambda x, y: x.maximum(y), lambda x, y: x.T + y.T, lambda x, y: -x,
    lambda x, y: x[:, ::2] * y[:, ::2], lambda x, y: x[0, 0] * y[1, 1],
    lambda x, y: x + y[0], lambda x, y: x[0] * y, lambda x, y: x / y[1, 1], lambda x, y: x[:1] - y,
    lambda x, y: x.reshape(2, 1, 4) * y.reshape(1, 8, 1), lambda x, y: x.T * y[:, 0],
    lambda x, y: x.maximum(y[0]), lambda x, y: x.reshape(8, 1) > y.reshape(1, 8),
    lambda x, y: x[:0] * y[0], lambda x, y: x[1, 3] * 2.5, lambda x, y: x[0, 2].tanh(),
    lambda x, y: x[1, 3].relu(), lambda x, y: F.gelu(x[1, 3]), lambda x, y: 1 / x[0, 0],
    lambda x, y: x[0, 0].sigmoid() + y, lambda x, y: x[1, 0] > 0,
])
@pytest.mark.filterwarnings("error")
def test_both_ways_are_one(function, dtype):
    x = SPECIAL.astype(dtype)
    short, long = both_ways(function, x, x[::-1, ::-1].copy())
    assert len(short) == len(long)
    for a, b in zip(short, long, strict=True):
        assert (a.dtype, a.shape, a.strides) == (b.dtype, b.shape, b.strides)
        np.testing.assert_array_equal(a, b)


def test_a_number_does_not_get_stuck():
    x = mlgpu.ones(3, requires_grad=True)
    results = [(x * n).tolist()[0] for n in (2.0, 3, -0.0, True, 2.5)]
    assert results == [2, 3, 0, 1, 2.5]
    assert (x * -0.0).signbit().all()


def test_the_default_dtype_is_asked_each_time():
    x = mlgpu.ones(3, dtype=mlgpu.float32)
    before = F.gelu(x).dtype, (x * 0.1).dtype
    mlgpu.set_default_dtype(mlgpu.float64)
    try:
        assert (F.gelu(x).dtype, (x * 0.1).dtype) == before
    finally:
        mlgpu.set_default_dtype(mlgpu.float32)


def test_events_of_numpy_stay_as_the_user_set_them():
    with np.errstate(all="raise"):
        x = mlgpu.full((3,), 3e38)
        assert (x + x).isinf().all()
        assert (x @ x).isinf()
        with pytest.raises(FloatingPointError):
            np.float32(3e38) * np.float32(10)
