"""cupy.random on simulated devices: the shapes, types and distributions of its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy as cp
import numpy as np
import pytest

from mlgpu.sim.cuda.install import installed

simulated = pytest.mark.skipif(installed() is None, reason="the devices are not simulated")
COUNT = 4000


@pytest.mark.parametrize(("draw", "mean", "deviation"), [
    (lambda r: r.rand(COUNT), 0.5, 12**-0.5),
    (lambda r: r.random_sample(COUNT), 0.5, 12**-0.5),
    (lambda r: r.randn(COUNT), 0, 1),
    (lambda r: r.normal(3, 2, COUNT), 3, 2),
    (lambda r: r.uniform(-2, 4, COUNT), 1, 3**0.5),
    (lambda r: r.lognormal(0, 0.5, COUNT), np.exp(0.125), 0.604),
    (lambda r: r.randint(0, 100, COUNT), 49.5, 28.87),
    (lambda r: r.exponential(2, COUNT), 2, 2),
    (lambda r: r.poisson(4, COUNT), 4, 2),
    (lambda r: r.binomial(20, 0.5, COUNT), 10, 5**0.5),
    (lambda r: r.gamma(4, 1, COUNT), 4, 2),
    (lambda r: r.beta(2, 2, COUNT), 0.5, 0.05**0.5)])
def test_state(draw: Callable[[Any], Any], mean: float, deviation: float) -> None:
    cp.random.seed(1)
    first = draw(cp.random).get()
    assert first.shape == (COUNT,)
    assert abs(first.mean() - mean) < 5 * deviation / COUNT**0.5
    assert abs(first.std() / deviation - 1) < 0.1
    again = draw(cp.random).get()
    assert (first != again).any()
    cp.random.seed(1)
    np.testing.assert_array_equal(draw(cp.random).get(), first)


def test_types_and_shapes() -> None:
    state = cp.random.RandomState(3)
    assert state.rand(3, 5, dtype="f").dtype == np.float32
    assert state.standard_normal((3, 3), dtype="f").shape == (3, 3)
    assert state.random_sample().shape == ()
    assert int(state.randint(5)) in range(5)
    assert state.tomaxint((4,)).dtype == np.int64
    numbers = state.rand(COUNT).get()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert set(cp.random.randint(3, 6, 200).get()) == {3, 4, 5}


def test_permutations_and_choices() -> None:
    np.testing.assert_array_equal(np.sort(cp.random.permutation(50).get()), np.arange(50))
    x = cp.arange(50)
    cp.random.shuffle(x)
    assert (x.get() != np.arange(50)).any()
    np.testing.assert_array_equal(np.sort(x.get()), np.arange(50))
    chosen = cp.random.choice(1000, 30, replace=False).get()
    assert len(set(chosen)) == 30
    assert set(cp.random.choice(cp.asarray([2, 7]), 100).get()) == {2, 7}
    weighted = cp.random.choice(3, 1000, p=cp.asarray([0.0, 0.9, 0.1])).get()
    assert set(weighted) == {1, 2}


@pytest.mark.parametrize(("draw", "mean", "deviation"), [
    (lambda g: g.random(COUNT), 0.5, 12**-0.5),
    (lambda g: g.random(COUNT, "f"), 0.5, 12**-0.5),
    (lambda g: g.uniform(-2, 4, COUNT), 1, 3**0.5),
    (lambda g: g.integers(0, 100, COUNT), 49.5, 28.87),
    (lambda g: g.standard_normal(COUNT), 0, 1),
    (lambda g: g.standard_normal(COUNT, "f"), 0, 1),
    (lambda g: g.standard_exponential(COUNT), 1, 1),
    (lambda g: g.exponential(2, COUNT), 2, 2),
    (lambda g: g.poisson(4, COUNT), 4, 2),
    (lambda g: g.poisson(cp.full(COUNT, 4)), 4, 2),
    (lambda g: g.binomial(20, 0.5, COUNT), 10, 5**0.5),
    (lambda g: g.gamma(4, 1, COUNT), 4, 2),
    (lambda g: g.standard_gamma(4, COUNT), 4, 2),
    (lambda g: g.beta(2, 2, COUNT), 0.5, 0.05**0.5),
    (lambda g: g.beta(2.0, cp.full(COUNT, 2.0)), 0.5, 0.05**0.5),
    (lambda g: g.geometric(0.5, COUNT), 2, 2**0.5),
    (lambda g: g.hypergeometric(20, 20, 10, COUNT), 5, 1.387),
    (lambda g: g.logseries(0.5, COUNT), 1.4427, 0.897),
    (lambda g: g.chisquare(4.0, COUNT), 4, 8**0.5),
    (lambda g: g.power(2.0, COUNT), 2 / 3, 18**-0.5)])
def test_generator(draw: Callable[[Any], Any], mean: float, deviation: float) -> None:
    found = draw(cp.random.default_rng(5)).get()
    assert found.shape == (COUNT,)
    assert abs(found.mean() - mean) < 5 * deviation / COUNT**0.5
    assert abs(found.std() / deviation - 1) < 0.15
    generator = cp.random.default_rng(5)
    np.testing.assert_array_equal(draw(generator).get(), found)
    assert (draw(generator).get() != found).any()


@pytest.mark.parametrize("bits", ["XORWOW", "MRG32k3a", "Philox4x3210"])
def test_generators_are_made_as_cupy_does(bits: str) -> None:
    made = getattr(cp.random, bits)(3, size=64)
    generator = cp.random.Generator(made)
    assert isinstance(generator, cp.random.Generator)
    assert cp.random.default_rng(generator) is generator
    out = cp.zeros((4, 5), "f")
    assert generator.random(dtype="f", out=out) is out
    assert out.any()
    assert generator.random((2, 3), "f").dtype == np.float32
    assert generator.standard_normal().shape == ()
    assert generator.dirichlet(cp.ones(3), 4).shape == (4, 3)
    assert set(generator.integers(3, 5, (20, 5), np.int8, endpoint=True).get().ravel()) == {3, 4, 5}
    assert made.random_raw(3).shape == (3,)
    with pytest.raises(TypeError, match="wrong type"):
        generator.random(dtype="d", out=out)
    with pytest.raises(ValueError, match="low >= high"):
        generator.integers(5, 5)
    with pytest.raises(ValueError, match="out of bounds for int8"):
        generator.integers(0, 1000, dtype=np.int8)
    with pytest.raises(TypeError, match=r"cupy\.ndarray or a scalar"):
        generator.poisson([1, 2])
    with pytest.raises(TypeError, match="Unsupported dtype int32 for standard_normal"):
        generator.standard_normal(3, "i")
    with pytest.raises(ValueError, match="nbad < 0"):
        generator.hypergeometric(3, -1, 2)
    np.testing.assert_array_equal(generator.hypergeometric(5, 10, 16, 4).get(), 5)


@simulated
def test_drawing_runs_when_its_stream_comes_to_it() -> None:
    x = cp.zeros(100, "f")
    cp.cuda.Device().synchronize()
    one, other = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    with one:
        cp.random.default_rng(1).random(dtype="f", out=x)
    with other:
        x += 1
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="nothing orders the two"):
        cp.cuda.Device().synchronize()


@simulated
def test_a_graph_draws_anew_each_time() -> None:
    x, generator = cp.zeros(100), cp.random.default_rng(1)
    cp.cuda.Device().synchronize()
    stream, found = cp.cuda.Stream(non_blocking=True), []
    with stream:
        stream.begin_capture()
        generator.random(out=x)
        graph = stream.end_capture()
        for _ in range(2):
            graph.launch()
            stream.synchronize()
            found.append(x.get())
    assert (found[0] != found[1]).all()


@simulated
def test_generators_of_curand() -> None:
    from cupy_backends.cuda.libs import curand

    generator = curand.createGenerator(curand.CURAND_RNG_PSEUDO_DEFAULT)
    x, y = cp.zeros(10, "I"), cp.zeros(10, "I")
    curand.setPseudoRandomGeneratorSeed(generator, 7)
    curand.generate(generator, x.data.ptr, 10)
    curand.setPseudoRandomGeneratorSeed(generator, 7)  # while the first draw may wait
    curand.generate(generator, y.data.ptr, 10)
    np.testing.assert_array_equal(x.get(), y.get())
    curand.setGeneratorOffset(generator, 100)
    curand.generate(generator, y.data.ptr, 10)
    assert (x.get() != y.get()).any()
    with pytest.raises(ValueError, match="even number"):
        curand.generateNormal(generator, x.data.ptr, 9, 0, 1)
    curand.destroyGenerator(generator)
    with pytest.raises(curand.CURANDError, match="NOT_INITIALIZED"):
        curand.generate(generator, x.data.ptr, 10)
    with pytest.raises(curand.CURANDError, match="use a pseudorandom generator"):
        curand.createGenerator(curand.CURAND_RNG_QUASI_SOBOL32)
