"""LRScheduler: sets the learning rates of an optimizer's groups, step by step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mlgpu.autograd.mode import mode
from mlgpu.errors import ShapeError
from mlgpu.optim.ahead import Ahead
from mlgpu.optim.optimizer import Optimizer
from mlgpu.tensor import Tensor

Step = TypeVar("Step", bound=Callable[..., None])


def follows_replays(step: Step) -> Step:
    """A `step` that, called while a CUDA graph is captured, is taken after each replay instead.

    The graph has moved its own copy of the rates on by then, where those are known before.
    """
    @functools.wraps(step)
    def wrapped(self: LRScheduler, *args: Any, **kwargs: Any) -> None:
        capture = mode.capture
        if capture is None:
            step(self, *args, **kwargs)
        else:
            Ahead.of(self.optimizer, capture).step(self, step, args, kwargs)
            capture.effects.append(functools.partial(step, self, *args, **kwargs))

    return wrapped  # type: ignore[return-value]


class LRScheduler:
    """What schedulers derive from, as torch's: a subclass defines `get_lr()`.

    `last_epoch` counts the steps, from 0 after construction; `base_lrs` are the groups' rates at
    the beginning.  To go on at a later step, give that `last_epoch` to an optimizer whose groups
    still have their "initial_lr" (KeyError otherwise), or use the state_dict.
    """

    _is_initial = False
    _closed = False  # whether rates depend on the scheduler's own state alone

    def _foreseeable(self) -> bool:
        """Whether a copy of this scheduler tells what its steps will set."""
        return bool(vars(type(self)).get("_closed"))  # what derives from one may do anything

    def _place(self) -> Any:
        """How far it is, to compare with what a copy foresaw."""
        return self.last_epoch

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: expected an Optimizer, got "
                            f"{type(optimizer).__name__}")
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", float(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(f"{type(self).__name__}: group {number} has no 'initial_lr', which "
                               f"last_epoch={last_epoch} needs; load the optimizer's state first")
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._is_initial = True
        self.step()
        self._is_initial = False

    def get_lr(self) -> list[float]:
        """The rates of the step that `last_epoch` says, from those of the step before."""
        raise NotImplementedError(f"{type(self).__name__}: get_lr is not defined")

    def _get_closed_form_lr(self) -> list[float]:
        """The rates of step `last_epoch` from `base_lrs` alone, for a jump to it."""
        return self.get_lr()

    def get_last_lr(self) -> list[float]:
        """The rates set last."""
        return self._last_lr

    @follows_replays
    def step(self, epoch: int | None = None) -> None:
        """Set the rates of the next step; call it after the optimizer's step.

        With `epoch`, jump to that step instead.
        """
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._set(self.get_lr() if epoch is None else self._get_closed_form_lr())

    def _set(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            set_rate(group, rate)
        self._last_lr = self.current()

    def current(self) -> list[float]:
        """The groups' rates as they are."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {name: value for name, value in self.__dict__.items()
                if name not in ("optimizer", "_is_initial")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.__dict__.update(state_dict)


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set a group's learning rate; one that is a tensor keeps its memory."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def set_momentum(group: dict[str, Any], value: float) -> None:
    """Set a group's momentum, or beta1."""
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value


def per_group(owner: str, name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """One value for each parameter group.  ShapeError (a ValueError) for a wrong number of them."""
    count = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ShapeError(f"{owner}: {name} must be one value or {count}, one per parameter group, "
                         f"got {len(value)}")
    return list(value)
