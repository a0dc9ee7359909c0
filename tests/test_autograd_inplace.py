"""In-place changes in a graph: versions, histories of views and their bases, what is refused.

Each program is right by finite differences (what it computes is what backward differentiates), to
the second order, and where PyTorch is installed has the same results, gradients and flags.
"""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.testing import gradcheck, gradgradcheck

X = np.random.default_rng(0).uniform(0.5, 2, (4, 6))


def leaf(lib, values=X, **options):
    return lib.tensor(values, dtype=lib.float64, requires_grad=True, **options)


# --- programs: (lib, x) -> tensors, for a leaf x of shape (4, 6) ----------------------------------


def whole(lib, x):
    y = x * 2
    y.sin_()
    return y, y * x


def reads_itself(lib, x):
    return x.clone().mul_(x).pow_(2).add_(x)


def operators(lib, x):
    y = x.clone()
    y += x
    y *= 2
    y -= x.sum()
    y /= x
    y **= 2
    return y


def scalar_chain(lib, x):
    y = x.sum()
    for _ in range(3):
        y.mul_(0.1).cos_()
    return y


def row(lib, x):
    y = x * 3
    y[1].mul_(x[0])
    return y


def rows_twice(lib, x):
    y = x * 3
    y[1:3].sin_()
    y[2:].mul_(y[:2].clone())
    return y


def view_of_view(lib, x):
    y = x.clone()
    v = y.T[1:5]
    v[::2, 1].exp_()
    return y, v, v.sum()


def view_first_used(lib, x):
    y = x * 2
    v = y[0]
    before = v * 5
    v.mul_(3)
    return before, v, y


def base_changed(lib, x):
    y = x * 2
    v = y[:, 1]
    y.mul_(x)
    return v * 2, y


def siblings(lib, x):
    y = x * 2
    a, b = y[:2], y[1:]
    a.mul_(3)
    b.sin_()
    return a, b, y


def chain_of_changes(lib, x):
    y = x * 1
    a = y.view(24)
    b = a[3:20]
    b.mul_(2)
    y.add_(1)
    a.mul_(x.view(24))
    b[2:5].cos_()
    return y, a, b


def transposed(lib, x):
    y = x.clone()
    y.transpose(0, 1).mul_(lib.arange(24, dtype=lib.float64).reshape(6, 4))
    y.permute(1, 0).unsqueeze(0).squeeze(0)[0] = x[:, 5]
    return y


def diagonal(lib, x):
    y = x * 2
    y.diagonal(1).mul_(x[:, 0])
    y.diagonal().zero_()
    return y


def unflattened(lib, x):
    y = x * 2
    y.flatten()[::5].neg_()
    y.unflatten(1, (2, 3))[:, 1].exp_()
    return y


def expanded_from(lib, x):
    y = x[:, :1].clone()
    wide = y.expand(4, 6)
    y.mul_(3)
    return wide * x, y


def narrowed(lib, x):
    y = x * 2
    y.narrow(1, 2, 3).mul_(2)
    y.select(0, 1).add_(x[0])
    return y


def assigned(lib, x):
    y = x * 2
    y[0] = x[1] * 3
    y[1, 2:4] = 7.0
    y[:, 5] = y[:, 4]
    y[2:] = x[0].sum()
    return y


def assigned_by_index(lib, x):
    y = x * 2
    y[lib.tensor([0, 2]), lib.tensor([1, 1])] = x[0, :2]
    y[x > 1.5] = 0.0
    y[lib.tensor([True, False, False, True])] *= 2
    return y


def assigned_to_view(lib, x):
    y = x * 2
    y[1:][lib.tensor([0, 2])] = x[:2]
    y.T[3][x[:, 0] > 1] = 5.0
    return y


def copied(lib, x):
    y = lib.zeros(4, 6, dtype=lib.float64)
    y[:2].copy_(x[2:])
    y[2].copy_(x[0, 0])
    y[3].fill_(x[1, 1])
    return y


def filled(lib, x):
    y = x * 2
    y.fill_(3)
    z = x * 2
    z[1].zero_()
    z.masked_fill_(z > 3, 1.0)
    return y * x, z


def constant_becomes_variable(lib, x):
    y = lib.ones(4, 6, dtype=lib.float64)
    v = y[1]
    y.mul_(x)
    w = lib.ones(4, 6, dtype=lib.float64)
    u = w[2]
    u.mul_(x[0])
    return y, v, w, u


def indexed_methods(lib, x):
    y = x * 2
    index = lib.tensor([0, 3])
    y.index_add_(0, index, x[:2])
    y.index_fill_(1, index, 2.0)
    y.index_copy_(0, index, x[1:3] * 2)
    y.scatter_add_(1, lib.tensor([[0, 0, 1]]), x[:1, :3])
    return y


def sums_in_place(lib, x):
    y = x * 2
    y.cumsum_(1)
    y.tril_()
    y[1:].cumprod_(0)
    return y


def ternary(lib, x):
    y = x * 2
    y.addcmul_(x, x, value=0.5)
    y.addcdiv_(x, x + 1)
    y[0].lerp_(x[1], 0.25)
    y[1:].clamp_(1.2, 5)
    return y


def split_views_read(lib, x):
    y = x * 2
    a, b = y.split(2)
    c, d = y.chunk(2, 1)
    y.mul_(x)
    return a * b, c, d


def detached(lib, x):
    y = x * 2
    d = y.detach()
    z = y + 1
    d.mul_(5)
    return y * x.detach(), z


def loop(lib, x):
    out = lib.zeros(5, 6, dtype=lib.float64)
    for i in range(4):
        out[i + 1] = out[i].clone() * 0.5 + x[i]
    return out


def inside_no_grad(lib, x):
    y = x * 2
    with lib.no_grad():
        y[0] += 3
    return y * x


PROGRAMS = [whole, reads_itself, operators, scalar_chain, row, rows_twice, view_of_view,
            view_first_used, base_changed, siblings, chain_of_changes, transposed, diagonal,
            unflattened, expanded_from, narrowed, assigned, assigned_by_index, assigned_to_view,
            copied, filled, constant_becomes_variable, indexed_methods, sums_in_place, ternary,
            split_views_read, loop]


def complex_parts(lib, z):
    w = z * 2
    w.real.mul_(3)
    w.imag[0] = z.real[1]
    lib.view_as_real(w)[..., 1].exp_()
    return w, w.real


def complex_from_real(lib, z):
    pairs = lib.view_as_real(z * 1)
    w = lib.view_as_complex(pairs)
    w.mul_(1j)
    w[1].mul_(z[0])
    return w, pairs


def flat(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_backward_differentiates_what_was_computed(program):
    assert gradcheck(lambda x: program(mlgpu, x), leaf(mlgpu))
    assert gradgradcheck(lambda x: program(mlgpu, x), leaf(mlgpu, X[:4, :6]))


def compare(program, make):
    torch = pytest.importorskip("torch", reason="comparison with PyTorch needs it installed")
    rng = np.random.default_rng(1)
    mine, theirs = make(mlgpu), make(torch)
    ours, other = flat(program(mlgpu, mine)), flat(program(torch, theirs))
    seeds = [rng.standard_normal((*y.shape, 2)) for y in ours]
    for lib, outputs in ((mlgpu, ours), (torch, other)):
        grads = [lib.tensor(s[..., 0] + (1j * s[..., 1] if y.is_complex() else 0))
                 for s, y in zip(seeds, outputs, strict=True)]
        kept = [(y, g) for y, g in zip(outputs, grads, strict=True) if y.requires_grad]
        lib.autograd.backward([y for y, _ in kept], [g for _, g in kept])
    for a, b in zip(ours, other, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), 1e-12, 1e-12)
        assert (a.requires_grad, a.is_leaf, a._is_view()) == (
            b.requires_grad, b.is_leaf, b._is_view())
    np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), 1e-10, 1e-10)


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p is not split_views_read]
                         + [detached, inside_no_grad], ids=lambda p: p.__name__)
def test_programs_do_as_in_pytorch(program):
    compare(program, leaf)


def complex_leaf(lib):
    return lib.tensor(X[:2, :3] + 1j * X[2:, 3:], requires_grad=True)


@pytest.mark.parametrize("program", [complex_parts, complex_from_real], ids=lambda p: p.__name__)
def test_views_between_real_and_complex(program):
    assert gradcheck(lambda z: program(mlgpu, z), complex_leaf(mlgpu))
    assert gradgradcheck(lambda z: program(mlgpu, z), complex_leaf(mlgpu))


@pytest.mark.parametrize("program", [complex_parts, complex_from_real], ids=lambda p: p.__name__)
def test_views_between_real_and_complex_do_as_in_pytorch(program):
    compare(program, complex_leaf)


# --- random programs ------------------------------------------------------------------------------


def random_program(seed, *more_views):
    """A chain of views and in-place changes, the same in both libraries."""
    rng = np.random.default_rng(seed)
    views = [*more_views, lambda v: v[1:], lambda v: v[::2], lambda v: v.transpose(0, -1),
             lambda v: v.unsqueeze(0), lambda v: v.squeeze(), lambda v: v.select(-1, 0),
             lambda v: v.narrow(0, 0, 1), lambda v: v.diagonal() if v.ndim > 1 else v[:1],
             lambda v: v[..., None], lambda v: v.swapaxes(0, -1)]
    changes = [lambda v, x: v.mul_(2), lambda v, x: v.sin_(), lambda v, x: v.mul_(x.sum() * 0.1),
               lambda v, x: v.add_(x[0, 0]), lambda v, x: v.fill_(x[1, 2]),
               lambda v, x: v.copy_(v.clone() * x[0, 1]), lambda v, x: v.cos_()]
    steps = [(int(rng.integers(3)), int(rng.integers(len(views))), int(rng.integers(len(changes))),
              int(rng.integers(100))) for _ in range(14)]

    def program(lib, x):
        tensors = [x * 1.5]
        for kind, view, change, pick in steps:
            target = tensors[pick % len(tensors)]
            if kind and target.ndim and target.numel() > 1:
                tensors.append(views[view](target))
            else:
                changes[change](target, x)
        return tuple(t for t in tensors if t.numel())

    return program


@pytest.mark.parametrize("seed", range(25))
def test_random_programs(seed):
    program = random_program(seed, lambda v: v.unbind(0)[0], lambda v: v.split(1)[-1])
    assert gradcheck(lambda x: program(mlgpu, x), leaf(mlgpu, X[:3, :3]), atol=1e-4)


@pytest.mark.parametrize("seed", range(200))
def test_random_programs_do_as_in_pytorch(seed):
    compare(random_program(seed), leaf)


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    lambda x: x.mT.view(-1)[2:].mul_(3), lambda x: x.mT.view(6, 2)[1].fill_(0),
    lambda x: x.as_strided((2, 3), (1, 4), 2).mul_(3)])
def test_a_view_of_memory_in_another_order_changes_its_own_elements(change):
    weights = mlgpu.arange(12.0).reshape(4, 3) + 1
    values = (mlgpu.arange(12.0) + 1).reshape(3, 4)
    leaf = values.clone().requires_grad_()
    base = leaf.mT.clone()  # which keeps the order: its transposed one can be seen flat
    change(base)
    (base * weights).sum().backward()
    constant = values.mT.clone()
    before = constant.clone()
    change(constant)
    scale = constant / before
    assert mlgpu.equal(leaf.grad, (weights * scale).mT)


def test_every_change_counts_and_all_views_share_the_count():
    x = mlgpu.zeros(3, 4)
    v, d = x[1], x.detach()
    assert x._version == 0
    x.add_(1)
    v.mul_(2)
    d[0, 0] = 5
    x[0] += 1  # the addition, then the assignment
    assert x._version == v._version == d._version == x.data._version == 5
    with mlgpu.no_grad():
        x.zero_()
    assert x._version == 6
    assert (x + 1)._version == 0


@pytest.mark.parametrize("change", [
    lambda y: y.add_(1), lambda y: y[0].zero_(), lambda y: y.detach().mul_(2),
    lambda y: y.T.neg_(), lambda y: y.__setitem__(0, 1.0), lambda y: y.data.add_(1)],
    ids=["whole", "row", "detached", "transposed", "assignment", "data"])
@pytest.mark.parametrize(("use", "name"), [
    (lambda y, x: y * x, "mul"), (lambda y, x: y.exp(), None), (lambda y, x: y @ x.T, "matmul")])
def test_a_changed_saved_value_is_an_error_in_backward(use, name, change):
    x = leaf(mlgpu)
    y = x * 2
    z = use(y, x)
    change(z if name is None else y)
    with pytest.raises(mlgpu.GraphError, match=r"was changed in place .version 1, saved at 0."):
        z.sum().backward()


@pytest.mark.parametrize("call", [
    lambda x: x / x, lambda x: 2 / x, lambda x: x * x, lambda x: x.sinc(), lambda x: x.log(),
    lambda x: (x / 3).erfinv(), lambda x: x.atan2(x), lambda x: x ** 3, lambda x: x @ x.T,
    lambda x: mlgpu.nn.functional.softsign(x), lambda x: mlgpu.nn.functional.gelu(x)],
    ids=lambda c: "")
def test_results_that_pytorch_does_not_keep_may_change(call):
    x = leaf(mlgpu)
    (expected,) = mlgpu.autograd.grad(call(x).sum(), x)
    y = call(x)
    y.mul_(1).add_(1)
    assert mlgpu.autograd.grad(y.sum(), x)[0].tolist() == expected.tolist()


def test_values_that_were_not_saved_may_change():
    x = leaf(mlgpu)
    y = x * 2
    z = y + 1
    y.mul_(5)
    (z.sum() + y.sum()).backward()
    assert (x.grad == 12).all()


def test_the_same_tensor_on_both_sides_is_an_error_in_backward():
    y = leaf(mlgpu) * 2
    y.mul_(y)
    with pytest.raises(mlgpu.GraphError, match="changed in place"):
        y.sum().backward()


# --- what is refused ------------------------------------------------------------------------------


def test_a_leaf_that_requires_grad_cannot_be_changed():
    x = leaf(mlgpu)
    for change in (lambda: x.add_(1), lambda: x.__setitem__(0, 1.0), lambda: x.zero_(),
                   lambda: x.copy_(mlgpu.zeros(4, 6))):
        with pytest.raises(mlgpu.GraphError, match="a leaf that requires grad"):
            change()
    for view in (x[0], x.T, x.view(-1)[3:], x.detach()[0].requires_grad_()):
        with pytest.raises(mlgpu.GraphError, match="leaf that requires grad"):
            view.mul_(2)
    assert x._version == 0
    with mlgpu.no_grad():
        x.add_(1)
        x[0].zero_()
    x.detach().mul_(2)
    assert x._version == 3
    assert x.is_leaf
    assert x[1, 0].item() == pytest.approx(2 * (X[1, 0] + 1))


def test_a_view_of_a_leaf_changed_without_recording_stays_usable():
    x = leaf(mlgpu)
    v = x[1]
    with mlgpu.no_grad():
        v.mul_(3)
    (v * v).sum().backward()
    np.testing.assert_allclose(x.grad.numpy()[1], 6 * X[1])
    assert not x.grad.numpy()[[0, 2, 3]].any()


def test_expanded_memory_cannot_be_changed():
    y = (leaf(mlgpu) * 2)[:, :1]
    with pytest.raises(mlgpu.ShapeError, match="share one place"):
        y.expand(4, 3).add_(1)
    with pytest.raises(mlgpu.ShapeError, match="share one place"):
        mlgpu.zeros(1).expand(3).fill_(1)
    mlgpu.zeros(1).expand(1).fill_(1)


def test_results_must_fit_the_target():
    x = mlgpu.zeros(3)
    with pytest.raises(mlgpu.ShapeError, match=r"add_: .*do(es)? not"):
        x.add_(mlgpu.zeros(2, 3))
    with pytest.raises(mlgpu.DTypeError, match="cannot be written"):
        mlgpu.zeros(3, dtype=mlgpu.int64).add_(0.5)
    with pytest.raises(mlgpu.DTypeError, match="cannot be written"):
        x.add_(1j)
    assert x._version == 0
    assert x.tolist() == [0, 0, 0]


def test_inference_tensors_change_only_inside():
    with mlgpu.inference_mode():
        x = mlgpu.zeros(3)
        x.add_(1)
    with pytest.raises(mlgpu.GraphError, match="inference_mode"):
        x.add_(1)
    with pytest.raises(mlgpu.GraphError, match="inference_mode"):
        leaf(mlgpu, [1.0, 2.0, 3.0]) * x
    x.clone().add_(1)


def test_a_view_made_in_inference_mode_still_belongs_to_its_base():
    x, w = mlgpu.zeros(3, dtype=mlgpu.float64), leaf(mlgpu, [2.0])
    with mlgpu.inference_mode():
        view = x[:1]
    view.add_(w)
    assert x.requires_grad
    x.sum().backward()
    assert w.grad.tolist() == [1]


def test_read_only_memory_cannot_be_changed():
    array = np.zeros(3)
    array.flags.writeable = False
    shared = mlgpu.from_dlpack(array) if hasattr(array, "__dlpack_device__") else None
    if shared is not None:
        with pytest.raises(mlgpu.GraphError, match="read-only"):
            shared.add_(1)


# --- histories ------------------------------------------------------------------------------------


def test_flags_after_a_constant_becomes_a_variable():
    x = leaf(mlgpu)
    base = mlgpu.zeros(4, 6, dtype=mlgpu.float64)
    view = base[1]
    assert not view.requires_grad
    base[1:3].add_(x[0])
    assert base.requires_grad
    assert view.requires_grad
    assert view.grad_fn is not None
    assert not base.is_leaf
    assert not view.is_leaf
    view.sum().backward()
    assert x.grad[0].tolist() == [1.0] * 6


def test_detach_in_place_leaves_the_graph():
    y = leaf(mlgpu) * 2
    y.detach_()
    assert y.is_leaf
    assert not y.requires_grad
    with pytest.raises(mlgpu.GraphError, match="view"):
        (leaf(mlgpu) * 2)[0].detach_()


def test_data_gives_other_memory():
    x = leaf(mlgpu)
    x.data = mlgpu.zeros(2, dtype=mlgpu.float64)
    assert x.requires_grad
    assert tuple(x.shape) == (2,)
    (x + 1).sum().backward()
    assert x.grad.tolist() == [1, 1]
