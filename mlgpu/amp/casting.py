"""What `autocast` does to the arguments of an operation, and the casts of weights it keeps."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from mlgpu import dtypes
from mlgpu.amp.policy import FULL, LOWER, WIDEST
from mlgpu.autograd.mode import mode
from mlgpu.dtypes import dtype as DType
from mlgpu.ops.cast import cast
from mlgpu.tensor import Tensor

HALVES = (dtypes.float16, dtypes.bfloat16)


class _Kept(NamedTuple):
    """The cast of a weight, and what it was made from and for."""

    weight: weakref.ref[Tensor]
    version: int
    recorded: bool
    capture: Any
    result: Tensor


class Casting:
    """The precision of a thread's operations: the lower dtype of each device type.

    Weights (leaves that require a gradient) are cast once: the result is kept until the outermost
    `autocast` ends, unless the weight is changed meanwhile.
    """

    def __init__(self, lower: dict[str, DType], kept: dict[Any, _Kept] | None) -> None:
        self.lower, self.kept = lower, kept

    def again(self) -> Casting:
        """The same precision for a computation at another time, such as a checkpoint's second."""
        return Casting(self.lower, None)

    def call(self, name: str, function: Callable[..., Any], args: tuple[Any, ...],
             kwargs: dict[str, Any]) -> Any:
        """`function` of the arguments as its policy wants them; what it calls is left alone."""
        change = self._change(name, (*args, *kwargs.values()))
        args = tuple([change(a) for a in args])
        kwargs = {key: change(value) for key, value in kwargs.items()}
        before, mode.autocast = mode.autocast, None
        try:
            return function(*args, **kwargs)
        finally:
            mode.autocast = before

    def elementwise(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of an elementwise operation as its policy wants them."""
        return tuple([self._full(a) for a in args]) if name in FULL else args

    def _change(self, name: str, values: tuple[Any, ...]) -> Callable[[Any], Any]:
        if name in LOWER:
            return self._within(self._lowered)
        if name in FULL:
            return self._within(self._full)
        assert name in WIDEST
        flat = [t for v in values for t in (v if isinstance(v, (list, tuple)) else (v,))]
        found = {t.dtype for t in flat if self._eligible(t)}
        if len(found) < 2:
            return lambda value: value
        # Two half types have float32 above them, as promotion has it.
        return self._within(lambda value: self._in(value, dtypes.float32))

    def _eligible(self, value: Any) -> bool:
        return (isinstance(value, Tensor) and value.dtype.is_floating_point
                and value.dtype is not dtypes.float64 and value.device.type in self.lower)

    def _within(self, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`change` of tensors, and of those in a list or tuple (states, operands of einsum)."""

        def changed(value: Any) -> Any:
            if isinstance(value, Tensor):
                return change(value)
            if type(value) in (list, tuple):
                return type(value)([changed(v) for v in value])
            return value

        return changed

    def _in(self, value: Any, dtype: DType) -> Any:
        return cast(value, dtype) if self._eligible(value) else value

    def _full(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype in HALVES and value.device.type in self.lower:
            return cast(value, dtypes.float32)
        return value

    def _lowered(self, value: Tensor) -> Tensor:
        if not self._eligible(value) or value.dtype is (dtype := self.lower[value.device.type]):
            return value
        if self.kept is None or not (value.requires_grad and value.is_leaf):
            return cast(value, dtype)
        key = id(value), dtype
        kept = self.kept.get(key)
        state = value._version, mode.grad, mode.capture
        if kept is None or kept.weight() is not value or kept[1:4] != state:
            kept = self.kept[key] = _Kept(weakref.ref(value), *state, cast(value, dtype))
        return kept.result
