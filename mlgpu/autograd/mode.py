"""Whether operations record a graph: a per-thread switch with PyTorch's context managers."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class _Mode(threading.local):
    grad = True
    inference = False
    frees = False  # whether the graph that is walked is freed on the way
    autocast: Any = None  # the precision within `autocast` (mlgpu.amp.casting.Casting)
    rematerializer: Any = None  # of `checkpoint.auto` (mlgpu.autograd.rematerialize)
    capture: Any = None  # the graph that is captured (mlgpu.cuda.graphs.Capture), if one is


mode = _Mode()

# How many profiles and hooks on saved values there are in the process.  They see every operation,
# so that none takes a short way while there are any.
observers = 0

# These, inference modes, and what `mlgpu.memory` watches for: while there is any, operations do
# not go without asking about each.
special = 0


def observe(change: int) -> None:
    """Count one observer more (1) or one less (-1)."""
    global observers, special
    observers += change  # a line without a call: no other thread comes in between
    special += change


def heed(change: int) -> None:
    """Count one more (1) or one less (-1) of what is special without being an observer."""
    global special
    special += change


class _Context:
    """A reusable, re-entrant context manager and decorator over the thread's mode."""

    def __init__(self, grad: bool, inference: bool | None = None) -> None:
        self._target = (grad, inference)
        self._before: list[tuple[bool, bool | None]] = []  # None: it is not changed

    def __enter__(self) -> None:
        grad, inference = self._target
        if inference is None:
            self._before.append((mode.grad, None))
        else:
            self._before.append((mode.grad, mode.inference))
            heed(inference - mode.inference)
            mode.inference = inference
        mode.grad = grad

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        mode.grad, inference = self._before.pop()
        if inference is not None:
            heed(inference - mode.inference)
            mode.inference = inference

    def __call__(self, function: F) -> F:
        target = self._target
        if inspect.isgeneratorfunction(function):
            return self._around_generator(function)  # type: ignore[return-value]

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _Context(*target):  # its own object: the function may run in many threads
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    def _around_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The mode holds while the generator runs, not while its user does."""
        target = self._target

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            step, value = generator.send, None
            while True:
                try:
                    with _Context(*target):
                        yielded = step(value)
                except StopIteration as stop:
                    return stop.value
                try:
                    step, value = generator.send, (yield yielded)
                except GeneratorExit:
                    with _Context(*target):
                        generator.close()
                    raise
                except BaseException as error:
                    step, value = generator.throw, error

        return wrapped


class no_grad(_Context):
    """Within it (or in a function decorated with it) nothing is recorded."""

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        super().__init__(False)

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        if function is None:
            return self
        self.__init__()  # type: ignore[misc]
        return self(function)  # @no_grad without parentheses


class enable_grad(_Context):
    """Within it operations are recorded, also inside `no_grad`."""

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        super().__init__(True)

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        if function is None:
            return self
        self.__init__()  # type: ignore[misc]
        return self(function)


class inference_mode(_Context):
    """As `no_grad`, and tensors made within can never take part in a graph later."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(not mode, mode)

    def __new__(cls, mode: Any = True) -> Any:
        self = super().__new__(cls)
        if isinstance(mode, bool):
            return self
        self.__init__()  # type: ignore[misc]
        return self(mode)  # @inference_mode without parentheses


class set_grad_enabled(_Context):
    """Switch recording on or off, at once and, used as a context, until it ends."""

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        self._outside = (is_grad_enabled(), is_inference_mode_enabled())
        _set(mode)

    def __enter__(self) -> None:
        self._before.append(self._outside)
        _set(self._target[0])

    def __call__(self, function: F) -> F:
        _set(self._outside[0])  # a decorator switches only while the function runs
        return super().__call__(function)


def _set(grad: bool) -> None:
    mode.grad = grad


def is_grad_enabled() -> bool:
    """Whether this thread records operations."""
    return mode.grad


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside `inference_mode`."""
    return mode.inference
