"""mlgpu.testing: right derivatives pass, each kind of wrong one is caught; comparisons."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mlgpu
from mlgpu.autograd import Function
from mlgpu.testing import assert_close, gradcheck, gradgradcheck, make_tensor

F64, C128 = mlgpu.float64, mlgpu.complex128


def sample(*shape, dtype=F64, seed=0, **options):
    return make_tensor(*shape, dtype=dtype, generator=np.random.default_rng(seed),
                       **{"low": 0.5, "high": 2, "requires_grad": True, **options})


def function(forward, backward):
    """A Function's apply whose maths is `forward(x)` and `backward(x, dy)`."""
    class Custom(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx, *dys):
            return backward(ctx.saved_tensors[0], *dys)

    return Custom.apply


square = function(lambda x: x * x, lambda x, dy: 2 * x * dy)
wrong = function(lambda x: x * x, lambda x, dy: 3 * x * dy)


# --- gradcheck: what is right passes --------------------------------------------------------------


@pytest.mark.parametrize(("call", "inputs"), [
    (square, lambda: sample(2, 3)),
    (square, lambda: sample()),
    (square, lambda: sample(0, 3)),
    (lambda x, y: x @ y, lambda: (sample(2, 3), sample(3, 2, seed=1))),
    (lambda x, y: (x * y.exp(), x.sum()), lambda: (sample(2, 1), sample(3, seed=1))),
    (lambda x: [x.log(), x.T], lambda: [sample(2, 3)]),
    (lambda x, n, name: x ** n, lambda: (sample(3), 3, "a name")),
    (lambda x, y: x * 2, lambda: (sample(2), sample(3))),
    (lambda x, y: x * y, lambda: (sample(2), sample(2, requires_grad=False))),
    (lambda x: (x, x > 1), lambda: sample(3)),
    (lambda x: x * x, lambda: sample(3, 4, noncontiguous=True)),
    (lambda x: x * x, lambda: sample(3, 4).T),
    (lambda x: x.clone().mul_(x), lambda: sample(3)),
    (lambda z: z * z.conj(), lambda: sample(3, dtype=C128)),
    (lambda z: (z.exp(), z.abs(), z.real), lambda: sample(2, dtype=C128, low=-1, high=1)),
    (lambda x, z: x * z, lambda: (sample(2), sample(2, dtype=C128, seed=1))),
    (lambda x: mlgpu.complex(x, x * x), lambda: sample(2)),
    (lambda z: mlgpu.view_as_real(z) ** 2, lambda: sample(2, dtype=C128)),
], ids=lambda value: "")
def test_right_derivatives_pass_both(call, inputs):
    assert gradcheck(call, inputs()) is True
    assert gradgradcheck(call, inputs()) is True
    assert gradgradcheck(call, inputs(), gen_non_contig_grad_outputs=True) is True


def test_autograd_has_both_under_pytorchs_path():
    assert mlgpu.autograd.gradcheck is gradcheck
    assert mlgpu.autograd.gradgradcheck is gradgradcheck


def test_inputs_are_left_as_they_were():
    x = sample(3)
    before, version = x.tolist(), x._version
    y = x.exp()  # its saved output must stay usable
    gradcheck(square, x)
    gradcheck(lambda y: y * y, y)
    assert x.tolist() == before
    assert x._version == version
    assert x.grad is None
    y.sum().backward()


def test_works_where_recording_is_off():
    with mlgpu.no_grad():
        assert gradcheck(square, sample(2))
        assert gradgradcheck(square, sample(2))
        assert not mlgpu.is_grad_enabled()


def test_given_gradients_of_outputs_are_used():
    assert gradgradcheck(square, sample(2), sample(2, seed=5))
    asked = []
    half_wrong = function(lambda x: x * x,
                          lambda x, dy: asked.append(dy.tolist()) or 2 * x * dy)
    gradgradcheck(half_wrong, sample(1), mlgpu.tensor([7.0], dtype=F64, requires_grad=True))
    assert [7.0] in asked


def test_gradients_of_outputs_are_the_same_each_time():
    drawn = []
    spy = function(lambda x: x * x, lambda x, dy: drawn.append(dy.tolist()) or 2 * x * dy)
    gradgradcheck(spy, sample(2))
    half = len(drawn)
    gradgradcheck(spy, sample(2))
    assert drawn[:half] == drawn[half:]


# --- gradcheck: what is wrong is caught -----------------------------------------------------------


def caught(check, call, *inputs, **options):
    with pytest.raises(mlgpu.GradcheckError) as failure:
        check(call, inputs, **options)
    assert isinstance(failure.value, RuntimeError)
    assert check(call, inputs, raise_exception=False, **options) is False
    return str(failure.value)


def test_a_wrong_backward_is_caught_with_its_place_and_both_jacobians():
    x = mlgpu.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], dtype=F64, requires_grad=True)
    spoilt = mlgpu.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0]], dtype=F64)
    call = function(lambda x: x * x, lambda x, dy: 2 * x * dy + spoilt * dy)
    message = caught(gradcheck, lambda y, x: (y, call(x)), sample(1), x)
    assert "gradcheck: Jacobian mismatch for output 1 with respect to input 1" in message
    assert "element (1, 1) by element (1, 1) is 2.5 by backward, 2 numerically" in message
    assert message.index("numerical:\n[[2.") < message.index("analytical:\n[[2.")


def test_a_dropped_gradient_is_caught():
    assert "is 0 by backward, 3" in caught(
        gradcheck, function(lambda x: 3 * x, lambda x, dy: None), sample(2))
    two = mlgpu.tensor([2.0], dtype=F64, requires_grad=True)
    assert "is 2 by backward, 4 numerically" in caught(gradcheck, lambda x: x.detach() * x, two)
    message = caught(gradcheck, lambda x: x.detach() * 2, sample(2))
    assert "output 0 does not require grad, yet it changes with input 0" in message


def test_a_function_without_derivative_that_is_constant_passes():
    assert gradcheck(lambda x: x > 100, sample(2))
    assert gradcheck(lambda x: x.detach() * 0, sample(2))


def test_a_wrong_imaginary_part_is_caught():
    conjugated = function(lambda z: z * 2j, lambda z, dz: dz * 2j)
    message = caught(gradcheck, conjugated, sample(2, dtype=C128))
    assert "derivative of the real part of element (0,) by element (0,)" in message
    half = function(lambda z: z * 1, lambda z, dz: mlgpu.complex(dz.real, dz.imag * 2))
    assert "the imaginary part of element (0,)" in caught(gradcheck, half, sample(1, dtype=C128))


def test_a_wrong_second_derivative_is_caught_and_the_first_passes():
    call = function(lambda x: x * x, lambda x, dy: 2 * x.detach() * dy)
    assert gradcheck(call, sample(2))
    assert caught(gradgradcheck, call, sample(2)).startswith(
        "gradgradcheck: Jacobian mismatch for output 0 with respect to input 0")
    call = function(lambda x: x * x, lambda x, dy: 2 * x * dy.detach())
    assert "with respect to input 1" in caught(gradgradcheck, call, sample(2))


def test_a_backward_that_changes_from_call_to_call_is_caught():
    calls = []

    def drift(x, dy):
        calls.append(0)
        return 2 * x * dy + 1e-9 * len(calls) * dy

    call = function(lambda x: x * x, drift)
    message = caught(gradcheck, call, sample(2))
    assert "not reentrant" in message
    assert "nondet_tol is 0.0" in message
    assert gradcheck(call, sample(2), nondet_tol=1e-8)


def test_a_backward_that_ignores_the_outputs_gradient_is_caught():
    call = function(lambda x: 2 * x, lambda x, dy: mlgpu.full_like(dy, 2))
    assert "does not multiply" in caught(gradcheck, call, sample(1))


def test_a_missing_gradient_that_is_not_a_zero_is_caught():
    class Pair(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return 2 * x, 3 * x

        @staticmethod
        def backward(ctx, da, db):
            if da is None:
                return 3 * db
            if db is None:
                return 2 * da
            return 2 * da + 4 * db * (da != 0) + 3 * db * (da == 0)

    x = sample(1)
    assert "missing gradients are not treated as zeros" in caught(
        gradcheck, lambda x: Both.apply(x), x)
    assert gradcheck(Both.apply, x, check_undefined_grad=False)
    assert gradcheck(Pair.apply, x)


class Both(Function):
    """Right for one gradient alone, wrong as soon as both are there."""

    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        return 2 * x, 3 * x

    @staticmethod
    def backward(ctx, da, db):
        if da is None:
            return 3 * db
        if db is None:
            return 2 * da
        return 4 * da + 6 * db


def test_a_gradient_of_another_shape_is_an_error():
    call = function(lambda x: x * 2, lambda x, dy: mlgpu.ones(5, dtype=F64))
    with pytest.raises(mlgpu.ShapeError, match=r"backward gave a gradient of shape \(5,\)"):
        gradcheck(call, sample(2))


def test_tolerances_and_step():
    nearly = function(lambda x: x * x, lambda x, dy: 2.01 * x * dy)
    assert not gradcheck(nearly, sample(2), raise_exception=False)
    assert gradcheck(nearly, sample(2), rtol=0.02)
    assert gradcheck(nearly, sample(2), atol=0.1)
    cubic = function(lambda x: x * x * x, lambda x, dy: 3 * x * x * dy)
    assert gradcheck(cubic, sample(2), eps=1e-4)
    assert not gradcheck(cubic, sample(2), eps=0.5, raise_exception=False)


def test_what_cannot_be_checked():
    with pytest.raises(ValueError, match="at least one input must require grad"):
        gradcheck(square, sample(2, requires_grad=False))
    with pytest.warns(UserWarning, match=r"input 0 requires grad and is mlgpu\.float32"):
        gradcheck(lambda x: x * 2, sample(2, dtype=mlgpu.float32), eps=1e-2)
    with pytest.raises(mlgpu.ShapeError, match=r"input 0 has a dimension of stride 0"):
        gradcheck(square, sample(1, requires_grad=False).expand(3).requires_grad_())
    with pytest.raises(ZeroDivisionError):  # an error of the function is not a verdict
        gradcheck(lambda x: x * (1 / 0), sample(2), raise_exception=False)


# --- assert_close ---------------------------------------------------------------------------------


def refusal(actual, expected, **options):
    with pytest.raises(AssertionError) as failure:
        assert_close(actual, expected, **options)
    return str(failure.value)


def test_tensors_that_are_close_pass():
    x = mlgpu.tensor([1.0, 2.0])
    assert_close(x, x.clone())
    assert_close(x, x * (1 + 1e-6))
    assert_close(x.requires_grad_(), x.detach())
    assert_close(mlgpu.zeros(0), mlgpu.zeros(0))
    infinite = mlgpu.tensor([math.inf, -math.inf])
    assert_close(infinite, infinite.clone())
    assert_close(mlgpu.tensor([True]), mlgpu.tensor([True]))
    assert_close(np.ones(2), np.ones(2))
    assert_close(mlgpu.nn.Parameter(mlgpu.ones(2)), mlgpu.ones(2))


def test_message_of_tensors():
    x = mlgpu.tensor([[1.0, 1.0], [1.0, 4.0]])
    message = refusal(x, mlgpu.tensor([[1.0, 0.5], [1.0, 2.0]]))
    assert message == ("Tensor-likes are not close!\n\n"
                       "Mismatched elements: 2 / 4 (50.0%)\n"
                       "Greatest absolute difference: 2.0 at index (1, 1) (up to 1e-05 allowed)\n"
                       "Greatest relative difference: 1.0 at index (0, 1) (up to 1.3e-06 allowed)")
    message = refusal(mlgpu.tensor([1, 5]), mlgpu.tensor([1, 4]))
    assert message == ("Tensor-likes are not equal!\n\n"
                       "Mismatched elements: 1 / 2 (50.0%)\n"
                       "Greatest absolute difference: 1 at index (1,)\n"
                       "Greatest relative difference: 0.25 at index (1,)")


def test_message_of_numbers():
    assert refusal(1.0, 2.0) == ("Scalars are not close!\n\nExpected 2.0 but got 1.0.\n"
                                 "Absolute difference: 1.0 (up to 1e-07 allowed)\n"
                                 "Relative difference: 0.5 (up to 1e-07 allowed)")
    assert refusal(1, 2).startswith("Scalars are not equal!\n\nExpected 2 but got 1.\n")
    assert "up to 1e-05" in refusal(mlgpu.tensor(1.0), mlgpu.tensor(2.0))
    assert refusal(True, False) == "Booleans mismatch: True is not False"
    assert refusal(None, 1) == "None mismatch: None is not 1"
    assert "(d)types do not match" in refusal(1, 1.0)
    assert_close(1, 1.0, check_dtype=False)


@pytest.mark.parametrize(("dtype", "rtol", "atol"), [
    (mlgpu.float16, 1e-3, 1e-5), (mlgpu.bfloat16, 1.6e-2, 1e-5), (mlgpu.float32, 1.3e-6, 1e-5),
    (mlgpu.float64, 1e-7, 1e-7), (mlgpu.complex64, 1.3e-6, 1e-5), (mlgpu.complex128, 1e-7, 1e-7),
    (mlgpu.int64, 0, 0), (mlgpu.bool, 0, 0)])
def test_tolerances_of_dtypes(dtype, rtol, atol):
    one, other = mlgpu.ones(2).to(dtype), mlgpu.zeros(2).to(dtype)
    message = refusal(one, other)
    if rtol:
        assert f"(up to {atol} allowed)" in message
        assert f"(up to {rtol} allowed)" in message
    else:
        assert "allowed" not in message


def test_given_tolerances():
    one, other = mlgpu.tensor([1.0]), mlgpu.tensor([1.5])
    assert_close(one, other, rtol=0, atol=0.5)
    assert_close(one, other, rtol=0.5, atol=0)
    assert "not equal" in refusal(one, other, rtol=0, atol=0)
    for half in ({"rtol": 1.0}, {"atol": 1.0}):
        with pytest.raises(ValueError, match="both rtol and atol or neither"):
            assert_close(one, one, **half)
    assert "1 / 1" in refusal(one, mlgpu.tensor([math.inf]))


def test_nan():
    x = mlgpu.tensor([1.0, math.nan])
    assert "1 / 2" in refusal(x, x)
    assert_close(x, x, equal_nan=True)
    assert_close(x, x, equal_nan=True, rtol=0, atol=0)
    assert "Greatest absolute difference: nan at index (1,)" in refusal(x, mlgpu.ones(2))


def test_attributes():
    x = mlgpu.ones(2, 3)
    assert refusal(x, mlgpu.ones(3)) == (
        "The values for attribute 'shape' do not match: mlgpu.Size([2, 3]) != mlgpu.Size([3]).")
    assert refusal(x, x.double()) == (
        "The values for attribute 'dtype' do not match: mlgpu.float32 != mlgpu.float64.")
    assert_close(x, x.double(), check_dtype=False)
    strided = mlgpu.ones(3, 2).T
    assert_close(x, strided)
    assert "attribute 'stride()'" in refusal(x, strided, check_stride=True)


def test_structures():
    x = mlgpu.ones(2)
    assert_close([x, (1, 2.0)], (x, [1, 2.0]))
    assert_close({"a": [x], "b": None}, {"b": None, "a": [x]})
    assert refusal([1, 2], [1, 3]).endswith("\n\nThe failure occurred for item [1]")
    assert refusal({"a": [x, x]}, {"a": [x, x + 1]}).endswith("for item ['a'][1]")
    assert refusal([1], [1, 2]) == "The length of the sequences mismatch: 1 != 2"
    assert refusal({"a": 1}, {"b": 1}) == (
        "The keys of the mappings do not match:\nMissing keys in the actual mapping: ['b']\n"
        "Additional keys in the actual mapping: ['a']")


def test_messages_of_ones_own():
    assert refusal(1, 2, msg="no") == "no"
    assert refusal(1, 2, msg=lambda text: f"step 3: {text}").startswith("step 3: Scalars")


@pytest.mark.parametrize(("actual", "expected"), [
    ("a", "a"), ({1}, {1}), (1.0, mlgpu.ones(1)), (np.ones(1), mlgpu.ones(1)),
    ([1.0], mlgpu.ones(1))])
def test_what_cannot_be_compared(actual, expected):
    with pytest.raises(TypeError, match="cannot compare"):
        assert_close(actual, expected)


def test_assert_close_says_what_pytorch_says():
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs it installed")
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64", "int64", "complex64", "float16"):
        for size in (1e-8, 1e-6, 1e-4, 1):
            a = rng.standard_normal((3, 4)) * 3
            b = a + size * rng.standard_normal((3, 4)) * (rng.random((3, 4)) < 0.5)
            texts = []
            for lib, close in ((torch, torch.testing.assert_close), (mlgpu, assert_close)):
                x, y = (lib.tensor(v).to(getattr(lib, dtype)) for v in (a, b))
                try:
                    close(x, y)
                    texts.append("")
                except AssertionError as error:
                    texts.append(" ".join(word for word in str(error).split()
                                          if not word[0].isdigit() or "/" in word))
            assert texts[0] == texts[1]


# --- make_tensor ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "low", "high"), [
    (mlgpu.float32, -9, 9), (mlgpu.bfloat16, -9, 9), (mlgpu.float16, -9, 9),
    (mlgpu.complex128, -9, 9), (mlgpu.int8, -9, 10), (mlgpu.int64, -9, 10), (mlgpu.uint8, 0, 10),
    (mlgpu.bool, 0, 2)])
def test_default_ranges(dtype, low, high):
    x = make_tensor(40, 50, dtype=dtype)
    assert tuple(x.shape) == (40, 50)
    assert x.dtype is dtype
    values = mlgpu.view_as_real(x) if dtype.is_complex else x
    values = values.double()
    assert low <= values.min().item() < low + 1
    assert high - 1.1 < values.max().item() < high


def test_ranges_shapes_and_flags():
    assert tuple(make_tensor((2, 3), dtype=F64).shape) == (2, 3)
    assert tuple(make_tensor(dtype=F64).shape) == ()
    x = make_tensor(1000, dtype=mlgpu.int32, low=1.5, high=3.5)
    assert sorted(set(x.tolist())) == [2, 3]
    assert make_tensor(3, dtype=F64, requires_grad=True).is_leaf
    x = make_tensor(3, 4, dtype=F64, noncontiguous=True)
    assert not x.is_contiguous()
    assert tuple(x.shape) == (3, 4)
    assert x.stride() == (8, 2)
    assert make_tensor(1, dtype=F64, noncontiguous=True).is_contiguous()
    wide = make_tensor(100, dtype=F64, low=-1.7e308, high=1.7e308)
    assert wide.isfinite().all()
    assert make_tensor(10, dtype=mlgpu.uint8, low=-500, high=500).max().item() <= 255
    half = make_tensor(5000, dtype=mlgpu.bfloat16, low=0, high=1)
    assert half.max().item() < 1


def test_zeros_can_be_excluded():
    assert (make_tensor(1000, dtype=mlgpu.int8, low=0, high=2, exclude_zero=True) == 1).all()
    x = make_tensor(1, dtype=mlgpu.float32, low=0, high=1e-50, exclude_zero=True)
    assert x.item() == mlgpu.finfo(mlgpu.float32).tiny


def test_a_generator_makes_the_same_tensor_and_calls_differ():
    first, again = (make_tensor(5, dtype=F64, generator=np.random.default_rng(3)) for _ in range(2))
    assert first.tolist() == again.tolist()
    mlgpu.manual_seed(7)
    one, other = make_tensor(5, dtype=F64), make_tensor(5, dtype=F64)
    assert one.tolist() != other.tolist()
    mlgpu.manual_seed(7)
    assert make_tensor(5, dtype=F64).tolist() == one.tolist()


@pytest.mark.parametrize(("options", "error"), [
    ({"dtype": F64, "low": 2, "high": 1}, ValueError),
    ({"dtype": F64, "low": math.nan, "high": 1}, ValueError),
    ({"dtype": mlgpu.uint8, "low": -5, "high": -1}, ValueError),
    ({"dtype": mlgpu.int64, "requires_grad": True}, mlgpu.DTypeError)])
def test_impossible_requests(options, error):
    with pytest.raises(error, match="make_tensor"):
        make_tensor(3, **options)
