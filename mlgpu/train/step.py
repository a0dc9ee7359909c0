"""One step of training: losses and gradients of its batches, clipping, the optimizer's update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from mlgpu.errors import NonFiniteError, ShapeError
from mlgpu.nn.module import Module
from mlgpu.nn.undisturbed import buffers_of
from mlgpu.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from mlgpu.optim.optimizer import Optimizer
from mlgpu.tensor import Tensor
from mlgpu.train.means import number

StepFunction: TypeAlias = Callable[[Any, Any], Any]
_OWN = {"loss", "prediction", "target"}


def from_loss(loss: Callable[..., Any]) -> StepFunction:
    """The step of a batch (input, ..., target): `loss(model(input, ...), target)`."""
    def step(model: Module, batch: Any) -> dict[str, Any]:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise TypeError("Trainer: with a loss function a batch must be (input, ..., target), "
                            f"got {type(batch).__name__}; pass step=function(model, batch) for "
                            "any other")
        *inputs, target = batch
        prediction = model(*inputs)
        return {"loss": loss(prediction, target), "prediction": prediction, "target": target}

    return step


def parts(output: Any) -> tuple[Tensor, dict[str, Any]]:
    """The loss that a step function gave, and all it gave by name."""
    named = {"loss": output} if isinstance(output, Tensor) else output
    if not isinstance(named, Mapping) or "loss" not in named:
        raise TypeError("Trainer: a step must return the loss, or a dict with 'loss' and, if you "
                        "like, 'prediction', 'target' and values to log; got "
                        f"{type(output).__name__}")
    loss = named["loss"]
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ShapeError(f"Trainer: the loss must be a tensor of one element, got {shape}; take "
                         "its mean()")
    return loss, dict(named)


def logged(named: Mapping[str, Any]) -> dict[str, Any]:
    """What of a step's output is a value to log, without its graph."""
    return {name: value.detach() if isinstance(value, Tensor) else value
            for name, value in named.items() if name == "loss" or name not in _OWN}


def _nothing() -> None:
    """Nothing is to be put back."""


class Update:
    """Steps of an optimizer, each over one or more batches.

    The gradient is that of the mean over all samples of the batches: each batch counts by its
    share of them, the last batches of an epoch included.
    """

    def __init__(self, model: Module, optimizer: Optimizer, step: StepFunction, *,
                 clip_norm: float | None, clip_value: float | None, nonfinite: str,
                 autocast: Callable[[], AbstractContextManager[Any]], scaler: Any) -> None:
        self.model, self.optimizer, self.step = model, optimizer, step
        self.clip_norm, self.clip_value, self.nonfinite = clip_norm, clip_value, nonfinite
        self.autocast, self.scaler = autocast, scaler

    def __call__(self, batches: Iterable[Any], counts: Sequence[int], where: str,
                 seen: Callable[[Any], None]) -> dict[str, Any] | None:
        """Take a step; `seen(output)` is called with what the step function gives for each batch.

        Returns the values to log, None where the step was left out for a loss that is not finite.
        """
        # A batch that is left out leaves no trace in the statistics of batch norms either.
        restore = buffers_of(self.model) if self.nonfinite == "skip" else _nothing
        if self.optimizer.needs_closure:
            batches = list(batches)
        combined = self._gradients(batches, counts, where, seen)
        if combined is None:
            self.optimizer.zero_grad()
            restore()
            return None
        if self.optimizer.needs_closure:
            self.optimizer.step(self._closure(batches, counts, combined["loss"]))
        elif self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()
        return combined

    def _gradients(self, batches: Iterable[Any], counts: Sequence[int], where: str | None,
                   seen: Callable[[Any], None]) -> dict[str, Any] | None:
        """Add to the gradients; the values to log, None for a loss that is not finite.

        Without `where` nobody looks whether it is.
        """
        whole = sum(counts)
        combined: dict[str, Any] = {}
        for batch, count in zip(batches, counts, strict=True):
            with self.autocast():
                loss, named = parts(self.step(self.model, batch))
            if not self._finite("the loss", loss, where):
                return None
            share = count / whole if len(counts) > 1 else 1.0
            self._backward(loss, share)
            seen(named)
            for name, value in logged(named).items():
                combined[name] = (combined[name] + value * share if name in combined
                                  else value * share if share != 1.0 else value)
        norm = self._clip()
        if norm is not None and self.scaler is None and not self._finite(
                "the gradient's norm", norm, where):
            return None
        if self.clip_norm is not None and norm is not None:
            clip_grads_with_norm_(self._parameters(), self.clip_norm, norm)
            combined["grad_norm"] = norm
        return combined

    def _closure(self, batches: Iterable[Any], counts: Sequence[int], first: Any
                 ) -> Callable[[], Any]:
        """The loss and its gradients where the parameters are: the first time as they are.

        A search may come by places where the loss is not finite; it sees that itself.
        """
        known = [first]

        def closure() -> Any:
            if known:
                return known.pop()
            self.optimizer.zero_grad()
            values = self._gradients(batches, counts, None, lambda output: None)
            assert values is not None
            return values["loss"]

        return closure

    def _backward(self, loss: Tensor, share: float) -> None:
        if share != 1.0:
            loss = loss * share
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()

    def _clip(self) -> Tensor | None:
        """Clip by value; the norm of the gradients, where they are to be clipped by it."""
        if self.clip_norm is None and self.clip_value is None:
            return None
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        parameters = self._parameters()
        if self.clip_value is not None:
            clip_grad_value_(parameters, self.clip_value)
        if self.clip_norm is None:
            return None
        return get_total_norm([p.grad for p in parameters if p.grad is not None])

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _finite(self, what: str, value: Tensor, where: str | None) -> bool:
        """Whether a value is finite, or nobody wants to know.  NonFiniteError by the policy."""
        if where is None or self.nonfinite == "ignore" or math.isfinite(found := number(value)):
            return True
        if self.nonfinite == "raise":
            raise NonFiniteError(
                f"Trainer: {what} of {where} is {found}; the parameters are those before it. "
                "Lower the learning rate, clip gradients (clip_norm=1.0), look at that batch, or "
                "pass nonfinite='skip' to leave such steps out")
        return False
