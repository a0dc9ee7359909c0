"""Schedules that multiply the rate by a factor at each step, so that several can be combined."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.optim.lr_scheduler.scheduler import LRScheduler, per_group
from mlgpu.optim.optimizer import Optimizer

Factor = Callable[[int], float]


class _Factors(LRScheduler):
    """`factor()` is what step `last_epoch` multiplies the rates by, `total()` all steps so far."""

    def factor(self) -> float:
        """What this step multiplies the rates by."""
        raise NotImplementedError(f"{type(self).__name__}: factor is not defined")

    def total(self) -> float:
        """What all steps so far have multiplied the first rates by."""
        raise NotImplementedError(f"{type(self).__name__}: total is not defined")

    def get_lr(self) -> list[float]:
        factor = self.factor()
        return [rate * factor for rate in self.current()]

    def _get_closed_form_lr(self) -> list[float]:
        total = self.total()
        return [base * total for base in self.base_lrs]


class StepLR(_Factors):
    """Multiplies the rate by `gamma` every `step_size` steps."""

    _closed = True

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        due = self.last_epoch != 0 and self.last_epoch % self.step_size == 0
        return self.gamma if due else 1.0

    def total(self) -> float:
        return float(self.gamma ** (self.last_epoch // self.step_size))


class MultiStepLR(_Factors):
    """Multiplies the rate by `gamma` at each of `milestones`."""

    _closed = True

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return float(self.gamma ** self.milestones[self.last_epoch])

    def total(self) -> float:
        return float(self.gamma ** bisect_right(sorted(self.milestones.elements()),
                                                self.last_epoch))

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; the milestones as a plain dict of counts."""
        return {**super().state_dict(), "milestones": dict(self.milestones)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self.milestones = Counter(self.milestones)


class ConstantLR(_Factors):
    """`factor` times the rate for the first `total_iters` steps, then the rate itself."""

    _closed = True

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5,
                 last_epoch: int = -1) -> None:
        if not 0 <= factor <= 1:
            raise ShapeError(f"ConstantLR: factor must be between 0 and 1, got {factor}")
        self._factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        if self.last_epoch == 0:
            return self._factor
        return 1 / self._factor if self.last_epoch == self.total_iters else 1.0

    def total(self) -> float:
        return 1.0 if self.last_epoch >= self.total_iters else self._factor


class LinearLR(_Factors):
    """From `start_factor` to `end_factor` times the rate, in even steps over `total_iters`."""

    _closed = True

    def __init__(self, optimizer: Optimizer, start_factor: float = 1.0 / 3,
                 end_factor: float = 1.0, total_iters: int = 5, last_epoch: int = -1) -> None:
        if not 0 < start_factor <= 1:
            raise ShapeError(f"LinearLR: start_factor must be above 0 and at most 1, got "
                             f"{start_factor}")
        if not 0 <= end_factor <= 1:
            raise ShapeError(f"LinearLR: end_factor must be between 0 and 1, got {end_factor}")
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        if self.last_epoch == 0:
            return self.start_factor
        if self._is_initial or self.last_epoch > self.total_iters:
            return 1.0
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * rise
        return 1.0 + rise / before

    def total(self) -> float:
        done = min(self.total_iters, self.last_epoch) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * done


class ExponentialLR(_Factors):
    """Multiplies the rate by `gamma` at every step."""

    _closed = True

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        return 1.0 if self._is_initial else self.gamma

    def total(self) -> float:
        return float(self.gamma ** self.last_epoch)


class PolynomialLR(_Factors):
    """(1 - step / total_iters)^power times the rate, down to 0."""

    _closed = True

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0,
                 last_epoch: int = -1) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def factor(self) -> float:
        if self._is_initial or self.last_epoch > self.total_iters:
            return 1.0
        left = (1.0 - self.last_epoch / self.total_iters)
        return float((left / (1.0 - (self.last_epoch - 1) / self.total_iters)) ** self.power)

    def total(self) -> float:
        done = min(self.total_iters, self.last_epoch) / self.total_iters
        return float((1.0 - done) ** self.power)


class _Lambdas(LRScheduler):
    """Schedules by the user's functions of the step, one or one per parameter group."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Factor | Sequence[Factor],
                 last_epoch: int = -1) -> None:
        name = type(self).__name__
        self.lr_lambdas: list[Factor] = per_group(name, "lr_lambda", optimizer, lr_lambda)
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(f"{name}: lr_lambda must be a function, got "
                                f"{type(function).__name__}")
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and plain functions; attributes of callable objects."""
        kept = [None if isinstance(function, FunctionType) else dict(vars(function))
                for function in self.lr_lambdas]
        return {**super().state_dict(), "lr_lambdas": kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; plain functions stay those given here."""
        kept = state_dict["lr_lambdas"]
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "lr_lambdas"})
        for function, attributes in zip(self.lr_lambdas, kept, strict=True):
            if attributes is not None:
                vars(function).update(attributes)


class LambdaLR(_Lambdas):
    """The first rate times `lr_lambda(step)`."""

    def get_lr(self) -> list[float]:
        return [base * function(self.last_epoch)
                for function, base in zip(self.lr_lambdas, self.base_lrs, strict=True)]


class MultiplicativeLR(_Lambdas):
    """The rate times `lr_lambda(step)` at every step."""

    def get_lr(self) -> list[float]:
        if self._is_initial:
            return self.current()
        return [rate * function(self.last_epoch)
                for function, rate in zip(self.lr_lambdas, self.current(), strict=True)]
