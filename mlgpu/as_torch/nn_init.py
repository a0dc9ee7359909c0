"""torch.nn.init beside mlgpu's: the names without an underscore, which PyTorch deprecated in 2018.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

from mlgpu.nn import init

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
