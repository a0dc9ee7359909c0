"""Random tensors: arguments, dtypes, ranges, errors, in-place rules; the same as PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import twin
from hypothesis import given
from hypothesis import strategies as st

import mlgpu
from mlgpu.random import Generator

FLOATS = [mlgpu.float16, mlgpu.bfloat16, mlgpu.float32, mlgpu.float64]
INTS = [mlgpu.uint8, mlgpu.int8, mlgpu.int16, mlgpu.int32, mlgpu.int64]


def seeded(seed=0):
    return Generator().manual_seed(seed)


# Each is run in both libraries: the same shape, dtype and requires_grad, or the same kind of error.
CALLS = """rand(2,3) | rand((2,3)) | rand([2]) | rand(()) | rand(-1) | rand(2.5)
rand(2,dtype=L.int64) | rand(2,dtype=L.complex64) | rand(2,dtype=L.bfloat16)
rand(2,dtype=L.bool) | rand(2,requires_grad=True) | randn(2,dtype=L.float64)
randn(2,dtype=L.int64) | randn(3,dtype=L.complex128) | randn(0,2)
rand_like(L.zeros(2,3,dtype=L.float64)) | rand_like(L.zeros(2),dtype=L.float16)
rand_like(L.zeros(2,dtype=L.int64)) | randn_like(L.zeros(2)) | randn_like(L.zeros(2,dtype=L.bool))
randint(5,(3,)) | randint(5,3) | randint(5,5,(3,)) | randint(-3,5,[2,2])
randint(high=3,size=(2,)) | randint(low=0,high=3,size=(2,)) | randint(L.tensor(3),(2,))
randint(1.5,(3,)) | randint(5) | randint(0,300,(3,),dtype=L.uint8)
randint(-1,3,(3,),dtype=L.uint8) | randint(0,256,(3,),dtype=L.uint8)
randint(0,2,(3,),dtype=L.bool) | randint(0,3,(3,),dtype=L.bool)
randint(0,5,(3,),dtype=L.float16) | randint(0,100000,(2,),dtype=L.float16)
randint(0,5,(3,),dtype=L.complex64) | randint(0,3,()) | randint(0,3,(2,),requires_grad=True)
randint(0,3,(2,),dtype=L.float32,requires_grad=True) | randint_like(L.zeros(3),5)
randint_like(L.zeros(3),2,5) | randint_like(L.zeros(3),2,5,dtype=L.int8) | randperm(5)
randperm(0) | randperm(-1) | randperm(300,dtype=L.uint8) | randperm(5,dtype=L.float16)
randperm(5000,dtype=L.float16) | randperm(5,dtype=L.bool) | randperm(5,dtype=L.complex64)
randperm(2.5) | normal(0.,1.,(2,)) | normal(0,1,(2,),dtype=L.float64) | normal(0.,1.)
normal(0.,-1.,(2,)) | normal(L.zeros(2),1.) | normal(L.zeros(2)) | normal(L.zeros(2),-1.)
normal(0.,L.ones(2)) | normal(L.zeros(2),L.ones(3,1)) | normal(L.zeros(2),-L.ones(2))
normal(L.zeros(2),L.ones(3)) | normal(L.zeros(2,dtype=L.float64),L.ones(2))
normal(L.zeros(2),L.ones(2,dtype=L.float64)) | normal(L.zeros(2),L.ones(2,dtype=L.int64))
normal(L.zeros(2,dtype=L.int64),1.) | normal(L.zeros(2,requires_grad=True),1.)
normal(0.,L.ones(2,requires_grad=True)) | normal(L.zeros(2),L.ones(2,dtype=L.complex64))
normal(L.zeros(2,dtype=L.complex64),1.) | normal(mean=L.zeros(2),std=L.ones(2))
normal(0.,1.,size=(2,),dtype=L.int64) | bernoulli(L.tensor([0.,1.])) | bernoulli(L.tensor([0,1]))
bernoulli(L.tensor([0.5,1.5])) | bernoulli(L.tensor([float('nan')]))
bernoulli(L.zeros(2,dtype=L.int64),0.5) | bernoulli(L.zeros(2),1.5)
bernoulli(L.tensor([.5],requires_grad=True)) | bernoulli(L.tensor([True]))
bernoulli(L.tensor([1+0j])) | multinomial(L.tensor([1.,0,0]),2)
multinomial(L.tensor([1.,0,0]),4) | multinomial(L.ones(2,5),3)
multinomial(L.tensor([1.,0,0]),4,True) | multinomial(L.tensor([1.,0,0]),0)
multinomial(L.ones(2,2,2),1) | multinomial(L.tensor([0.,0,0]),1)
multinomial(L.tensor([-1.,0,0]),1) | multinomial(L.tensor(1.),1)
multinomial(L.tensor([float('inf'),0]),1) | multinomial(L.tensor([float('nan'),0]),1,True)
multinomial(L.tensor([1,1]),1) | multinomial(L.ones(0,5),3) | multinomial(L.ones(0),1)
multinomial(L.ones(2,0),1,True) | multinomial(L.tensor([[1.,1],[0,0]]),1)
multinomial(L.ones(3,requires_grad=True),1) | multinomial(L.ones(3,dtype=L.float16),2)
poisson(L.tensor([1.,2])) | poisson(L.tensor([-1.])) | poisson(L.tensor([1]))
poisson(L.zeros(2,0)) | poisson(L.tensor([1.],requires_grad=True))
poisson(L.tensor([float('nan')])) | poisson(L.tensor([1.],dtype=L.float16))
zeros(3).uniform_(1,0) | zeros(3).uniform_(1,1) | zeros(3,dtype=L.int64).uniform_()
zeros(3).uniform_(-3e38,3e38) | zeros(3).uniform_(float('nan'),1) | zeros(3).uniform_(0,1e300)
zeros(3).uniform_(to=3) | zeros(2,dtype=L.complex64).uniform_() | zeros(3).normal_(0,-1)
zeros(3,dtype=L.int64).normal_() | zeros(3,dtype=L.complex64).normal_(1,2)
zeros(3,dtype=L.int64).random_() | zeros(3,dtype=L.bool).random_() | zeros(3).random_(5,3)
zeros(3,dtype=L.int8).random_(-128,None) | zeros(3).random_(0) | zeros(3).random_(to=3)
zeros(3,dtype=L.int8).random_(-129,3) | zeros(3,dtype=L.complex64).random_()
zeros(3).random_(1.5) | zeros(3,dtype=L.int64).bernoulli_(0.5)
zeros(2,3).bernoulli_(L.tensor([0.,1.,.5])) | zeros(3).bernoulli_(L.tensor([0,1,1]))
zeros(3).bernoulli_(L.zeros(2,3)) | zeros(3).bernoulli_(2) | zeros(3).bernoulli_()
zeros(3,dtype=L.complex64).bernoulli_() | zeros(3).exponential_(0)
zeros(3,dtype=L.int64).exponential_() | zeros(3).log_normal_(1,0) | zeros(3).log_normal_(1,-1)
zeros(3).geometric_(0) | zeros(3).geometric_(1) | zeros(3,dtype=L.int64).geometric_(0.5)
zeros(3,dtype=L.bool).geometric_(0.5) | zeros(3).cauchy_(0,-1) | zeros(3,dtype=L.int64).cauchy_()
zeros(3,requires_grad=True).uniform_() | zeros(1).expand(3).uniform_()"""


def outcome(library, call):
    try:
        made = eval(f"L.{call}", {"L": library})
    except (RuntimeError, TypeError, ValueError) as error:
        return error
    return str(made.dtype).split(".")[1], tuple(made.shape), made.requires_grad


@pytest.mark.parametrize("call", [c.strip() for line in CALLS.splitlines()
                                  for c in line.split("|")])
def test_as_in_pytorch(call):
    mine, theirs = outcome(mlgpu, call), outcome(twin.torch(), call)
    if isinstance(theirs, Exception):
        kind = RuntimeError if isinstance(theirs, NotImplementedError) else type(theirs)
        assert isinstance(mine, kind), (mine, theirs)
    else:
        assert mine == theirs


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_uniform_never_reaches_its_end(dtype):
    for low, high in [(0, 1), (0, 3), (-1, 1e-3), (1, 1.01), (100, 101)]:
        drawn = mlgpu.empty(100_000, dtype=dtype).uniform_(low, high, generator=seeded(1))
        ends = mlgpu.tensor([low, high], dtype=dtype).double().tolist()
        found = drawn.double()
        assert ends[0] <= found.min().item()
        assert found.max().item() < ends[1] or ends[0] == ends[1]


@pytest.mark.parametrize("dtype", FLOATS, ids=repr)
def test_exponential_is_never_0(dtype):
    drawn = mlgpu.empty(1_000_000, dtype=dtype).exponential_(generator=seeded(1)).double()
    assert drawn.min().item() > 0
    assert np.isfinite(drawn.max().item())


@given(st.data())
def test_integers_stay_within_bounds(data):
    dtype = data.draw(st.sampled_from([*INTS, *FLOATS]))
    info = mlgpu.iinfo(dtype) if dtype in INTS else mlgpu.finfo(dtype)
    least, most = max(int(info.min), -2**63), min(int(info.max), 2**63 - 1)
    low = data.draw(st.integers(least, most))
    high = data.draw(st.integers(low, most))
    if dtype in FLOATS and high - low < max(abs(low), abs(high)) * mlgpu.finfo(dtype).eps * 4:
        return  # perhaps there is no number of this dtype in between
    drawn = mlgpu.empty(50, dtype=dtype).random_(low, high + 1, generator=seeded(1))
    found = [int(v) for v in (drawn if dtype in INTS else drawn.double()).tolist()]
    assert low <= min(found)
    assert max(found) <= high


def test_no_number_between_the_bounds():
    with pytest.raises(mlgpu.DTypeError, match="between"):
        mlgpu.randint(1001, 1004, (3,), dtype=mlgpu.bfloat16)


@pytest.mark.parametrize(("dtype", "most"), [
    (mlgpu.uint8, 255), (mlgpu.int8, 127), (mlgpu.int32, 2**31 - 1), (mlgpu.int64, 2**63 - 1),
    (mlgpu.float16, 2**11), (mlgpu.bfloat16, 2**8), (mlgpu.float32, 2**24),
    (mlgpu.float64, 2**53), (mlgpu.bool, 1)], ids=repr)
def test_random_without_bounds(dtype, most):
    drawn = mlgpu.empty(20_000, dtype=dtype).random_(generator=seeded(1)).double()
    assert drawn.min().item() >= 0
    assert most * 0.99 < drawn.max().item() <= most


def test_full_range_of_int64():
    drawn = mlgpu.empty(1000, dtype=mlgpu.int64).random_(-2**63, None, generator=seeded(1))
    assert drawn.min().item() < -2**62
    assert drawn.max().item() > 2**62


@pytest.mark.parametrize("dtype", [*INTS, *FLOATS, mlgpu.bool], ids=repr)
def test_dtypes_of_counts(dtype):
    ones = mlgpu.empty(1000, dtype=dtype).bernoulli_(0.3, generator=seeded(1)).double()
    assert ones.tolist() == mlgpu.empty(1000).bernoulli_(0.3, generator=seeded(1)).tolist()
    if dtype is not mlgpu.bool:
        n = 100 if dtype in INTS else 250
        order = mlgpu.randperm(n, dtype=dtype, generator=seeded(1)).double().tolist()
        assert order == mlgpu.randperm(n, generator=seeded(1)).tolist()


def test_normal_of_tensors():
    mean, std = mlgpu.tensor([[10.0], [-5.0]]), mlgpu.tensor([0.0, 1.0, 2.0])
    drawn = mlgpu.normal(mean.expand(2, 3), std, generator=seeded(1))
    standard = mlgpu.randn(2, 3, generator=seeded(1))
    assert drawn.tolist() == (standard * std + mean).tolist()
    assert mlgpu.normal(mean, 2.0, generator=seeded(1)).shape == (2, 1)
    assert mlgpu.normal(3.0, std, generator=seeded(1))[0].item() == 3.0


# --- in place -------------------------------------------------------------------------------------

INPLACE = [lambda t: t.uniform_(), lambda t: t.normal_(), lambda t: t.random_(5),
           lambda t: t.bernoulli_(0.5), lambda t: t.exponential_(), lambda t: t.cauchy_(),
           lambda t: t.geometric_(0.5), lambda t: t.log_normal_()]


@pytest.mark.parametrize("draw", INPLACE)
def test_in_place(draw):
    tensor = mlgpu.zeros(3)
    version = tensor._version
    assert draw(tensor) is tensor
    assert tensor._version == version + 1
    leaf = mlgpu.ones(3, requires_grad=True)
    with pytest.raises(mlgpu.GraphError, match="leaf"):
        draw(leaf)
    with mlgpu.no_grad():
        draw(leaf)
    assert leaf.requires_grad
    assert leaf.is_leaf
    leaf = mlgpu.ones(3, requires_grad=True)
    inner = leaf * 2
    draw(inner)
    assert inner.requires_grad
    (inner * 3).sum().backward()
    assert leaf.grad.tolist() == [0, 0, 0]


def test_in_place_on_a_view():
    leaf = mlgpu.ones(4, requires_grad=True)
    whole = leaf * 2
    whole[1:3].uniform_()
    whole.sum().backward()
    assert leaf.grad.tolist() == [2, 0, 0, 2]


def test_what_backward_needs_must_not_be_drawn_over():
    leaf = mlgpu.ones(3, requires_grad=True)
    inner = leaf.exp()
    outer = inner * inner
    inner.normal_()
    with pytest.raises(mlgpu.GraphError):
        outer.sum().backward()


def test_a_draw_that_fails_takes_no_words():
    generator = seeded(1)
    state = generator.get_state().tolist()
    for wrong in (lambda: mlgpu.ones(3, requires_grad=True).uniform_(generator=generator),
                  lambda: mlgpu.bernoulli(mlgpu.full((3,), 2.0), generator=generator),
                  lambda: mlgpu.multinomial(mlgpu.zeros(3), 1, generator=generator),
                  lambda: mlgpu.poisson(-mlgpu.ones(3), generator),
                  lambda: mlgpu.normal(mlgpu.zeros(3), -mlgpu.ones(3), generator=generator)):
        with pytest.raises(mlgpu.MlgpuError):
            wrong()
    assert generator.get_state().tolist() == state


@pytest.mark.parametrize("draw", [
    lambda t: mlgpu.bernoulli(t), lambda t: mlgpu.poisson(t), lambda t: mlgpu.normal(t, 1.0),
    lambda t: mlgpu.normal(0.0, t), lambda t: mlgpu.normal(t, t),
    lambda t: mlgpu.zeros(2, 3).bernoulli_(t)])
def test_parameters_have_zero_gradient(draw):
    parameter = mlgpu.full((3,), 0.5, requires_grad=True)
    drawn = draw(parameter)
    (drawn * 3).sum().backward()
    assert parameter.grad.tolist() == [0, 0, 0]


def test_every_draw_is_accounted_for():
    before = mlgpu.memory.stats().allocated
    kept = [mlgpu.rand(1000), mlgpu.randn(1000), mlgpu.randperm(500), mlgpu.randint(9, (500,))]
    assert mlgpu.memory.stats().allocated - before == 16_000
    del kept
    assert mlgpu.memory.stats().allocated == before
    with mlgpu.memory.budget("1 KiB"), pytest.raises(mlgpu.OutOfMemoryError):
        mlgpu.rand(1000)


# --- determinism ----------------------------------------------------------------------------------


def test_deterministic_algorithms():
    assert not mlgpu.are_deterministic_algorithms_enabled()
    try:
        mlgpu.use_deterministic_algorithms(True, warn_only=True)
        assert mlgpu.are_deterministic_algorithms_enabled()
        assert mlgpu.is_deterministic_algorithms_warn_only_enabled()
        mlgpu.use_deterministic_algorithms(True)
        assert not mlgpu.is_deterministic_algorithms_warn_only_enabled()
    finally:
        mlgpu.use_deterministic_algorithms(False)
    with pytest.raises(TypeError, match="mode"):
        mlgpu.use_deterministic_algorithms(1)
