"""torch.nn.init beside mlgpu's: the names without an underscore, which PyTorch deprecated in 2018.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

from mlgpu.nn import init
from mlgpu.nn.init import _calculate_fan_in_and_fan_out as _calculate_fan_in_and_fan_out
from mlgpu.nn.init import _fan as _calculate_correct_fan  # noqa: F401

_OLD = frozenset("""constant dirac eye kaiming_normal kaiming_uniform normal orthogonal sparse
    uniform xavier_normal xavier_uniform""".split())


def __getattr__(name: str) -> Any:
    if name not in _OLD:
        raise AttributeError(name)
    function = getattr(init, f"{name}_")

    @functools.wraps(function)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(f"nn.init.{name} is deprecated in favour of nn.init.{name}_", FutureWarning,
                      stacklevel=2)
        return function(*args, **kwargs)

    return renamed


def __dir__() -> list[str]:
    return sorted(_OLD)
