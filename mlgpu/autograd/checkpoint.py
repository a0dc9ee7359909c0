"""Activation checkpointing: save nothing in forward, compute it again in backward.

The non-reentrant form of PyTorch's torch.utils.checkpoint: what the function's operations would
save is dropped, and the first of them to be asked for makes the whole function run again, with
the same random numbers.  Works with `autograd.grad`, nested checkpoints and second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mlgpu.autograd.graph import Node
from mlgpu.autograd.mode import enable_grad, mode
from mlgpu.autograd.saved import Saved, saved_tensors_hooks
from mlgpu.errors import GraphError
from mlgpu.tensor import Tensor

__all__ = ["checkpoint", "checkpoint_sequential"]


class _Argument(NamedTuple):
    """A tensor given to the function, kept as saved values are: an outer checkpoint drops it."""

    saved: Saved
    requires_grad: bool


class _Frame(Node):
    """One checkpointed call: how to run it again, and the values from having done so."""

    name = "checkpoint"

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...],
                 kwargs: dict[str, Any], preserve_rng_state: bool) -> None:
        self.function = function
        self.args = tuple(self._kept(a) for a in args)
        self.kwargs = {name: self._kept(a) for name, a in kwargs.items()}
        self.rng = _rng_state() if preserve_rng_state else None
        self.autocast = None if mode.autocast is None else mode.autocast.again()
        self.values: list[tuple[Tensor, int]] = []
        self.metas: list[tuple[Any, Any]] = []
        self.running = True  # for the first time: it may itself ask for gradients, and so be rerun

    def _kept(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return _Argument(Saved(value.detach(), self), value.requires_grad)
        return value

    def _restart(self, value: Any) -> Any:
        """An argument cut off from its graph, as if the function were the whole program."""
        if isinstance(value, _Argument):
            return value.saved.tensor(self).requires_grad_(value.requires_grad)
        return value

    def pack(self, tensor: Tensor) -> int:
        self.metas.append((tensor.shape, tensor.dtype))
        return len(self.metas) - 1

    def unpack(self, index: int) -> Tensor:
        if not self.values:
            self.recompute()
        if len(self.values) != len(self.metas) and not self.running:
            raise GraphError(f"checkpoint: recomputing saved {len(self.values)} values where the "
                             f"first run saved {len(self.metas)}; the function must do the same "
                             "each time")
        value, version = self.values[index]
        if (value.shape, value.dtype) != self.metas[index]:
            raise GraphError(
                f"checkpoint: recomputing saved a {value.dtype!r} tensor of shape "
                f"{tuple(value.shape)} where the first run saved {self.metas[index][1]!r} of shape "
                f"{tuple(self.metas[index][0])}; the function must do the same each time")
        if value._version != version:
            raise GraphError(f"checkpoint: a value of shape {tuple(value.shape)} that backward "
                             "needs was changed in place by the function; clone() it before")
        return value

    def recompute(self) -> None:
        values: list[tuple[Tensor, int]] = []

        def keep(tensor: Tensor) -> Tensor:
            values.append((tensor, tensor._version))
            return tensor

        args = tuple(self._restart(a) for a in self.args)
        kwargs = {name: self._restart(a) for name, a in self.kwargs.items()}
        before, mode.autocast = mode.autocast, self.autocast
        try:
            with _restored_rng(self.rng), enable_grad(), saved_tensors_hooks(keep, lambda t: t):
                self.function(*args, **kwargs)
        finally:
            mode.autocast = before
        self.values = values


def _rng_state() -> Any:
    from mlgpu.random import get_rng_state

    return get_rng_state()


class _restored_rng:
    """Within it the random numbers start from `state`; after it they go on as before."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __enter__(self) -> None:
        if self.state is not None:
            from mlgpu.random import get_rng_state, set_rng_state

            self.outer = get_rng_state()
            set_rng_state(self.state)

    def __exit__(self, *exception: object) -> None:
        if self.state is not None:
            from mlgpu.random import set_rng_state

            set_rng_state(self.outer)


def checkpoint(function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None,
               preserve_rng_state: bool = True, **kwargs: Any) -> Any:
    """`function(*args, **kwargs)`, whose saved values are recomputed in backward, not kept.

    The function must do the same when run again; `preserve_rng_state` gives it the same random
    numbers.  `use_reentrant` is accepted for PyTorch's sake: there is one, non-reentrant, form.
    Raises GraphError in backward if the second run differs from the first or an argument was
    changed in place meanwhile.
    """
    if not mode.grad:
        return function(*args, **kwargs)
    frame = _Frame(function, args, kwargs, preserve_rng_state)
    with saved_tensors_hooks(frame.pack, frame.unpack):
        result = function(*args, **kwargs)
    frame.running, frame.values = False, []
    return result


def checkpoint_sequential(functions: Sequence[Callable[..., Any]] | Any, segments: int,
                          input: Any, use_reentrant: bool | None = None,
                          preserve_rng_state: bool = True) -> Any:
    """A chain of functions (or a Sequential) in `segments` checkpointed parts."""
    chain = list(functions.children()) if hasattr(functions, "children") else list(functions)
    size = max(len(chain) // segments, 1)
    starts = [i * size for i in range(min(segments, len(chain)))]
    for start, stop in zip(starts, [*starts[1:], len(chain)], strict=True):
        part = chain[start:stop]

        def run(value: Any, part: list[Any] = part) -> Any:
            for step in part:
                value = step(value)
            return value

        last = stop == len(chain)
        input = run(input) if last else checkpoint(run, input,
                                                   preserve_rng_state=preserve_rng_state)
    return input
