"""Which operations autocast runs in which precision: the one table.

It is PyTorch's for CUDA, with the functions that only PyTorch's table for the CPU names; it holds
for every device, so that a program computes on the CPU what it will compute on a GPU.  What is not
named runs in the dtypes that it is given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from mlgpu.autograd.mode import mode

F = TypeVar("F", bound=Callable[..., Any])

# Products, which tensor cores multiply and which sum in float32 inside.
LOWER = frozenset("""
    addbmm addmm addmv addr baddbmm bilinear bmm chain_matmul einsum inner linear matmul mm
    multi_dot mv outer tensordot vecdot
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    multi_head_attention_forward prelu scaled_dot_product_attention self_attention
    gru_cell lstm_cell recurrent_layer rnn_relu_cell rnn_tanh_cell
""".split())

# What loses too much in a half type: sums, powers and what is close to a pole, norms, losses.
FULL = frozenset("""
    acos arccos asin arcsin cosh erfinv exp expm1 log log10 log1p log2 pow reciprocal rsqrt sinh
    softplus tan
    cumprod cumsum prod sum norm normalize
    log_softmax softmax softmin
    add_layer_norm add_rms_norm group_norm layer_norm local_response_norm rms_norm
    cdist cosine_similarity deform_conv2d pairwise_distance pdist
    binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy
    ctc_loss gaussian_nll_loss hinge_embedding_loss huber_loss kl_div l1_loss linear_cross_entropy
    margin_ranking_loss mse_loss multi_margin_loss multilabel_margin_loss
    multilabel_soft_margin_loss nll_loss poisson_nll_loss smooth_l1_loss soft_margin_loss
    triplet_margin_loss triplet_margin_with_distance_loss
    nanquantile polar quantile stft trace
    cholesky cholesky_ex cholesky_inverse cholesky_solve cond det eig eigh eigvals eigvalsh geqrf
    householder_product inv inv_ex inverse ldl_factor ldl_factor_ex ldl_solve linalg_norm logdet
    lstsq lu lu_factor lu_factor_ex lu_solve lu_unpack matrix_exp matrix_norm matrix_power
    matrix_rank ormqr pca_lowrank pinv pinverse qr slogdet solve solve_ex solve_triangular svd
    svd_lowrank svdvals tensorinv tensorsolve triangular_solve vector_norm
    fft fft2 fftn hfft hfft2 hfftn ifft ifft2 ifftn ihfft ihfft2 ihfftn irfft irfft2 irfftn rfft
    rfft2 rfftn
""".split())

# What takes tensors of one dtype: the widest of those given.
WIDEST = frozenset("""
    cat column_stack concat concatenate cross dot dstack grid_sample hstack index_copy index_put
    linalg_cross row_stack scatter_add stack vdot vstack
""".split())


def by_policy(function: F, name: str | None = None) -> F:
    """`function`, whose arguments autocast converts as the table says of its name."""
    name = name or function.__name__
    if name not in LOWER and name not in FULL and name not in WIDEST:
        return function

    @functools.wraps(function)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        casting = mode.autocast
        if casting is None:
            return function(*args, **kwargs)
        return casting.call(name, function, args, kwargs)

    return chosen  # type: ignore[return-value]
