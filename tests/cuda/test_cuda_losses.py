"""Losses and normalisations on CUDA beyond the op table: wrong targets, memory, repeatability."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import PositionError, ShapeError
from mlgpu.nn import functional as F


def on(values, **options):
    return mlgpu.tensor(values, device="cuda", **options)


def random(*shape, **options):
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return on(values, **options)


@pytest.mark.parametrize(("call", "message"), [
    (lambda x, t: F.cross_entropy(x, t), "cross_entropy: target 9 is out of range for 5 classes"),
    (lambda x, t: F.nll_loss(x, t), "nll_loss: target 9 is out of range for 5 classes"),
    (lambda x, t: F.cross_entropy(x.T.reshape(3, 5, 1)[:, :, 0], t), "cross_entropy: target 9"),
    (lambda x, t: F.cross_entropy(x[:, :, None], t[:, None]), "cross_entropy: target 9 is out of"),
    (lambda x, t: F.linear_cross_entropy(x, random(6, 5), t), "linear_cross_entropy: target 9 is"),
    (lambda x, t: F.multilabel_margin_loss(x, on([[9, -1, 0, 0, 0]] * 3)),
     "multilabel_margin_loss: target 9 is out of range for 5 classes"),
    (lambda x, t: F.ctc_loss(F.log_softmax(x[:, None], -1), on([[9]]), on([3]), on([1])),
     "ctc_loss: label 9 is out of range for 5 classes"),
    (lambda x, t: F.rnnt_loss(x[None, :, None].expand(1, 3, 2, 5), on([[9]]), on([3]), on([1])),
     "rnnt_loss: label 9 is out of range for 5 classes")])
def test_wrong_classes_are_raised_by_what_waits_next(call, message):
    loss = call(random(3, 5), on([1, 9, 0]))
    with pytest.raises(PositionError, match=message):
        loss.cpu()
    assert np.isfinite(F.cross_entropy(random(3, 5), on([1, 4, 0])).item())


def test_a_wrong_class_counts_for_nothing():
    x = random(3, 5, requires_grad=True)
    loss = F.cross_entropy(x, on([1, 9, 0]))
    loss.backward()
    with pytest.raises(PositionError):
        mlgpu.cuda.synchronize()
    rest = F.cross_entropy(x.detach()[::2], on([1, 0]))
    assert loss.item() == pytest.approx(rest.item(), 1e-6)
    assert not x.grad[1].any().item()
    assert x.grad[0].any().item()


@pytest.mark.parametrize(("value", "target"), [(1.5, 0.5), (-0.1, 0.5), (0.5, 1.5)])
def test_what_is_no_probability_is_raised(value, target):
    loss = F.binary_cross_entropy(on([value, 0.5]), on([target, 0.5]))
    what = "input" if target == 0.5 else "target"
    with pytest.raises(ShapeError, match=f"all elements of {what} must be between 0 and 1"):
        loss.item()


def test_a_negative_variance_is_raised_by_what_waits_next():
    x, var = random(3, 5), random(3, 5).abs()
    expected = F.gaussian_nll_loss(x.cpu(), x.cpu(), var.cpu(), eps=0.5)
    assert F.gaussian_nll_loss(x, x, var, eps=0.5).item() == pytest.approx(expected.item(), 1e-6)
    loss = F.gaussian_nll_loss(x, x, -var)
    with pytest.raises(ShapeError, match="gaussian_nll_loss: var must not be negative"):
        loss.item()
    assert F.gaussian_nll_loss(x, x, var * np.inf).item() == np.inf


@pytest.mark.parametrize(("frames", "labels", "message"), [
    (0, 1, "rnnt_loss: logit_lengths must lie between 1 and 3, got 0"),
    (4, 1, "rnnt_loss: logit_lengths must lie between 1 and 3, got 4"),
    (2, 3, "rnnt_loss: target_lengths must lie between 0 and 2, got 3")])
def test_wrong_lengths_of_a_transducer_are_raised_by_what_waits_next(frames, labels, message):
    loss = F.rnnt_loss(random(1, 3, 3, 5), on([[1, 2]]), on([frames]), on([labels]))
    with pytest.raises(ShapeError, match=message):
        loss.item()


def test_the_gradient_of_a_transducer_takes_the_memory_of_the_logits():
    """Nothing else of their size is made, forward or backward, and two runs are equal bits."""
    found = []
    for _ in range(2):
        x = random(2, 6, 4, 300, requires_grad=True)
        mlgpu.cuda.synchronize()
        before = mlgpu.cuda.memory_allocated()
        mlgpu.cuda.reset_peak_memory_stats()
        F.rnnt_loss(x * 2, on([[1, 2, 3], [2, 2, 0]]), on([6, 4]), on([3, 2])).backward()
        assert mlgpu.cuda.max_memory_allocated() - before < 2.2 * x.nbytes
        found.append(x.grad.cpu().numpy().tobytes())
    assert found[0] == found[1]


def test_a_gaussian_loss_can_be_captured():
    step = mlgpu.cuda.graph(lambda x, y, var: F.gaussian_nll_loss(x, y, var))
    for k in range(3):
        x, y, var = random(3, 5) * k, random(3, 5), random(3, 1).abs()
        assert step(x, y, var).item() == pytest.approx(F.gaussian_nll_loss(x, y, var).item(), 1e-6)
    step(x, y, -var)
    with pytest.raises(ShapeError, match="var must not be negative"):
        mlgpu.cuda.synchronize()


CTC = [
    (on_rows := [[1, 2, 3], [2, 2, 0], [0, 0, 0], [3, 1, 1]], [6, 5, 4, 2], [3, 2, 0, 3]),
    ([n for row, size in zip(on_rows, (3, 2, 0, 3), strict=True) for n in row[:size]],
     [6, 5, 4, 2], [3, 2, 0, 3])]


def ctc(logs, targets, inputs, lengths, reduction="mean"):
    loss = F.ctc_loss(F.log_softmax(logs, -1), targets, inputs, lengths, blank=4,
                      reduction=reduction, zero_infinity=True)
    return loss, *mlgpu.autograd.grad(loss, [logs], mlgpu.ones_like(loss))


@pytest.mark.parametrize(("targets", "inputs", "lengths"), CTC, ids=["rows", "joined"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("kind", [mlgpu.int64, mlgpu.int32, mlgpu.int16])
def test_ctc_with_lengths_wherever_they_are(targets, inputs, lengths, reduction, kind):
    logs = random(6, 4, 5, requires_grad=True)
    host = logs.detach().cpu().requires_grad_()
    want = ctc(host, mlgpu.tensor(targets), inputs, lengths, reduction)
    there = [on(n, dtype=kind) for n in (inputs, lengths)]
    for given in ((inputs, lengths), (there[0], lengths), (inputs, there[1]), there):
        for got, value in zip(ctc(logs, on(targets), *given, reduction), want, strict=True):
            np.testing.assert_allclose(got.detach().cpu().numpy(), value.detach().numpy(), 1e-4,
                                       1e-6)


@pytest.mark.parametrize(("targets", "inputs", "lengths"), CTC, ids=["rows", "joined"])
def test_ctc_is_captured(targets, inputs, lengths):
    step = mlgpu.cuda.graph(ctc)
    for k in range(3):
        logs = (random(6, 4, 5) * (k + 1)).requires_grad_()
        given = on(targets), on([max(n - k, 0) for n in inputs]), on(lengths)
        for got, want in zip(step(logs, *given), ctc(logs, *given), strict=True):
            assert np.array_equal(got.detach().cpu().numpy(), want.detach().cpu().numpy())


@pytest.mark.parametrize(("targets", "inputs", "lengths", "message"), [
    ([[1, 2], [1, 1]], [7, 4], [2, 1], "input_lengths must be between 0 and 6.*got 7"),
    ([[1, 2], [1, 1]], [4, -1], [2, 1], "input_lengths must be between 0 and 6.*got -1"),
    ([[1, 2], [1, 1]], [4, 4], [2, 3], "target_lengths must be between 0 and 2.*got 3"),
    ([1, 2, 1], [4, 4], [-1, 4], "target_lengths must be between 0 and 3.*got"),
    ([1, 2, 1], [4, 4], [2, 2], "concatenated targets must have 4 labels.*got 3"),
    ([1, 2, 1], [4, 4], [1, 1], "concatenated targets must have 2 labels.*got 3")])
def test_wrong_lengths_of_ctc_are_raised_by_what_waits_next(targets, inputs, lengths, message):
    logs = random(6, 2, 5, requires_grad=True)
    F.ctc_loss(F.log_softmax(logs, -1), on(targets), on(inputs), on(lengths)).backward()
    with pytest.raises(ShapeError, match=f"ctc_loss: {message}"):
        mlgpu.cuda.synchronize()
    with pytest.raises(ShapeError, match="input_lengths must have one length for each of 2"):
        F.ctc_loss(F.log_softmax(logs, -1), on(targets), on([1, 2, 3]), on(lengths))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("reduction", "grad"), [("mean", True), ("none", True), ("sum", False)])
def test_linear_cross_entropy_never_holds_all_scores(device, reduction, grad):
    rows, classes, features = 1024, 512, 4
    rng = np.random.default_rng(0)
    x = mlgpu.tensor(rng.standard_normal((rows, features)).astype(np.float32), device=device,
                     requires_grad=grad)
    weight = mlgpu.tensor(rng.standard_normal((classes, features)).astype(np.float32),
                          device=device, requires_grad=grad)
    target = mlgpu.tensor(rng.integers(0, classes, rows), device=device)
    mlgpu.memory.reset_peak(device)
    before = mlgpu.memory.stats(device).allocated
    loss = F.linear_cross_entropy(x, weight, target, reduction=reduction)
    if grad:
        loss.backward(mlgpu.ones_like(loss))
    scores = rows * classes * 4
    assert mlgpu.memory.stats(device).peak - before < scores * 3 / 4
    expected = F.cross_entropy(F.linear(x.detach(), weight.detach()), target, reduction=reduction)
    np.testing.assert_allclose(loss.detach().cpu().numpy(), expected.cpu().numpy(), 1e-5)


def norms(x, w, b):
    yield F.layer_norm(x.flatten(1), (x[0].numel(),))
    yield F.group_norm(x, 2, w, b)
    yield F.batch_norm(x, None, None, w, b, training=True)
    yield F.cross_entropy(x, on(np.zeros((x.shape[0], *x.shape[2:]), np.int64)))
    yield from F.add_layer_norm(x, x, x.shape[3:], w[:x.shape[3]], b[:x.shape[3]])


def test_the_same_bits_on_a_second_run():
    x, w, b = random(3, 12, 5, 7, requires_grad=True), random(12), random(12)
    w.requires_grad_(True)
    for first, second in zip(norms(x, w, b), norms(x, w, b), strict=True):
        dy = random(*first.shape)
        both = [mlgpu.autograd.grad([y], [x, w], [dy], allow_unused=True, retain_graph=True)
                for y in (first, second)]
        assert np.array_equal(first.detach().cpu().numpy(), second.detach().cpu().numpy())
        for one, other in zip(*both, strict=True):
            if one is not None:
                assert np.array_equal(one.cpu().numpy(), other.cpu().numpy())


@pytest.mark.parametrize("used", [(0,), (1,), (0, 1)])
def test_gradients_of_either_result_of_add_layer_norm(used):
    inputs = [random(4, 8, requires_grad=True) for _ in range(2)]
    weight = random(8, requires_grad=True)

    def gradients(results):
        dy = [random(4, 8) * (k + 1) for k in used]
        return mlgpu.autograd.grad([results[k] for k in used], [*inputs, weight], dy,
                                   allow_unused=True)

    total = inputs[0] + inputs[1]
    expected = gradients((total, F.layer_norm(total, (8,), weight)))
    for got, want in zip(gradients(F.add_layer_norm(*inputs, (8,), weight)), expected,
                         strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            np.testing.assert_allclose(got.cpu().numpy(), want.cpu().numpy(), 1e-5, 1e-5)


def test_operands_of_any_layout():
    x = random(6, 8, 5)
    turned = x.permute(2, 0, 1)
    assert not turned.is_contiguous()
    for f in (lambda x: F.softmax(x, 1), lambda x: F.layer_norm(x, (8,)),
              lambda x: F.batch_norm(x, None, None, training=True),
              lambda x: F.group_norm(x, 3)):
        np.testing.assert_allclose(f(turned).cpu().numpy(), f(turned.contiguous()).cpu().numpy())
    classes = on(np.zeros((5, 8), np.int64))
    weight = random(12)[::2]
    np.testing.assert_allclose(
        F.cross_entropy(turned, classes, weight).item(),
        F.cross_entropy(turned.contiguous(), classes, weight.contiguous()).item(), 1e-6)
    shifted = random(41)[1:].reshape(5, 8)  # not aligned to 16 bytes
    np.testing.assert_allclose(F.softmax(shifted, 1).cpu().numpy(),
                               F.softmax(shifted.clone(), 1).cpu().numpy(), 1e-6)
