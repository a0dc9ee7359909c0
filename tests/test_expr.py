"""Elementwise expressions: traced, differentiated, simplified, and evaluated in blocks."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import mlgpu
from mlgpu import dtypes, memory
from mlgpu.cpu import evaluate as engine
from mlgpu.errors import DTypeError, GraphError, MlgpuError, ShapeError
from mlgpu.expr import lower as lowering
from mlgpu.expr.derivative import gradient
from mlgpu.expr.graph import Expr, arg, call, const, topological, trace
from mlgpu.expr.lower import TENSOR, Operand, lower
from mlgpu.expr.primitives import TABLE

SETTINGS = settings(max_examples=200, deadline=None, derandomize=True,
                    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])


# --- tracing --------------------------------------------------------------------------------------


def test_a_trace_is_a_graph_of_primitives():
    (result,) = trace(lambda x, y: x * y + 1, 2)
    assert repr(result) == "add(mul(x0, x1), 1)"
    assert [node.op for node in topological((result,))] == ["arg", "arg", "mul", "const", "add"]


@pytest.mark.parametrize(("function", "words"), [
    (lambda x: x if x > 0 else -x, r"mlgpu\.where\(condition, x, y\)"),
    (lambda x: x > 0 and x < 1, "truth value.*where"),
    (lambda x: max(x, 0), "where"),
    (lambda x: x.sum(), "'sum' is not an elementwise operation"),
    (lambda x: mlgpu.sum(x), "is not an elementwise operation"),
    (lambda x: x.shape, "'shape' is not an elementwise operation"),
    (lambda x: x.add_(1), "'add_' is not an elementwise operation"),
    (lambda x: x[0], "cannot be indexed"),
    (lambda x: list(x), "cannot be iterated"),
    (lambda x: len(x), "no length"),
    (lambda x: float(x), "Python number"),
    (lambda x: int(x), "Python number"),
    (lambda x: [1, 2][x], "Python number"),
    (lambda x: x + mlgpu.ones(3), "pass it as an argument"),
    (lambda x: mlgpu.ones(3) * x, "pass it as an argument"),
    (lambda x: x + "a", "a str cannot be part"),
    (lambda x: None, "a NoneType cannot be part"),
    (lambda x: [x, x], "a list cannot be part"),
    (lambda x: (), "empty tuple"),
])
def test_what_no_expression_can_hold(function, words):
    with pytest.raises(GraphError, match=words):
        mlgpu.fuse(function)(mlgpu.ones(3))


@pytest.mark.parametrize("function", [
    lambda *xs: xs[0], lambda x, **options: x, lambda x, *, scale=2: x * scale,
])
def test_fused_functions_take_positional_arguments(function):
    with pytest.raises(TypeError, match=r"fuse: .* positional arguments only"):
        mlgpu.fuse(function)


def test_wrong_arguments_of_a_fused_function():
    @mlgpu.fuse
    def scaled(x, y, scale=2.0):
        return x * y * scale

    x = mlgpu.ones(3)
    assert scaled(x, y=x).tolist() == [2, 2, 2]
    assert scaled(x, 2, scale=x).tolist() == [2, 2, 2]
    with pytest.raises(ShapeError, match=r"scaled: shapes \(3,\), \(2,\) do not broadcast"):
        scaled(x, mlgpu.ones(2))
    with pytest.raises(TypeError, match="scaled: argument 1 must be a Tensor or a number, got str"):
        scaled(x, "2")
    with pytest.raises(TypeError, match="scaled: expected at least one Tensor"):
        scaled(1, 2)
    with pytest.raises(TypeError, match="missing"):
        scaled(x)
    with pytest.raises(DTypeError, match="not defined for bool"):
        mlgpu.fuse(lambda a: -a * 2)(mlgpu.ones(3, dtype=mlgpu.bool))


def test_fused_functions_nest_and_have_methods():
    square = mlgpu.fuse(lambda x: x * x)

    class Layer:
        @mlgpu.fuse
        def forward(self, x):
            return square(x) + self

    assert mlgpu.fuse(lambda x: square(x) + square(x + 1))(mlgpu.tensor([3.0])).tolist() == [25]
    assert Layer.forward(mlgpu.ones(1), 2.0).tolist() == [5]


def test_several_results():
    both = mlgpu.fuse(lambda x, y: (x + y, x * y, x))
    x = mlgpu.tensor([1.0, 2.0], requires_grad=True)
    y = mlgpu.tensor([3.0, 5.0], requires_grad=True)
    total, product, same = both(x, y)
    assert (total.tolist(), product.tolist(), same.tolist()) == ([4, 7], [3, 10], [1, 2])
    assert same.data_ptr() != x.data_ptr()
    (total + 2 * product + 3 * same).sum().backward()
    assert x.grad.tolist() == [1 + 6 + 3, 1 + 10 + 3]
    assert y.grad.tolist() == [1 + 2, 1 + 4]


@pytest.mark.parametrize("width", [4, 1, 0])
def test_results_of_different_shapes_have_their_own_gradients(width):
    """The gradient of a small result must not be repeated along dimensions it has not."""
    both = mlgpu.fuse(lambda x, y: (x * x, (x + y) * 3))
    x = mlgpu.tensor([[1.0], [2.0], [3.0]], requires_grad=True)
    y = mlgpu.ones(1, width, requires_grad=True)
    small, large = both(x, y)
    assert (tuple(small.shape), tuple(large.shape)) == ((3, 1), (3, width))
    assert small.tolist() == [[1], [4], [9]]
    small.sum().backward()
    assert x.grad.tolist() == [[2], [4], [6]]
    (x.grad, (small, large)) = None, both(x, y)
    (small.sum() + large.sum()).backward()
    assert x.grad.tolist() == [[2 + 3 * width], [4 + 3 * width], [6 + 3 * width]]
    assert y.grad.tolist() == [[9] * width]


def test_an_argument_of_no_use_may_have_fewer_dimensions():
    first = mlgpu.fuse(lambda x, y: (x + 1) * 2)
    x, y = mlgpu.ones(2, 3, requires_grad=True), mlgpu.ones(3, requires_grad=True)
    first(x, y).sum().backward()
    assert x.grad.tolist() == [[2] * 3] * 2
    assert y.grad.tolist() == [0] * 3


# --- random expressions ---------------------------------------------------------------------------

UNARY = {
    "neg": np.negative, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log,
    "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x), "reciprocal": lambda x: 1 / x, "square": np.square,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "abs": np.abs, "relu": lambda x: np.maximum(x, 0), "floor": np.floor, "ceil": np.ceil,
    "round": np.rint, "trunc": np.trunc,
    "erf": np.vectorize(math.erf, otypes=[float]), "erfc": np.vectorize(math.erfc, otypes=[float]),
    "logsigmoid": lambda x: -np.logaddexp(0, -x),
}
BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "atan2": np.arctan2,
    "maximum": np.maximum, "minimum": np.minimum, "fmax": np.fmax, "fmin": np.fmin,
    "clamp_min": np.maximum, "clamp_max": np.minimum, "hypot": np.hypot, "pow": np.power,
    "logaddexp": np.logaddexp, "remainder": np.remainder, "fmod": np.fmod,
    "copysign": np.copysign,
}
COMPARISONS = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
               "eq": np.equal, "ne": np.not_equal}
EVERY_UNARY, EVERY_BINARY = tuple(sorted(UNARY)), tuple(sorted(BINARY))
ARGUMENTS = 3
CONSTANTS = (0.0, 1.0, -1.0, 2.0, 0.5, -0.0, 3.0, -2.5)


@pytest.fixture(autouse=True, scope="module")
def double():
    """Constants that stand alone have the default dtype."""
    mlgpu.set_default_dtype(mlgpu.float64)
    yield
    mlgpu.set_default_dtype(mlgpu.float32)


def nodes(children, unary, binary):
    comparison = st.builds(call, st.sampled_from(sorted(COMPARISONS)), children, children)
    return st.one_of(
        st.builds(call, st.sampled_from(unary), children),
        st.builds(call, st.sampled_from(binary), children, children),
        st.builds(lambda c, x, y: call("where", c, x, y), comparison, children, children),
    )


def expressions(unary=EVERY_UNARY, binary=EVERY_BINARY, constants=CONSTANTS):
    leaves = st.one_of(st.builds(arg, st.integers(0, ARGUMENTS - 1)),
                       st.builds(const, st.sampled_from(constants)))
    tree = st.recursive(leaves, lambda children: nodes(children, unary, binary), max_leaves=8)
    return tree.filter(lambda e: e.op not in ("arg", "const")
                       and any(n.op == "arg" for n in topological((e,))))


def plain(expression, arrays):
    """The expression on whole arrays, by NumPy alone."""
    values = {}
    for node in topological((expression,)):
        operands = [values[id(a)] for a in node.args]
        if node.op == "arg":
            values[id(node)] = arrays[node.attr]
        elif node.op == "const":
            values[id(node)] = np.float64(node.attr)
        elif node.op == "where":
            values[id(node)] = np.where(*operands)
        else:
            function = {**UNARY, **BINARY, **COMPARISONS}[node.op]
            values[id(node)] = function(*operands)
    return values[id(expression)]


def compute(outputs, arrays):
    """The same by the library's evaluator."""
    operands = [Operand(dtypes.from_numpy(a.dtype), TENSOR) for a in arrays]
    program = lower("test", outputs, operands)
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    outs = [np.empty(shape, d.numpy) for d in program.output_dtypes]
    engine.evaluate(program, arrays, outs)
    return outs


def sample(seed, size=50):
    return [np.random.default_rng((seed, i)).normal(0, 1.5, size) for i in range(ARGUMENTS)]


def test_every_differentiable_primitive_of_floats_is_in_the_random_set():
    held = {*UNARY, *BINARY, *COMPARISONS, "where"}
    exempt = {"cast", "conj", "real", "imag", "angle", "sgn", "sign", "hardtanh", "sinc", "erfinv",
              "lgamma", "digamma", "polygamma", "gelu", "gelu_slope",
              "nextafter", "mantissa", "exponent", "straight"}  # the op table has their rows
    assert {name for name, row in TABLE.items() if row.partials or row.adjoint} <= held | exempt


@SETTINGS
@given(expression=expressions(), seed=st.integers(0, 1000))
def test_blocks_compute_what_numpy_computes(expression, seed):
    arrays = sample(seed)
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BLOCK", 16)
        (found,) = compute((expression,), arrays)
        expected = np.broadcast_to(plain(expression, arrays), found.shape)
        # An ulp of difference between two ways of computing may be blown up by what follows.
        nudged = plain(expression, [a * (1 + 4e-16) for a in arrays])
        sensitive = np.abs(nudged - expected)
        close = np.abs(found - expected) <= 1e-12 * np.abs(expected) + 1e-13 + 100 * sensitive
    assert np.all(close | (found == expected) | (np.isnan(found) & np.isnan(expected))
                  | ~np.isfinite(sensitive))


@SETTINGS
@given(pair=st.tuples(expressions(), expressions()), seed=st.integers(0, 1000),
       over=st.integers(0, ARGUMENTS))
def test_several_results_and_results_over_arguments_are_the_same_bits(pair, seed, over):
    """Whatever memory steps share: the results', the arguments' and the buffers'."""
    arrays = sample(seed)
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "BLOCK", 16)
        expected = [compute((expression,), arrays)[0] for expression in pair]
        operands = [Operand(dtypes.float64, TENSOR)] * ARGUMENTS
        program = lower("test", pair, operands)
        given = [a.copy() for a in arrays]
        outs = [np.empty(a.shape, d.numpy) for a, d in zip(
            given, program.output_dtypes, strict=False)]
        if over < ARGUMENTS and outs[-1].dtype == given[over].dtype:
            outs[-1] = given[over]
        if all(e.shape == o.shape for e, o in zip(expected, outs, strict=True)):
            engine.evaluate(program, given, outs)
            for found, wanted in zip(outs, expected, strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_a_function_that_writes_early_gets_memory_of_its_own():
    a, b, c = sample(0)[:3]
    held = call("hardtanh", arg(0), arg(1), call("exp", arg(2)))
    (found,) = compute((call("mul", call("sin", arg(0)), held),), [a, b, c, a])
    np.testing.assert_array_equal(found, np.sin(a) * np.minimum(np.maximum(a, b), np.exp(c)))


SMOOTH = tuple(sorted(set(UNARY) - {"floor", "ceil", "round", "trunc"}))


@SETTINGS
@given(expression=expressions(unary=SMOOTH), seed=st.integers(0, 1000),
       wanted=st.integers(0, ARGUMENTS - 1))
def test_symbolic_gradients_agree_with_finite_differences(expression, seed, wanted):
    assume(any(n.op == "arg" and n.attr == wanted for n in topological((expression,))))
    arrays = sample(seed)
    derivative = gradient((expression,), ARGUMENTS)[wanted]
    with np.errstate(all="ignore"):
        (value,) = compute((expression,), arrays)
        if derivative is None:
            found = np.zeros_like(value)
        else:
            (found,) = compute((derivative,), [*arrays, value, np.ones_like(value)])

        def difference(h):
            shifted = [[a + sign * h * (i == wanted) for i, a in enumerate(arrays)]
                       for sign in (1, -1)]
            high, low = (np.broadcast_to(plain(expression, s), value.shape) for s in shifted)
            return (high - low) / (2 * h), np.maximum(np.abs(high), np.abs(low)) * 1e-15 / h

        (coarse, _), (fine, noise) = difference(2e-5), difference(1e-5)
        doubt = np.abs(coarse - fine) + noise
        # Where the two differences agree, the function is smooth and well-conditioned.
        clear = np.isfinite(doubt) & (doubt < 1e-5 * (1 + np.abs(fine)))
        error = np.abs(found - fine)
    assert np.all(~clear | (error <= 1e-4 * (1 + np.abs(fine))))


# --- simplification -------------------------------------------------------------------------------

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 5e-324, -5e-324, 1.7e308, -3.5])
TRIPLES = [a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL, SPECIAL, indexing="ij")]


def bits(a):
    """Bit patterns, all NaNs alike."""
    return np.where(np.isnan(a), np.full_like(a, np.nan), a).tobytes()


def unsimplified(outputs, arrays):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowering._Builder, "_simplified", lambda self, op, xs: (xs, False))
        return compute(outputs, arrays)


@SETTINGS
@given(expression=expressions(unary=("neg", "abs", "sqrt", "relu"),
                              binary=("add", "sub", "mul", "div", "maximum", "fmin"),
                              constants=(0, 1, -1, 0.0, -0.0, 1.0, 2)),
       kind=st.sampled_from([np.float32, np.float64]))
def test_simplification_changes_no_bit(expression, kind):
    with np.errstate(all="ignore"):
        arrays = [a.astype(kind) for a in TRIPLES]
        wanted = [e for e in gradient((expression,), ARGUMENTS) if e is not None]
        (value,) = compute((expression,), arrays)
        assert bits(value) == bits(unsimplified((expression,), arrays)[0])
        inputs = [*arrays, value, np.roll(arrays[0], 5)]
        if wanted:
            for mine, theirs in zip(compute(tuple(wanted), inputs),
                                    unsimplified(tuple(wanted), inputs), strict=True):
                assert bits(mine) == bits(theirs)


@pytest.mark.parametrize("expression", [
    call("mul", arg(0), 1), call("mul", 1, arg(0)), call("div", arg(0), 1), call("sub", arg(0), 0),
    call("conj", call("conj", arg(0))), call("neg", call("neg", arg(0))), call("mul", arg(0), 1j),
], ids=repr)
def test_simplification_is_exact_for_complex_numbers(expression):
    parts = np.meshgrid(SPECIAL, SPECIAL, indexing="ij")
    z = np.empty(parts[0].size, np.complex128)
    z.real, z.imag = parts[0].ravel(), parts[1].ravel()
    with np.errstate(all="ignore"):
        found, expected = compute((expression,), [z])[0], unsimplified((expression,), [z])[0]
    assert bits(found.view(np.float64)) == bits(expected.view(np.float64))


def test_what_simplification_saves():
    def steps(function):
        program = lower("test", trace(function, 2), [Operand(dtypes.float32, TENSOR)] * 2)
        return [s.primitive for s in program.steps]

    assert steps(lambda x, y: (x * 1) / 1 - 0) == []
    assert steps(lambda x, y: x + 0) == ["add"]  # -0.0 + 0 is 0.0
    assert steps(lambda x, y: mlgpu.neg(-x)) == []
    assert steps(lambda x, y: (x * y) + (x * y)) == ["mul", "add"]
    assert steps(lambda x, y: x * (2 * 3 + 1)) == ["mul"]
    assert steps(lambda x, y: mlgpu.exp(x) * 0) == ["exp", "mul"]  # inf * 0 is NaN


# --- kinks and selection --------------------------------------------------------------------------


def slope(function, *values):
    """Gradients of a function of scalars, and of the first with respect to the first again."""
    xs = [mlgpu.tensor(v, dtype=mlgpu.float64, requires_grad=True) for v in values]
    found = mlgpu.autograd.grad(function(*xs), xs, create_graph=True, materialize_grads=True)
    second = (mlgpu.autograd.grad(found[0], xs[0], materialize_grads=True)[0].item()
              if found[0].requires_grad else 0.0)
    return [g.item() for g in found], second


@pytest.mark.parametrize(("function", "values", "expected"), [
    (lambda x: x.abs(), [0.0], [0]),
    (lambda x: x.abs(), [-0.0], [0]),
    (lambda x: x.relu(), [0.0], [0]),
    (lambda x: x.clamp(-1, 1), [1.0], [1]),
    (lambda x: x.clamp(-1, 1), [-1.0], [1]),
    (lambda x: x.clamp(-1, 1), [1.5], [0]),
    (lambda x: x.clamp(min=0), [0.0], [1]),
    (lambda x: x.clamp(max=0), [0.0], [1]),
    (mlgpu.maximum, [2.0, 2.0], [0.5, 0.5]),
    (mlgpu.minimum, [2.0, 2.0], [0.5, 0.5]),
    (mlgpu.maximum, [2.0, 1.0], [1, 0]),
    (mlgpu.minimum, [2.0, 1.0], [0, 1]),
    (mlgpu.fmax, [2.0, math.nan], [1, 0]),
    (mlgpu.fmin, [math.nan, 2.0], [0, 1]),
    (lambda x: x.floor() + x.ceil() + x.round() + x.trunc() + x.sign(), [0.3], [0]),
    (lambda x, y: x % y, [7.0, 2.0], [1, -3]),
    (lambda x: x.pow(0), [0.0], [0]),
    (lambda x: x.pow(1), [0.0], [1]),
    (lambda x, y: x ** y, [0.0, 0.0], [0, 0]),
    (lambda x, y: x ** y, [0.0, 2.0], [0, 0]),
    (lambda x: 0 ** x, [2.0], [0]),
    (lambda x: mlgpu.nn.functional.hardtanh(x), [1.0], [0]),
    (lambda x: mlgpu.nn.functional.relu6(x), [6.0], [0]),
])
def test_derivatives_at_kinks(function, values, expected):
    assert slope(function, *values)[0] == expected
    torch = pytest.importorskip("torch")
    if hasattr(function, "elementwise"):
        function = getattr(torch, function.name)
    elif "hardtanh" in function.__code__.co_names:
        function = torch.nn.functional.hardtanh
    elif "relu6" in function.__code__.co_names:
        function = torch.nn.functional.relu6
    xs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
    function(*xs).backward()
    assert [0 if x.grad is None else x.grad.item() for x in xs] == expected


@pytest.mark.parametrize(("function", "value", "first", "second"), [
    (lambda x: mlgpu.where(x > 0, x.sqrt(), 2 * x), 0.0, 2, 0),
    (lambda x: mlgpu.where(x > 0, x.log(), x * x), 0.0, 0, 2),
    (lambda x: mlgpu.where(x > 0, 1 / x, 3 * x), 0.0, 3, 0),
    (lambda x: mlgpu.where(x < 100, x * x, (x * x).exp()), 99.0, 198, 2),
    (lambda x: mlgpu.where(x > 0, (x / x).sqrt().log(), x), 0.0, 1, 0),
    (lambda x: mlgpu.where(x > 0, mlgpu.where(x > 1, (x - 1).sqrt(), x), -x), 1.0, 1, 0),
    (lambda x: mlgpu.where(x > 0, x.pow(0.5), x ** 3), 0.0, 0, 0),
])
def test_the_branch_not_taken_leaks_nothing(function, value, first, second):
    x = mlgpu.tensor([value, 4.0], requires_grad=True)
    (dx,) = mlgpu.autograd.grad(mlgpu.fuse(function)(x).sum(), x, create_graph=True)
    assert dx[0].item() == first
    (ddx,) = mlgpu.autograd.grad(dx.sum(), x, create_graph=True)
    assert ddx[0].item() == second
    assert np.isfinite(mlgpu.autograd.grad(ddx.sum(), x)[0].numpy()).all()


# --- half precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [mlgpu.float16, mlgpu.bfloat16], ids=str)
def test_half_inputs_are_computed_in_float32_and_rounded_once(kind):
    def formula(x, y):
        return (x * y + 1) / (x * x + 3) - y * 0.1

    x, y = (mlgpu.tensor(a[:100], dtype=kind, requires_grad=True) for a in sample(3, 200)[:2])
    wide = [t.detach().float().requires_grad_() for t in (x, y)]
    fused = mlgpu.fuse(formula)
    result = fused(x, y)
    expected = fused(*wide)
    assert result.dtype is kind
    assert result.tolist() == expected.to(kind).tolist()
    assert result.tolist() != formula(x, y).tolist()  # which rounds at every step
    result.backward(mlgpu.ones_like(result))
    expected.backward(mlgpu.ones_like(expected))
    assert [t.grad.tolist() for t in (x, y)] == [t.grad.to(kind).tolist() for t in wide]


# --- the blocked evaluator ------------------------------------------------------------------------

LAYOUTS = {
    "dense": lambda a: a, "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "sliced": lambda a: np.repeat(a, 2, -1)[..., ::2], "reversed": lambda a: a[::-1].copy()[::-1],
    "fortran": np.asfortranarray,
    "padded": lambda a: np.pad(a, [(1, 2)] * a.ndim)[(slice(1, -2),) * a.ndim],
}


@pytest.mark.parametrize("block", [1, 7, 64, engine.BLOCK])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (1, 1), (13,), (3, 0, 2), (5, 1, 9), (33, 17),
                                   (2, 3, 5, 7), (65, 2)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_blocks(monkeypatch, block, shape, layout):
    monkeypatch.setattr(engine, "BLOCK", block)
    rng = np.random.default_rng(len(shape))
    x = rng.standard_normal(shape)
    x = LAYOUTS[layout](x) if x.ndim else x
    y = rng.standard_normal(shape[-1:])
    z = np.broadcast_to(rng.standard_normal(shape[:1] + (1,) * (len(shape) - 1)), shape)
    expressions = trace(lambda a, b, c: (a * b + c, (a - c) * (a + b), a * b + c), 3)
    for found, expected in zip(compute(expressions, [x, y, z]),
                               [x * y + z, (x - z) * (x + y), x * y + z], strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [1, engine.BLOCK - 1, engine.BLOCK, engine.BLOCK + 1,
                                  2 * engine.BLOCK + 17])
def test_arrays_longer_than_a_block(size):
    x = mlgpu.arange(size, dtype=mlgpu.float64)
    fused = mlgpu.fuse(lambda a, b: (a * 2 + b) * a - b)
    assert fused(x, x).tolist() == (x * 2 + x).mul(x).sub(x).tolist()
    y = x.detach().requires_grad_()
    fused(y, 1.0).sum().backward()
    np.testing.assert_array_equal(y.grad.numpy(), 4 * x.numpy() + 1)


def test_results_keep_the_memory_order_of_their_inputs():
    x = mlgpu.ones(4, 5, 6).permute(2, 0, 1)
    assert mlgpu.fuse(lambda a: a * 2 + 1)(x).stride() == x.stride()
    assert (x + 1).stride() == x.stride()


def test_small_operations_need_small_workspaces():
    fused = mlgpu.fuse(lambda a, b: ((a + b) * (a - b)).exp() * ((a * b).sin() + (a / b).cos()))
    x, y = mlgpu.ones(10, dtype=mlgpu.float32), mlgpu.ones(10, dtype=mlgpu.float32)
    fused(x, y)
    memory.reset_peak()
    before = memory.stats().allocated
    fused(x, y)
    assert memory.stats().peak - before <= 40 * 6


def test_workspaces_count_against_budgets():
    fused = mlgpu.fuse(lambda a, b: ((a + b) * (a - b)).exp() * ((a * b).sin() + (a / b).cos()))
    x = mlgpu.ones(1000, dtype=mlgpu.float32)
    fused(x, x)
    with memory.budget(4000), pytest.raises(mlgpu.OutOfMemoryError):
        fused(x, x)
    with memory.budget(30_000):
        fused(x, x)


def test_threads_share_programs_and_nothing_else():
    fused = mlgpu.fuse(lambda a, b: ((a + b) * (a - b)).exp() / (1 + (a * b).sin() ** 2))
    inputs = [mlgpu.tensor(np.random.default_rng(i).random(70_000)) for i in range(8)]
    expected = [fused(x, 0.5).tolist() for x in inputs]
    found = [None] * 8

    def work(i):
        for _ in range(3):
            found[i] = fused(inputs[i], 0.5).tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


# --- aliases --------------------------------------------------------------------------------------


def square_matrix(n=200):
    return mlgpu.tensor(np.random.default_rng(0).standard_normal((n, n)))


@pytest.mark.parametrize("change", [
    lambda x: x.add_(x), lambda x: x.mul_(x.T), lambda x: x.T.mul_(x), lambda x: x.sub_(x[0]),
    lambda x: x.div_(x[:, :1]), lambda x: x[1:].add_(x[:-1]), lambda x: x[:-1].add_(x[1:]),
    lambda x: x.mul_(x[0, 0]), lambda x: x.addcmul_(x.T, x), lambda x: x.addcmul_(x, x[3]),
    lambda x: x[:, ::2].mul_(x[:, 1::2]), lambda x: x.lerp_(x.T, 0.25),
    lambda x: x.copy_(x.T), lambda x: x[:, 1:].copy_(x[:, :-1]), lambda x: x.clamp_(min=x[0]),
    lambda x: x.reshape(-1)[1:].mul_(x.reshape(-1)[:-1]), lambda x: x.atan2_(x.T),
    lambda x: x.sigmoid_(), lambda x: x.pow_(2), lambda x: x.remainder_(x.T),
    lambda x: x.flip(0).mul_(x), lambda x: x.view(-1).add_(x.T.reshape(-1)),
])
def test_in_place_on_overlapping_memory(change):
    x = square_matrix()
    apart = x.clone()
    change(x)
    expected = out_of_place(change, apart)
    np.testing.assert_array_equal(x.numpy(), expected)


def out_of_place(change, x):
    """The same change with every operand copied before it is used."""
    methods = [name for name in dir(mlgpu.Tensor) if name.endswith("_") and name[0] != "_"]
    with pytest.MonkeyPatch.context() as patch:
        for name in methods:
            method = getattr(mlgpu.Tensor, name)

            def copied(self, *args, method=method, **options):
                own = [a.clone() if isinstance(a, mlgpu.Tensor) else a for a in args]
                own_options = {k: v.clone() if isinstance(v, mlgpu.Tensor) else v
                               for k, v in options.items()}
                return method(self, *own, **own_options)

            patch.setattr(mlgpu.Tensor, name, copied)
        change(x)
    return x.numpy()


# --- integers -------------------------------------------------------------------------------------

PAIRS = [(a, b) for a in (-7, -1, 0, 1, 7, -128, 127) for b in (-3, -1, 1, 3, 7, 127)]


@pytest.mark.parametrize("kind", [mlgpu.int8, mlgpu.int16, mlgpu.int32, mlgpu.int64], ids=str)
def test_division_of_negative_integers(kind):
    a, b = (mlgpu.tensor(column, dtype=kind) for column in zip(*PAIRS, strict=True))
    bits = kind.itemsize * 8

    def wrapped(values):
        return [(v + 2 ** (bits - 1)) % 2 ** bits - 2 ** (bits - 1) for v in values]

    assert (a // b).tolist() == wrapped([x // y for x, y in PAIRS])
    assert (a % b).tolist() == [x % y for x, y in PAIRS]
    assert a.fmod(b).tolist() == [int(math.fmod(x, y)) for x, y in PAIRS]
    assert mlgpu.div(a, b, rounding_mode="trunc").tolist() == wrapped(
        [math.trunc(x / y) for x, y in PAIRS])
    assert mlgpu.div(a, b, rounding_mode="floor").tolist() == wrapped([x // y for x, y in PAIRS])
    fused = mlgpu.fuse(lambda x, y: (x // y) * y + x % y)
    assert fused(a, b).tolist() == a.tolist()


def test_shifts():
    x = mlgpu.tensor([-8, -1, 1, 5], dtype=mlgpu.int32)
    assert (x << 2).tolist() == [-32, -4, 4, 20]
    assert (x >> 1).tolist() == [-4, -1, 0, 2]
    assert (x >> 40).tolist() == [-1, -1, 0, 0]
    assert (x << 40).tolist() == [0, 0, 0, 0]
    assert (x >> mlgpu.tensor(-1)).tolist() == [-1, -1, 0, 0]


@pytest.mark.parametrize("divide", [
    lambda a, b: a // b, lambda a, b: a % b, lambda a, b: a.fmod(b),
    lambda a, b: mlgpu.div(a, b, rounding_mode="trunc"), lambda a, b: a.remainder_(b),
    lambda a, b: mlgpu.fuse(lambda x, y: x // y + 1)(a, b),
])
def test_integer_division_by_zero_raises(divide):
    a = mlgpu.tensor([1, 2, 3])
    with pytest.raises(MlgpuError, match=r"(?i)division by zero"):
        divide(a, mlgpu.tensor([1, 0, 1]))
    assert a.tolist() == [1, 2, 3]


def test_float_division_by_zero_is_ieee():
    x = mlgpu.tensor([1.0, -1.0, 0.0])
    assert (x / 0)[:2].tolist() == [math.inf, -math.inf]
    assert np.isnan((x / 0)[2].item())
    assert (x // 0)[:2].tolist() == [math.inf, -math.inf]
    assert np.isnan((x % 0).numpy()).all()


def test_expressions_are_not_hashed_by_value():
    assert len({arg(0), arg(0)}) == 2
    assert isinstance(arg(0) == arg(0), Expr)
