"""Tools for parameters and gradients, as torch.nn.utils; each is imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlgpu.nn.utils import rnn as rnn
    from mlgpu.nn.utils.clip_grad import clip_grad_norm_ as clip_grad_norm_
    from mlgpu.nn.utils.clip_grad import clip_grad_value_ as clip_grad_value_
    from mlgpu.nn.utils.clip_grad import clip_grads_with_norm_ as clip_grads_with_norm_
    from mlgpu.nn.utils.clip_grad import get_total_norm as get_total_norm
    from mlgpu.nn.utils.convert_parameters import parameters_to_vector as parameters_to_vector
    from mlgpu.nn.utils.convert_parameters import vector_to_parameters as vector_to_parameters
    from mlgpu.nn.utils.init import skip_init as skip_init

_HOME = {"clip_grad_norm_": "clip_grad", "clip_grad_value_": "clip_grad",
         "clip_grads_with_norm_": "clip_grad", "get_total_norm": "clip_grad",
         "parameters_to_vector": "convert_parameters",
         "vector_to_parameters": "convert_parameters", "skip_init": "init"}
_MODULES = {"rnn", *_HOME.values()}

__all__ = ["rnn"]
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
