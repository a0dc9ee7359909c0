"""torch._foreach_*: one operation for each tensor of a list, as packages' optimizers write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlgpu
from mlgpu import Tensor

PREFIX = "_foreach_"


def find(name: str) -> Callable[..., Any] | None:
    """The function of such a name, where Tensor or mlgpu has the operation; else None."""
    operation = name.removeprefix(PREFIX)
    single = getattr(Tensor, operation, None) or getattr(mlgpu, operation, None)
    return None if single is None else _for_each(operation, single)


def _group_tensors_by_device_and_dtype(tensorlistlist: Sequence[Sequence[Tensor | None]],
                                       with_indices: bool = False) -> dict[Any, Any]:
    """Lists of as many tensors each, taken apart by device and dtype of those of the first."""
    groups: dict[Any, tuple[list[list[Tensor | None]], list[int]]] = {}
    for i, first in enumerate(tensorlistlist[0]):
        assert first is not None
        lists, indices = groups.setdefault((first.device, first.dtype),
                                           ([[] for _ in tensorlistlist], []))
        for part, whole in zip(lists, tensorlistlist, strict=True):
            if whole:
                part.append(whole[i])
        indices.append(i)
    return groups


def _for_each(operation: str, single: Callable[..., Any]) -> Callable[..., Any]:
    def called(self: Sequence[Tensor], *args: Any, **kwargs: Any) -> list[Tensor] | None:
        if operation in ("addcdiv", "addcmul", "addcdiv_", "addcmul_") and len(args) == 3:
            *args, kwargs["value"] = args  # type: ignore[assignment]
        made = []
        for i, tensor in enumerate(self):
            own = [_part(a, i) for a in args]
            made.append(single(tensor, *own, **{key: _part(v, i) for key, v in kwargs.items()}))
        return None if operation.endswith("_") else made

    called.__name__ = f"{PREFIX}{operation}"
    return called


def _part(value: Any, i: int) -> Any:
    """What an argument is for the i-th tensor: a list has one for each."""
    return value[i] if isinstance(value, (list, tuple)) else value
