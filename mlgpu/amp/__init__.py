"""Mixed precision, under the names of torch.amp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlgpu.amp.custom import custom_bwd as custom_bwd
    from mlgpu.amp.custom import custom_fwd as custom_fwd
    from mlgpu.amp.grad_scaler import GradScaler as GradScaler
    from mlgpu.amp.region import autocast as autocast
    from mlgpu.amp.region import get_autocast_dtype as get_autocast_dtype
    from mlgpu.amp.region import is_autocast_available as is_autocast_available
    from mlgpu.amp.region import is_autocast_enabled as is_autocast_enabled
    from mlgpu.amp.region import set_autocast_dtype as set_autocast_dtype

# Imported when first used: every public function asks `mlgpu.amp.policy` about its name.
_HOMES = {"GradScaler": "grad_scaler", "custom_bwd": "custom", "custom_fwd": "custom"}
_NAMES = ("GradScaler", "autocast", "custom_bwd", "custom_fwd", "get_autocast_dtype",
          "is_autocast_available", "is_autocast_enabled", "set_autocast_dtype")


if not TYPE_CHECKING:  # a checker knows all names, and reports others
    def __getattr__(name: str) -> Any:
        if name not in _NAMES:
            raise AttributeError(f"module 'mlgpu.amp' has no attribute {name!r}")
        from importlib import import_module

        home = import_module(f"mlgpu.amp.{_HOMES.get(name, 'region')}")
        globals()[name] = found = getattr(home, name)
        return found


def __dir__() -> list[str]:
    return sorted(_NAMES)
