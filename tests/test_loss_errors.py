"""What losses, look-ups and attention refuse: the type of the error, and that it says why."""

from __future__ import annotations

import numpy as np
import pytest

import mlgpu
from mlgpu.errors import DerivativeError, DTypeError, PositionError, ShapeError
from mlgpu.nn import functional as F


def t(*shape, dtype=mlgpu.float64):
    """Different values between 0 and 1."""
    return mlgpu.tensor((np.arange(1, np.prod(shape, dtype=int) + 1) / 100).reshape(shape),
                        dtype=dtype)


def i(*values):
    return mlgpu.tensor(values)


ONE, TWO = t(2, 3), t(2, 4)
CLASSES, SIGNS = i(0, 2), t(2)
TARGETS = {"multi_margin_loss": CLASSES, "nll_loss": CLASSES, "cross_entropy": CLASSES,
           "multilabel_margin_loss": i([0, -1, 1], [2, 1, -1])}
SIMPLE = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
          "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss", "soft_margin_loss",
          "hinge_embedding_loss", "multilabel_soft_margin_loss", *TARGETS]
TRIPLES = {"margin_ranking_loss": (ONE, ONE, ONE), "cosine_embedding_loss": (ONE, ONE, SIGNS),
           "triplet_margin_loss": (ONE, ONE, ONE), "gaussian_nll_loss": (ONE, ONE, ONE),
           "triplet_margin_with_distance_loss": (ONE, ONE, ONE),
           "ctc_loss": (F.log_softmax(t(4, 2, 3), -1), i([1, 2], [1, 1]), i(4, 4), i(2, 1))}


def arguments(name):
    return TRIPLES.get(name) or (ONE, TARGETS.get(name, ONE))


@pytest.mark.parametrize("name", [*SIMPLE, *TRIPLES])
def test_reduction(name):
    with pytest.raises(ShapeError, match=f"{name}: reduction must be.*'average'"):
        getattr(F, name)(*arguments(name), reduction="average")


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.filterwarnings("ignore:kl_div")
@pytest.mark.parametrize("name", [n for n in [*SIMPLE, *TRIPLES] if n != "ctc_loss"])
def test_shapes(name):
    first, second, *rest = arguments(name)
    wrong = second[:, :2] if second.ndim == 2 else i(0, 1, 2)
    with pytest.raises(ShapeError, match=r"\(2, 2\)|\(3,\)"):
        getattr(F, name)(first, wrong, *rest)


@pytest.mark.parametrize("name", ["mse_loss", "smooth_l1_loss", "huber_loss", "kl_div",
                                  "binary_cross_entropy", "binary_cross_entropy_with_logits",
                                  "soft_margin_loss", "hinge_embedding_loss",
                                  "multilabel_soft_margin_loss", *TARGETS])
def test_integers(name):
    target = TARGETS.get(name, i([1, 0, 1], [0, 1, 1]))
    with pytest.raises(DTypeError, match=f"{name}: .*int64"):
        getattr(F, name)(i([1, 0, 1], [0, 1, 1]), target, reduction="sum")


WRONG = [
    # --- elementwise
    (lambda: F.mse_loss(ONE, ONE, weight=t(3)), ShapeError, "mse_loss: weight"),
    (lambda: F.huber_loss(ONE, ONE, weight=t(3)), ShapeError, "huber_loss: weight"),
    (lambda: F.huber_loss(ONE, ONE, delta=0.0), ShapeError, "delta must be positive, got 0"),
    (lambda: F.smooth_l1_loss(ONE, ONE, beta=-1.0), ShapeError, "beta must not be negative"),
    (lambda: F.binary_cross_entropy(ONE * 100, ONE), ShapeError, "input must be between 0 and 1"),
    (lambda: F.binary_cross_entropy(ONE / 0, ONE), ShapeError, "input must be between 0 and 1"),
    (lambda: F.binary_cross_entropy(ONE, -ONE), ShapeError, "target must be between 0 and 1"),
    (lambda: F.binary_cross_entropy(ONE, ONE.float()), DTypeError, "float64 as the input"),
    (lambda: F.binary_cross_entropy(t(3), t(3), t(2, 3)), ShapeError, "weight must broadcast"),
    (lambda: F.binary_cross_entropy_with_logits(ONE, ONE, pos_weight=t(2)), ShapeError,
     "broadcast"),
    (lambda: F.binary_cross_entropy_with_logits(t(3), t(3), t(2, 3)), ShapeError,
     "weight must broadcast"),
    (lambda: F.binary_cross_entropy_with_logits(ONE, ONE.long()), DTypeError, "target"),
    (lambda: F.gaussian_nll_loss(ONE, ONE, -ONE), ShapeError, "var must not be negative"),
    (lambda: F.gaussian_nll_loss(ONE, ONE, t(2, 2)), ShapeError, r"var.*\(2, 3\).*\(2, 2\)"),
    # --- pairs and triples
    (lambda: F.margin_ranking_loss(ONE, ONE, t(2)), ShapeError, "same number of dimensions"),
    (lambda: F.cosine_embedding_loss(ONE, ONE, t(2, 1)), ShapeError, r"targets \(n,\)"),
    (lambda: F.triplet_margin_loss(ONE, ONE, ONE, margin=0.0), ShapeError, "greater than 0"),
    (lambda: F.triplet_margin_loss(ONE, t(3), ONE), ShapeError, "same number of dimensions"),
    (lambda: F.triplet_margin_with_distance_loss(ONE, ONE, ONE, margin=-1.0), ShapeError,
     "triplet_margin_with_distance_loss: margin"),
    # --- classes
    (lambda: F.cross_entropy(ONE, i(0, 3)), IndexError, "target 3 is out of range for 3"),
    (lambda: F.cross_entropy(ONE, i(0, -1)), IndexError, "target -1 is out of range"),
    (lambda: F.nll_loss(ONE, i(0, 3)), IndexError, "nll_loss: target 3"),
    (lambda: F.cross_entropy(ONE, i(0, 1).int()), DTypeError, r"int32.*\.long\(\)"),
    (lambda: F.cross_entropy(ONE, t(2, 2)), ShapeError, r"input's shape \(2, 3\)"),
    (lambda: F.cross_entropy(t(2, 2), i([0, 1], [1, 0])), DTypeError, "probabilities"),
    (lambda: F.cross_entropy(ONE, ONE, ignore_index=1), ShapeError, "ignore_index"),
    (lambda: F.cross_entropy(ONE, CLASSES, t(2)), ShapeError, r"weight must be \(3,\)"),
    (lambda: F.cross_entropy(ONE, CLASSES, t(3).float()), DTypeError, "weight must be float64"),
    (lambda: F.cross_entropy(ONE, CLASSES, t(3).requires_grad_()), DerivativeError, "detach"),
    (lambda: F.cross_entropy(ONE, CLASSES, label_smoothing=1.5), ShapeError, "between 0 and 1"),
    (lambda: F.multi_margin_loss(ONE, i(0, 3)), IndexError, "3"),
    (lambda: F.multi_margin_loss(ONE, CLASSES, p=3), ShapeError, "p must be 1 or 2"),
    (lambda: F.multi_margin_loss(ONE, CLASSES, weight=t(3).float()), DTypeError, "weight"),
    (lambda: F.multilabel_margin_loss(ONE, i([0, 3, -1], [0, 1, 2])), IndexError,
     "multilabel_margin_loss: target 3"),
    # --- ctc
    (lambda: ctc(i([1, 3], [1, 1])), IndexError, "label 3 is out of range for 3"),
    (lambda: ctc(i([1, 2], [1, 1]), inputs=i(5, 4)), ShapeError, "input_lengths.*4.*got 5"),
    (lambda: ctc(i([1, 2], [1, 1]), inputs=i(4)), ShapeError, "each of 2 examples"),
    (lambda: ctc(i([1, 2], [1, 1]), lengths=i(-1, 1)), ShapeError, "must not be negative"),
    (lambda: ctc(i([1, 2], [1, 1]), lengths=i(3, 1)), ShapeError, "at least 3"),
    (lambda: ctc(i(1, 2)), ShapeError, "must have 3 labels"),
    (lambda: ctc(i([1, 2], [1, 1]), blank=3), ShapeError, "blank"),
    # --- look-ups
    (lambda: F.embedding(i(0, 4), t(4, 3)), IndexError, "index 4 is out of range for 4 rows"),
    (lambda: F.embedding(i(-1), t(4, 3)), IndexError, "index -1"),
    (lambda: F.embedding(t(2), t(4, 3)), DTypeError, "int64 or int32, got float64"),
    (lambda: F.embedding(i(0), t(4)), ShapeError, "2 dimensions"),
    (lambda: F.embedding(i(0), t(4, 3), 4), ShapeError, "padding_idx"),
    (lambda: F.embedding(i(0), t(4, 3), sparse=True), DerivativeError, "dense"),
    (lambda: F.one_hot(i(0, 3), 3), IndexError, "class 3"),
    (lambda: F.one_hot(i(0, -1)), IndexError, "negative"),
    (lambda: F.one_hot(mlgpu.empty(0, dtype=mlgpu.int64), 0), ShapeError, "inferred"),
    (lambda: bags(i(0, 4)), IndexError, "embedding_bag: index 4"),
    (lambda: bags(i(0, 1), offsets=i(1)), ShapeError, "begin with 0, got 1"),
    (lambda: bags(i(0, 1), offsets=i(0, 3)), ShapeError, "within the 2 elements.*got 3"),
    (lambda: bags(i(0, 1), offsets=i(0, 2, 1)), ShapeError, "must not decrease"),
    (lambda: bags(i(0, 1), offsets=None), ShapeError, r"input \(n,\) with offsets"),
    (lambda: bags(i([0, 1])), ShapeError, "offsets"),
    (lambda: bags(i(0, 1), mode="min"), ShapeError, "'sum', 'mean' or 'max', got 'min'"),
    (lambda: bags(i(0, 1), mode="max", scale_grad_by_freq=True), ShapeError, "max"),
    (lambda: bags(i(0, 1), sparse=True), DerivativeError, "dense"),
    (lambda: bags(i(0, 1), mode="sum", per_sample_weights=t(3)), ShapeError, "shape of input"),
    (lambda: bags(i(0, 1), mode="sum", per_sample_weights=t(2).float()), DTypeError, "float64"),
    (lambda: bags(i(0, 1), per_sample_weights=t(2)), NotImplementedError, "mode='sum'"),
    # --- attention
    (lambda: heads(attn_mask=t(5, 3)), ShapeError, r"attn_mask must be \(2, 4\)"),
    (lambda: heads(attn_mask=mlgpu.ones(2, 4).long()), DTypeError, "attn_mask must be bool"),
    (lambda: heads(key_padding_mask=t(3, 4)), ShapeError, r"key_padding_mask must be \(1, 4\)"),
    (lambda: heads(is_causal=True), ShapeError, "pass the mask too"),
    (lambda: heads(bias_k=t(1, 1, 6)), ShapeError, "go together"),
    (lambda: heads(num_heads=4), ShapeError, "num_heads"),
    (lambda: heads(in_proj_weight=t(6, 6)), ShapeError, r"in_proj_weight must be \(18, 6\)"),
    (lambda: heads(static_k=t(3, 4, 3)), ShapeError, r"static_k.*\(3, s, 2\)"),
    (lambda: F.scaled_dot_product_attention(ONE, TWO, TWO), ShapeError, "expected"),
    (lambda: F.scaled_dot_product_attention(ONE, ONE, ONE, t(2, 2), is_causal=True), ShapeError,
     "either attn_mask or is_causal"),
    (lambda: F.scaled_dot_product_attention(t(2, 3, 4), t(2, 5, 4), t(2, 5, 4),
                                            key_lengths=t(2)), DTypeError, "key_lengths must be"),
    (lambda: F.scaled_dot_product_attention(t(2, 3, 4), t(2, 5, 4), t(2, 5, 4),
                                            key_lengths=mlgpu.tensor([1])), ShapeError,
     r"key_lengths must have one length .*\(2,\), got \(1,\)"),
    (lambda: F.scaled_dot_product_attention(ONE, ONE, ONE, key_lengths=mlgpu.tensor([1])),
     ShapeError, "key_lengths needs a batch"),
    (lambda: F.scaled_dot_product_attention(t(2, 3, 4), t(2, 5, 4), t(2, 5, 4), enable_gqa=True,
                                            key_lengths=mlgpu.tensor([1])), ShapeError,
     "before the heads"),
    (lambda: F.scaled_dot_product_attention(t(2, 3, 4), t(2, 5, 4), t(2, 5, 4),
                                            key_lengths=mlgpu.tensor([6, 1])), PositionError,
     "key_lengths has 6, which is not between 0 and 5"),
    # --- distances
    (lambda: F.cosine_similarity(i(1, 2), i(1, 2), 0), DTypeError, "int64"),
    (lambda: F.cosine_similarity(ONE, ONE, 2), IndexError, "out of range: 2"),
    (lambda: F.pairwise_distance(ONE, TWO), ShapeError, "broadcast"),
    (lambda: F.local_response_norm(ONE, 2), ShapeError, "at least 3 dimensions"),
    (lambda: F.local_response_norm(t(1, 2, 3), 0), ShapeError, "size must be at least 1"),
    (lambda: F.pdist(t(1, 2, 3)), ShapeError, "2"),
]


def ctc(targets, inputs=i(4, 4), lengths=i(2, 1), **options):  # noqa: B008
    return F.ctc_loss(F.log_softmax(t(4, 2, 3), -1), targets, inputs, lengths, **options)


def bags(input, offsets=i(0), **options):  # noqa: B008
    return F.embedding_bag(input, t(4, 3), offsets, **options)


def heads(num_heads=3, in_proj_weight=t(18, 6), bias_k=None, **options):  # noqa: B008
    key = t(4, 1, 6)
    return F.multi_head_attention_forward(t(2, 1, 6), key, key, 6, num_heads, in_proj_weight, None,
                                          bias_k, None, False, 0.0, t(6, 6), None, **options)


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=lambda v: getattr(
    v, "__name__", v).strip("<>"))
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_different_sizes_warn(name):
    with pytest.warns(UserWarning, match="different to the input size"):
        assert getattr(F, name)(ONE, t(3)).shape == ()


def test_kl_div_mean_warns():
    target = np.full((2, 3), 0.25)
    with pytest.warns(UserWarning, match="batchmean"):
        found = F.kl_div(ONE, mlgpu.tensor(target))
    expected = (target * (np.log(target) - ONE.numpy())).mean()
    np.testing.assert_allclose(found.item(), expected, rtol=1e-12)


@pytest.mark.parametrize(("old", "new"), [({"size_average": False}, "sum"), ({"reduce": False},
                         "none"), ({"size_average": True}, "mean")])
def test_old_arguments(old, new):
    with pytest.warns(UserWarning, match=f"reduction='{new}'"):
        found = F.binary_cross_entropy(ONE, ONE, **old)
    assert found.tolist() == F.binary_cross_entropy(ONE, ONE, reduction=new).tolist()
