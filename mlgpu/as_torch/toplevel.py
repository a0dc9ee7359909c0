"""What only the top of PyTorch has: its version, compilation, typed names of defaults, files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlgpu
from mlgpu import Tensor
from mlgpu.as_torch.absent_dtypes import ABSENT
from mlgpu.as_torch.dlpack import to_dlpack as to_dlpack
from mlgpu.as_torch.func import vmap as vmap
from mlgpu.as_torch.serialization import load as load
from mlgpu.as_torch.serialization import save as save
from mlgpu.as_torch.version import __version__ as __version__
from mlgpu.nn import functional

# Functions that PyTorch has both here and in nn.functional, with the same arguments.
_ALSO_FUNCTIONAL = frozenset("""
    adaptive_avg_pool1d avg_pool1d bilinear binary_cross_entropy_with_logits conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d cosine_embedding_loss ctc_loss
    hinge_embedding_loss margin_ranking_loss max_pool1d max_pool2d max_pool3d pairwise_distance
    pdist pixel_shuffle pixel_unshuffle poisson_nll_loss rms_norm triplet_margin_loss""".split())


def compile(model: Any = None, **options: Any) -> Any:
    """The function or module itself: mlgpu runs it as it is.  Also a decorator with options."""
    return model if model is not None else (lambda decorated: decorated)


def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1, *rest: Any) -> Tensor:
    """As nn.functional.embedding, with its first two arguments the other way round."""
    return functional.embedding(indices, weight, None if padding_idx < 0 else padding_idx)


def layer_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5, cudnn_enable: bool = True) -> Tensor:
    """As nn.functional.layer_norm."""
    return functional.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5, cudnn_enabled: bool = True) -> Tensor:
    """As nn.functional.group_norm."""
    return functional.group_norm(input, num_groups, weight, bias, eps)


def _safe_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """As softmax, with zeros for rows that are -inf throughout."""
    nothing = (input == -mlgpu.inf).all(dim, keepdim=True)
    return mlgpu.softmax(input.masked_fill(nothing, 0), dim, dtype).masked_fill(nothing, 0)


def set_default_tensor_type(t: Any) -> None:
    """Make a class such as torch.cuda.FloatTensor, or its name, what new tensors are."""
    from mlgpu.typed import typed

    kind = typed(t)
    mlgpu.set_default_dtype(kind.dtype)
    mlgpu.set_default_device(kind.device)


def set_warn_always(b: bool) -> None:
    """Nothing: Python's own filters decide how often a warning is shown."""


def set_num_interop_threads(int: int) -> None:
    """Nothing: operations do not run beside each other on the CPU."""


def get_num_interop_threads() -> int:
    """How many operations run beside each other on the CPU."""
    return 1


def __getattr__(name: str) -> Any:
    if name in _ALSO_FUNCTIONAL:
        return getattr(functional, name)
    if name.endswith("_") and not name.startswith("_"):
        method = getattr(Tensor, name, None)  # torch.exp_(x) is x.exp_()
        if isinstance(method, Callable):  # type: ignore[arg-type]
            return method
    if name in ABSENT:
        return ABSENT[name]
    if name == "GradScaler":
        return mlgpu.amp.GradScaler
    if name in ("Event", "Stream"):
        from mlgpu.as_torch import cuda

        return getattr(mlgpu.cuda if mlgpu.cuda.is_available() else cuda, name)
    raise AttributeError(name)


