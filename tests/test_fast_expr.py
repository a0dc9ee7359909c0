"""Elementwise programs as compiled loops, against NumPy's way through the same program."""

import numpy as np
import pytest

pytest.importorskip("numba")

import mlgpu
import mlgpu.nn.functional as F
from mlgpu import dtypes
from mlgpu.cpu import fast
from mlgpu.cpu.evaluate import evaluate
from mlgpu.cpu.recurrence import FAMILIES, Derivative
from mlgpu.expr.graph import arg, call
from mlgpu.expr.lower import NUMBER, TENSOR, Operand, lower
from mlgpu.expr.numba import WITHOUT, compiled_primitives, problem
from mlgpu.expr.primitives import TABLE

pytestmark = pytest.mark.skipif(fast.problem() is not None, reason=str(fast.problem()))

ARITY = {**dict.fromkeys(("where", "hardtanh"), 3), **dict.fromkeys(
    ("add sub mul div pow copysign maximum minimum clamp_min clamp_max fmax fmin eq ne lt le gt ge "
     "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor left_shift "
     "right_shift straight").split(), 2)}
LEGENDRE = Derivative(FAMILIES["legendre_polynomial_p"], 0)
FLOATS = (dtypes.float32, dtypes.float64)
WHOLE = (dtypes.bool_, dtypes.uint8, dtypes.int8, dtypes.int16, dtypes.int32, dtypes.int64)
TOLERANCE = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 4e-15}


def program_of(outputs, kinds):
    return lower("test", tuple(outputs), [Operand(d, TENSOR) for d in kinds])


def values(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    if dtype is dtypes.bool_:
        return rng.random(shape) < 0.5
    if dtype.kind == "int":
        info = np.iinfo(dtype.numpy)
        few = rng.integers(max(info.min, -9), 70, shape, dtype.numpy, endpoint=True)
        many = rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)
        return np.where(rng.random(shape) < 0.7, few, many)
    x = (rng.standard_normal(shape) * 3).astype(np.float64)
    edges = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, -0.5, 2.5, 1e4, 88.8, -104.0]
    x = np.where(rng.random(shape) < 0.1, rng.choice(edges, shape), x)
    with np.errstate(all="ignore"):
        return x.astype(dtype.numpy)


def both(monkeypatch, program, arguments, outs):
    """The results of NumPy's steps and of the compiled loop."""
    assert problem(program) is None
    found = []
    for enough in (1 << 62, 0):
        monkeypatch.setattr(fast, "ENOUGH", enough)
        results = [np.empty_like(out) for out in outs]
        with np.errstate(all="ignore"):
            evaluate(program, arguments, results)
        found.append(results)
    return found


def same(names, numpy, loop, near_zero=0.0):
    for name, a, b in zip(names, numpy, loop, strict=True):
        assert a.dtype == b.dtype
        if a.dtype in TOLERANCE:
            np.testing.assert_allclose(b, a, rtol=TOLERANCE[a.dtype],
                                       atol=near_zero or (1e-44 if a.itemsize == 4 else 1e-322),
                                       err_msg=name)
        else:
            np.testing.assert_array_equal(b, a, err_msg=name)


def compiled_for(dtype):
    kind = {"bool": "bool", "int": "integers", "float": "floats"}[dtype.kind]
    found = compiled_primitives()
    return [name for name in TABLE if name not in WITHOUT and name != "cast" and (
        kind in found[name].split(", ") or (found[name] == "float32" and dtype is dtypes.float32))]


def chunks(names, size):
    return [names[i:i + size] for i in range(0, len(names), size)]


@pytest.mark.parametrize("dtype", FLOATS + WHOLE, ids=str)
def test_every_primitive_that_has_a_loop_is_numpy(monkeypatch, dtype):
    arguments = [values(dtype, (37, 43), seed) for seed in range(3)]
    for names in chunks(compiled_for(dtype), 12):
        nodes = [call(name, *(arg(i) for i in range(ARITY.get(name, 1)))) for name in names]
        # So that every program reads all three.
        nodes.append(call("maximum", call("maximum", arg(0), arg(1)), arg(2)))
        program = program_of(nodes, [dtype] * 3)
        outs = [np.empty((37, 43), d.numpy) for d in program.output_dtypes]
        numpy, loop = both(monkeypatch, program, arguments, outs)
        for name, a, b in zip([*names, "all"], numpy, loop, strict=True):
            # NumPy's takes 1 + erf(x), which loses digits where the result is nearly 0.
            same([name], [a], [b], near_zero={"gelu": 2e-6, "gelu_slope": 4e-7}.get(name, 0.0))


@pytest.fixture(scope="module")
def programs():
    """One of several steps and results, and one of two operands."""
    x, y, z = arg(0), arg(1), arg(2)
    several = (call("where", call("gt", x, y), call("exp", z), call("mul", x, y)),
               call("add", call("add", x, y), z))
    kinds = [dtypes.float32] * 3
    return program_of(several, kinds), program_of((call("add", call("mul", x, x), y),), kinds[:2])


def layouts():
    """Operands of one shape, or that broadcast, that lie in memory in different ways."""
    rng = np.random.default_rng(5)

    def make(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    yield "transposed", (make(6, 50, 7).transpose(0, 2, 1), make(6, 7, 50), make(7, 6, 50).swapaxes(
        0, 1))
    yield "rows and columns", (make(300, 1), make(1, 41), make(300, 41))
    yield "one for all", (make(1, 1), make(300, 41), make(41))
    yield "parts", (make(300, 90)[::3, ::2], make(100, 45), make(200, 45)[::2])
    yield "a part of a line", (make(4000)[::2], make(2000), make(1))
    yield "expanded", (np.broadcast_to(make(5, 1, 1), (5, 30, 8)), make(5, 30, 8), make(30, 1))
    yield "backwards", (make(90, 7)[::-1], make(90, 7), make(7))
    yield "empty", (make(0, 4), make(1, 4), make(0, 4))
    yield "one element", (make(1), make(1), make(1))


@pytest.mark.parametrize("name", list(dict(layouts())))
@pytest.mark.parametrize("order", ["C", "F"])
def test_operands_of_any_layout(monkeypatch, programs, name, order):
    arguments = dict(layouts())[name]
    shape = np.broadcast_shapes(*[a.shape for a in arguments])
    outs = [np.empty(shape, np.float32, order), np.empty(shape, np.float32, order)]
    same(["first", "second"], *both(monkeypatch, programs[0], arguments, outs))


@pytest.mark.parametrize("shape", [(5000,), (40, 30)])
def test_the_result_may_be_an_operand(monkeypatch, programs, shape):
    rng = np.random.default_rng(1)
    y = rng.standard_normal(shape).astype(np.float32)
    found = []
    for enough in (1 << 62, 0):
        monkeypatch.setattr(fast, "ENOUGH", enough)
        for step in (1, 2):  # also where it lies apart
            whole = np.arange(y.size * step, dtype=np.float32).reshape(*shape[:-1], -1)
            x = whole[..., ::step]
            evaluate(programs[1], (x, y), [x])
            found.append(whole)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-6)
    np.testing.assert_allclose(found[3], found[1], rtol=1e-6)


@pytest.mark.parametrize("half", [dtypes.float16, dtypes.bfloat16], ids=str)
def test_half_types_are_widened_and_rounded_as_numpy_does(monkeypatch, half):
    every = np.arange(1 << 16, dtype=np.uint16).view(half.numpy)
    x, y = arg(0), arg(1)
    program = program_of((call("mul", x, 1.0009765625), call("add", x, y)), [half, dtypes.float32])
    rng = np.random.default_rng(2)
    y = (rng.standard_normal(1 << 16) * 10.0 ** rng.integers(-9, 6, 1 << 16)).astype(np.float32)
    y[::77] = np.nan
    outs = [np.empty(1 << 16, half.numpy), np.empty(1 << 16, np.float32)]
    numpy, loop = both(monkeypatch, program, (every, y), outs)
    same(["product", "sum"], [a.astype(np.float32) for a in numpy],
         [a.astype(np.float32) for a in loop])
    rounded = lower("test", (call("add", arg(0), 0.0),), [Operand(dtypes.float32, TENSOR)], [half])
    numpy, loop = both(monkeypatch, rounded, (y,), outs[:1])
    np.testing.assert_array_equal(loop[0].astype(np.float32), numpy[0].astype(np.float32))


@pytest.mark.parametrize("target", [*WHOLE, *FLOATS], ids=str)
def test_casts(monkeypatch, target):
    sources = [d for d in (*WHOLE, *FLOATS) if not (d.kind == "float" and target.kind == "int")
               and d is not target]
    program = lower("test", tuple(call("add", arg(i), arg(i)) for i in range(len(sources))),
                    [Operand(d, TENSOR) for d in sources], [target] * len(sources))
    arguments = [values(d, (999,), 3) for d in sources]
    outs = [np.empty(999, target.numpy) for _ in sources]
    same(map(str, sources), *both(monkeypatch, program, arguments, outs))


def test_numbers_are_arguments_of_the_loop(monkeypatch):
    x, n = arg(0), arg(1)
    for kind, number, dtype in ((dtypes.float32, 0.3, dtypes.float32),
                                (dtypes.int64, 3, dtypes.int16)):
        operands = [Operand(dtype, TENSOR), Operand(kind, NUMBER)]
        program = lower("test", (call("add", call("mul", x, n), n),), operands)
        arguments = (values(dtype, (777,), 0), number)
        outs = [np.empty(777, dtype.numpy)]
        # A product and a sum may be one operation, with one rounding.
        same(["result"], *both(monkeypatch, program, arguments, outs), near_zero=1e-7)


@pytest.mark.parametrize("name", sorted({**WITHOUT, "pow": ""}))
def test_what_has_no_loop_says_why_and_runs_on_numpy(monkeypatch, name):
    arity = 2 if name in ("pow atan2 hypot logaddexp nextafter floor_divide trunc_divide remainder "
                          "fmod gcd lcm hurwitz recurrence").split() else 1
    attr = {"polygamma": 1, "recurrence": LEGENDRE}.get(name)
    dtype = dtypes.int64 if name in ("gcd", "lcm") else dtypes.float64
    node = call("abs", call(name, *[arg(i) for i in range(arity)], attr=attr))
    program = program_of((node,), [dtype] * arity)
    if not any(step.primitive == name for step in program.steps):
        return  # conj and real of real numbers are nothing
    assert problem(program).startswith(f"{name} of {dtype.name}: ")
    monkeypatch.setattr(fast, "ENOUGH", 0)
    x = (np.linspace(0.1, 0.9, 50) + (name in ("acosh", "hurwitz"))).astype(dtype.numpy)
    out = np.empty(50, program.output_dtypes[0].numpy)
    evaluate(program, (x,) * arity, [out])
    assert np.isfinite(out).all()


def test_every_primitive_is_accounted_for():
    assert compiled_primitives().keys() == TABLE.keys()
    assert all(compiled_primitives().values())


ACTIVATIONS = (F.gelu, lambda x: F.gelu(x, approximate="tanh"), F.silu, F.mish, F.softplus, F.elu)


@pytest.mark.parametrize("which", range(len(ACTIVATIONS)))
def test_activations_and_their_gradients(monkeypatch, which):
    x = values(dtypes.float64, (60, 50), 4)
    x = np.where(np.isfinite(x), x, 1.0)
    found = []
    for enough, dtype in ((1 << 62, mlgpu.float64), (0, mlgpu.float32)):
        monkeypatch.setattr(fast, "ENOUGH", enough)
        t = mlgpu.tensor(x, dtype=dtype).requires_grad_()
        y = ACTIVATIONS[which](t)
        y.backward(mlgpu.ones_like(y))
        found.append((y.detach().numpy(), t.grad.numpy()))
    for wide, narrow in zip(*found, strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=2e-6, atol=1e-6)


def test_errors_come_through(monkeypatch):
    monkeypatch.setattr(fast, "ENOUGH", 0)
    with pytest.raises(RuntimeError, match="division by zero"):
        mlgpu.ones(9, dtype=mlgpu.int32) // mlgpu.zeros(9, dtype=mlgpu.int32)


def test_a_folder_that_cannot_be_written_costs_a_compilation_only(monkeypatch, tmp_path):
    from mlgpu.cpu.fast import expr

    (tmp_path / "file").touch()
    monkeypatch.setattr(fast, "ENOUGH", 0)
    for number, folder in ((1.0, tmp_path / "file"), (2.0, tmp_path / "made")):
        monkeypatch.setenv("MLGPU_CACHE_DIR", str(folder))
        program = program_of((call("add", call("mul", arg(0), number + 0.5), number),),
                             [dtypes.float32])
        out = np.empty(100, np.float32)
        evaluate(program, (np.ones(100, np.float32),), [out])
        assert (out == 2 * number + 0.5).all()
    assert list((tmp_path / "made").rglob("*.nbc"))  # machine code, for the next process
    assert expr._compiled.cache_info().currsize


@pytest.mark.parametrize("reason", [None, "MLGPU_FAST=0 turns it off"])
def test_info_says_whether_loops_are_compiled(monkeypatch, reason):
    from mlgpu import info

    monkeypatch.setattr(fast, "problem", lambda: reason)
    found = info.collect()
    line = next(line for line in info.text(found).splitlines() if "compiled loops" in line)
    assert ("active (Numba" in line) if reason is None else line.endswith(f"not active: {reason}")
    assert f"{mlgpu.get_num_threads()} threads for one operation" in info.text(found)
