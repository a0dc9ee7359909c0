"""The op table's driver: every row is proven in every way.

forward            every dtype against the reference in double precision
gradient           against central differences, in float64 or complex128
gradient in dtype  every other dtype against the double-precision gradient
second             the derivative of the gradient against differences of the fast gradient,
                   which is thereby shown to equal the differentiable one
strided            inputs with gaps and reversed memory order give the same results
clean              inputs unchanged, no memory kept, no reference cycle

Each test runs all rows of an operation (tests/eachrow.py).
"""

from __future__ import annotations

import gc
import os

import numpy as np
from eachrow import each_row
from table.case import TOLERANCE, Case, as_exact, close, exact_dtype, flat, host, tensors

import mlgpu

STEP = 1e-5
# Elements looked at by themselves in each input (MLGPU_TABLE=all): to find what is wrong, a random
# direction does, which all of them take part in.  Where it has, all are looked at, to tell which.
CHECKED_ELEMENTS = 8 if os.environ.get("MLGPU_TABLE") == "all" else 0


def main_dtype(case: Case) -> list[str]:
    """The one that derivatives are exact in, or the first."""
    return [case.exact() or case.dtypes[0]]


@each_row(lambda case: case.dtypes if case.reference else ())
def test_forward(case: Case, dtype: str, device):
    given = case.arrays(dtype)
    exact = [a if s.dtype else a.astype(exact_dtype(dtype))
             for a, s in zip(given, case.inputs, strict=True)]
    with np.errstate(all="ignore"):
        expected = [np.asarray(y) for y in flat(case.reference(*exact))]
    found = [host(y) for y in flat(case.fn(*tensors(case, dtype, False, device)))]
    assert len(found) == len(expected)
    tolerance = TOLERANCE.get(dtype, TOLERANCE["float32"]) * case.tolerance
    for k, (y, z) in enumerate(zip(found, expected, strict=True)):
        close(y, z, tolerance, f"output {k} in {dtype}")


# --- derivatives ----------------------------------------------------------------------------------


def cotangents(outputs, seed=3):
    """Fixed random gradients for the outputs that have one, as arrays in double precision."""
    rng = np.random.default_rng(seed)
    made = []
    for y in outputs:
        w = rng.standard_normal(tuple(y.shape))
        made.append(w + 1j * rng.standard_normal(w.shape) if y.dtype.is_complex else w)
    return made


def differentiable(result):
    return [y for y in flat(result) if y.requires_grad]


def gradients(case, inputs, weights=None, create_graph=False):
    """The gradients of sum(Re(conj(w) y)) for the inputs that require one."""
    outputs = differentiable(case.fn(*inputs))
    assert outputs, "no output requires grad"
    if weights is None:
        weights = [mlgpu.tensor(w, device=y.device).to(y.dtype)
                   for w, y in zip(cotangents(outputs), outputs, strict=True)]
    wanted = [x for x in inputs if x.requires_grad]
    return mlgpu.autograd.grad(outputs, wanted, weights, create_graph=create_graph,
                               allow_unused=True, materialize_grads=True)


def directional(function, arrays, directions):
    """d/dt function(arrays + t directions) at 0, by central differences."""
    ahead = function([a + STEP * d for a, d in zip(arrays, directions, strict=True)])
    behind = function([a - STEP * d for a, d in zip(arrays, directions, strict=True)])
    return (ahead - behind) / (2 * STEP)


def inner(a, b):
    """Re(conj(a) b), summed: what a gradient `a` says of a change `b`."""
    return float(np.real(np.vdot(a, b)))


@each_row(lambda case: main_dtype(case) if case.exact() else ())
def test_gradient(case: Case, dtype: str, device):
    places = case.differentiated(dtype)
    arrays = case.arrays(dtype)
    inputs = tensors(case, dtype, True, device)
    found = [host(g) for g in gradients(case, inputs)]
    weights = cotangents(differentiable(case.fn(*inputs)))
    shown = [y.requires_grad for y in flat(case.fn(*inputs))]

    def total(changed):
        """sum(Re(conj(w) y)) where the differentiated inputs have the values `changed`."""
        given = list(arrays)
        for i, value in zip(places, changed, strict=True):
            given[i] = value
        with mlgpu.no_grad():
            outputs = flat(case.fn(*[mlgpu.tensor(a, device=device) for a in given]))
        kept = [host(y) for y, needed in zip(outputs, shown, strict=True) if needed]
        return sum(inner(w, y) for w, y in zip(weights, kept, strict=True))

    values = [arrays[i] for i in places]
    for k, gradient in enumerate(found):
        assert gradient.shape == values[k].shape
        rng = np.random.default_rng(k)

        def agrees(direction, k=k):
            expected = directional(total, values, direction)
            np.testing.assert_allclose(
                sum(inner(g, d) for g, d in zip(found, direction, strict=True)), expected,
                rtol=2e-6 * case.tolerance, atol=2e-6 * case.tolerance,
                err_msg=f"gradient of input {places[k]} along {_where(direction[k])}")

        for direction in _units(values, k, rng.permutation(values[k].size)[:CHECKED_ELEMENTS]):
            agrees(direction)
        try:
            agrees(_random_direction(values, rng))
        except AssertionError:
            for direction in _units(values, k, range(values[k].size)):
                agrees(direction)
            raise


def _units(values, k, order):
    """Unit vectors of input k, complex ones in both parts."""
    for place in order:
        for unit in (1, 1j) if np.iscomplexobj(values[k]) else (1,):
            direction = [np.zeros_like(v) for v in values]
            direction[k].reshape(-1)[place] = unit
            yield direction


def _random_direction(values, rng):
    return [rng.standard_normal(v.shape) + (
        1j * rng.standard_normal(v.shape) if np.iscomplexobj(v) else 0) for v in values]


def _where(direction):
    places = np.argwhere(direction)
    return f"element {tuple(map(int, places[0]))}" if len(places) == 1 else "a random direction"


@each_row(lambda case: [d for d in case.dtypes if case.differentiated(d)
                        and d != exact_dtype(d) and exact_dtype(d) in case.dtypes])
def test_gradient_in_dtype(case: Case, dtype: str, device):
    found = gradients(case, tensors(case, dtype, True, device))
    inputs = tensors(case, dtype, True, device)
    doubles = [mlgpu.tensor(as_exact(host(x)), device=device, requires_grad=x.requires_grad)
               for x in inputs]
    outputs = differentiable(case.fn(*inputs))
    weights = [mlgpu.tensor(w, device=device).to(y.dtype).to(  # rounded as in the dtype
        mlgpu.complex128 if y.dtype.is_complex else mlgpu.float64)
        for w, y in zip(cotangents(outputs), outputs, strict=True)]
    expected = gradients(case, doubles, weights)
    places = case.differentiated(dtype)
    for i, g, h in zip(places, found, expected, strict=True):
        assert g.dtype is inputs[i].dtype
        scale = max(1.0, float(np.abs(host(h)).max(initial=0)))
        close(host(g), host(h), 2 * TOLERANCE[dtype] * case.tolerance * scale,
              f"gradient of input {i} in {dtype}")


@each_row(lambda case: main_dtype(case) if case.second and case.exact() else ())
def test_second_derivative(case: Case, dtype: str, device):
    places = case.differentiated(dtype)
    base = tensors(case, dtype, True, device)
    outputs = differentiable(case.fn(*base))
    points = [host(base[i]) for i in places] + cotangents(outputs)
    first = [host(g) for g in gradients(case, base)]
    rng = np.random.default_rng(11)
    probes = _random_direction(first, rng)

    def build(values):
        inputs = list(tensors(case, dtype, False, device))
        for i, value in zip(places, values, strict=False):
            inputs[i] = mlgpu.tensor(value, device=device, requires_grad=True)
        weights = [mlgpu.tensor(w, device=device, requires_grad=True)
                   for w in values[len(places):]]
        return inputs, weights

    def projected(values):
        inputs, weights = build(values)
        weights = [w.detach() for w in weights]
        return sum(inner(p, host(g))
                   for p, g in zip(probes, gradients(case, inputs, weights), strict=True))

    inputs, weights = build(points)
    grads = gradients(case, inputs, weights, create_graph=True)
    for g, h in zip(grads, first, strict=True):
        close(host(g), h, 1e-9 * case.tolerance, "differentiable and fast gradient")
    leaves = [inputs[i] for i in places] + weights
    second = mlgpu.autograd.grad(
        [g for g in grads if g.requires_grad], leaves,
        [mlgpu.tensor(p, device=device) for p, g in zip(probes, grads, strict=True)
         if g.requires_grad], allow_unused=True, materialize_grads=True)
    found = [host(g) for g in second]
    direction = _random_direction(points, rng)
    expected = directional(projected, points, direction)
    np.testing.assert_allclose(
        sum(inner(g, d) for g, d in zip(found, direction, strict=True)), expected,
        rtol=2e-5 * case.tolerance, atol=2e-5 * case.tolerance)


# --- memory ---------------------------------------------------------------------------------------


@each_row(main_dtype)
def test_strided(case: Case, dtype: str, device):
    plain, gapped = (tensors(case, dtype, True, device, strided) for strided in (False, True))
    for y, z in zip(flat(case.fn(*plain)), flat(case.fn(*gapped)), strict=True):
        assert y.dtype is z.dtype
        close(host(z), host(y), 1e-12, "strided inputs")
    if case.exact():
        for g, h in zip(gradients(case, plain), gradients(case, gapped), strict=True):
            close(host(h), host(g), 1e-11 * case.tolerance, "gradient of strided inputs")


@each_row(main_dtype)
def test_clean(case: Case, dtype: str, device):
    inputs = tensors(case, dtype, True, device)
    before = [host(x) for x in inputs]

    def once():
        if case.exact():
            gradients(case, inputs, create_graph=case.second)
        else:
            case.fn(*inputs)

    once()  # fills caches
    gc.disable()  # so that only counting references frees what `once` made
    try:
        start = mlgpu.memory.stats(device)
        once()
        end = mlgpu.memory.stats(device)
    finally:
        gc.enable()
    assert (end.allocated, end.mapped, end.count) == (start.allocated, start.mapped, start.count)
    for x, array in zip(inputs, before, strict=True):
        assert x._version == 0
        np.testing.assert_array_equal(host(x), array)
