"""torch.utils.flop_counter: counting what a program computes, which here is a summary's part."""

from __future__ import annotations

from typing import Any

from mlgpu.errors import MissingNameError


class FlopCounterMode:
    """A block that counts; it can be made, entering it raises MissingNameError."""

    def __init__(self, *args: Any, **options: Any) -> None: ...

    def __enter__(self) -> Any:
        raise MissingNameError("torch.utils.flop_counter.FlopCounterMode: mlgpu counts a model's "
                               "operations in model.summary(input)")

    def __exit__(self, *exception: object) -> None: ...


def register_flop_formula(targets: Any, get_raw: bool = False) -> Any:
    """The function itself: nothing is counted by it."""
    return lambda formula: formula
