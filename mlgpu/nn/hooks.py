"""The hooks of a Module: what is called before and after its forward and its backward."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlgpu.autograd.mode import mode
from mlgpu.cpu import runtime as cpu
from mlgpu.errors import GraphError
from mlgpu.op import Op, run
from mlgpu.tensor import RemovableHandle, Tensor

if TYPE_CHECKING:
    from mlgpu.nn.module import Module

Registry = OrderedDict[int, Any]


class Hooks:
    """The hooks registered on one module, by when they are called."""

    def __init__(self) -> None:
        # Forward hooks stand with their options: (hook, with_kwargs[, always_call]).
        self.forward_pre: Registry = OrderedDict()
        self.forward: Registry = OrderedDict()
        self.backward_pre: Registry = OrderedDict()
        self.backward: Registry = OrderedDict()
        self.state_dict_pre: Registry = OrderedDict()
        self.state_dict_post: Registry = OrderedDict()
        self.load_state_dict_pre: Registry = OrderedDict()
        self.load_state_dict_post: Registry = OrderedDict()


def register(hooks: Registry, hook: Any, prepend: bool = False) -> RemovableHandle:
    """Add a hook, as the first to be called if `prepend`."""
    handle = RemovableHandle(hooks, hook)
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


def call(module: Module, hooks: Hooks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module.forward` with all hooks around it."""
    args, kwargs = _before_forward(module, hooks, args, kwargs)
    backward = None
    if (hooks.backward or hooks.backward_pre) and mode.grad:
        backward = BackwardHooks(module, hooks)
        args = backward.wrap_inputs(args)
    waiting = OrderedDict(hooks.forward)
    with _always_called(module, waiting, args, kwargs):
        result = module.forward(*args, **kwargs)
        while waiting:
            hook, with_kwargs, _ = waiting.popitem(last=False)[1]
            given = (module, args, kwargs, result) if with_kwargs else (module, args, result)
            replaced = hook(*given)
            if replaced is not None:
                result = replaced
    return result if backward is None else backward.wrap_outputs(result)


def _before_forward(module: Module, hooks: Hooks, args: tuple[Any, ...], kwargs: dict[str, Any]
                    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
    for hook, with_kwargs in list(hooks.forward_pre.values()):
        if not with_kwargs:
            replaced = hook(module, args)
            if replaced is not None:
                args = replaced if isinstance(replaced, tuple) else (replaced,)
            continue
        replaced = hook(module, args, kwargs)
        if replaced is not None:
            if not (isinstance(replaced, tuple) and len(replaced) == 2):
                raise TypeError("forward pre-hook: with kwargs it must return None or a tuple "
                                f"(args, kwargs), got {type(replaced).__name__}")
            args, kwargs = replaced
    return args, kwargs


@contextmanager
def _always_called(module: Module, waiting: Registry, args: tuple[Any, ...],
                   kwargs: dict[str, Any]) -> Iterator[None]:
    """If the body raises, call the always_call hooks that still wait, with no output."""
    try:
        yield
    except Exception:
        for hook, with_kwargs, always_call in waiting.values():
            if always_call:
                hook(*((module, args, kwargs, None) if with_kwargs else (module, args, None)))
        raise


class BackwardHooks:
    """One forward's full backward hooks: they see the gradients at its outputs and its inputs."""

    def __init__(self, module: Module, hooks: Hooks) -> None:
        self.module = module
        self.before = list(hooks.backward_pre.values())
        self.after = list(hooks.backward.values())
        self.inputs = 0
        self.grad_output: tuple[Any, ...] | None = None
        self.has_inputs = False

    def wrap_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.inputs = len(args)
        if self.after:
            args, self.has_inputs = self._wrap(args, self._at_inputs)
        return args

    def wrap_outputs(self, result: Any) -> Any:
        if isinstance(result, tuple):
            wrapped, _ = self._wrap(result, self._at_outputs)
            return type(result)(*wrapped) if hasattr(result, "_fields") else wrapped
        return self._wrap((result,), self._at_outputs)[0][0]

    def _wrap(self, values: tuple[Any, ...], observer: Callable[..., Any]
              ) -> tuple[tuple[Any, ...], bool]:
        places = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad]
        if not places:
            return values, False
        passage = ModuleBoundary(observer, places, len(values))
        outputs = run(passage, *(values[i] for i in places))
        wrapped = list(values)
        for place, output in zip(places, outputs, strict=True):
            wrapped[place] = output
        return tuple(wrapped), True

    def _at_outputs(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in self.before:
            grads = _replaced(hook(self.module, grads), grads, "full backward pre-hook")
        self.grad_output = grads
        if not self.has_inputs:  # no gradient arrives at the inputs: this is the last occasion
            nothing = (None,) * self.inputs
            for hook in self.after:
                _replaced(hook(self.module, nothing, grads), nothing, "full backward hook")
            self.grad_output = None
        return grads

    def _at_inputs(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.grad_output is None:
            raise GraphError("full backward hook: the gradient reached the module's inputs "
                             "without passing its outputs; use outputs of the module's own call")
        for hook in self.after:
            grads = _replaced(hook(self.module, grads, self.grad_output), grads,
                              "full backward hook")
        self.grad_output = None
        return grads


def _replaced(result: Any, grads: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if result is None:
        return grads
    replaced: tuple[Any, ...] = result if isinstance(result, tuple) else (result,)
    if len(replaced) != len(grads):
        raise GraphError(f"{name}: must return None or {len(grads)} gradients, got {len(replaced)}")
    return replaced


class ModuleBoundary(Op):
    """Copies of tensors that enter or leave a module, whose gradients an observer may replace."""

    # Copies, so that a module that works in place does not change what the graph outside knows.
    materialize = False

    def __init__(self, observer: Callable[..., Any], places: list[int], count: int) -> None:
        self.observer = observer
        self.places = places
        self.count = count

    def forward(self, *arrays: Any) -> tuple[Any, ...]:
        return tuple([cpu.copy(array) for array in arrays])

    def backward(self, *grads: Tensor | None) -> tuple[Any, ...]:
        seen: list[Any] = [None] * self.count
        for place, grad in zip(self.places, grads, strict=True):
            seen[place] = grad
        seen = list(self.observer(tuple(seen)))
        return tuple([seen[place] for place in self.places])
