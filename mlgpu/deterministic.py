"""Whether operations must give the same bits every time, as torch.use_deterministic_algorithms.

On the CPU they always do.  The flag is for operations that have a faster form on a device whose
result depends on timing: such a form consults it.
"""

from __future__ import annotations

__all__ = ["are_deterministic_algorithms_enabled", "is_deterministic_algorithms_warn_only_enabled",
           "use_deterministic_algorithms"]

_state = (False, False)  # deterministic, warn only; replaced as one, so no reader sees half of it


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Let operations of the whole process use deterministic algorithms only.

    Where there is none, an operation raises, or with `warn_only` warns.
    """
    global _state
    for name, value in (("mode", mode), ("warn_only", warn_only)):
        if not isinstance(value, bool):
            raise TypeError(f"use_deterministic_algorithms: {name} must be a bool, got {value!r}")
    _state = (mode, warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """Whether `use_deterministic_algorithms(True)` is in force."""
    return _state[0]


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """Whether operations without a deterministic form then only warn."""
    return _state[1]
