"""Tools for parameters and gradients, as torch.nn.utils; each is imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlgpu.nn.utils import parametrizations as parametrizations
    from mlgpu.nn.utils import parametrize as parametrize
    from mlgpu.nn.utils import prune as prune
    from mlgpu.nn.utils import rnn as rnn
    from mlgpu.nn.utils.clip_grad import clip_grad_norm_ as clip_grad_norm_
    from mlgpu.nn.utils.clip_grad import clip_grad_value_ as clip_grad_value_
    from mlgpu.nn.utils.clip_grad import clip_grads_with_norm_ as clip_grads_with_norm_
    from mlgpu.nn.utils.clip_grad import get_total_norm as get_total_norm
    from mlgpu.nn.utils.convert_parameters import parameters_to_vector as parameters_to_vector
    from mlgpu.nn.utils.convert_parameters import vector_to_parameters as vector_to_parameters
    from mlgpu.nn.utils.fusion import fuse_conv_bn_eval as fuse_conv_bn_eval
    from mlgpu.nn.utils.fusion import fuse_conv_bn_weights as fuse_conv_bn_weights
    from mlgpu.nn.utils.fusion import fuse_linear_bn_eval as fuse_linear_bn_eval
    from mlgpu.nn.utils.fusion import fuse_linear_bn_weights as fuse_linear_bn_weights
    from mlgpu.nn.utils.init import skip_init as skip_init
    from mlgpu.nn.utils.norm_hooks import remove_spectral_norm as remove_spectral_norm
    from mlgpu.nn.utils.norm_hooks import remove_weight_norm as remove_weight_norm
    from mlgpu.nn.utils.norm_hooks import spectral_norm as spectral_norm
    from mlgpu.nn.utils.norm_hooks import weight_norm as weight_norm

_HOME = {"clip_grad_norm_": "clip_grad", "clip_grad_value_": "clip_grad",
         "clip_grads_with_norm_": "clip_grad", "get_total_norm": "clip_grad",
         "parameters_to_vector": "convert_parameters",
         "vector_to_parameters": "convert_parameters",
         "fuse_conv_bn_eval": "fusion", "fuse_conv_bn_weights": "fusion",
         "fuse_linear_bn_eval": "fusion", "fuse_linear_bn_weights": "fusion", "skip_init": "init",
         "remove_spectral_norm": "norm_hooks", "remove_weight_norm": "norm_hooks",
         "spectral_norm": "norm_hooks", "weight_norm": "norm_hooks"}
_MODULES = {"parametrizations", "parametrize", "prune", "rnn", *_HOME.values()}

__all__ = ["parametrizations", "parametrize", "prune", "rnn"]
__all__ += _HOME


if not TYPE_CHECKING:  # a checker knows all names, and reports others
    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"mlgpu.nn.utils.{name}")
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"mlgpu.nn.utils.{_HOME[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
