"""Evaluation: means of the loss and metrics over a loader, leaving no trace on the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from mlgpu.autograd import no_grad
from mlgpu.data.collate import move
from mlgpu.device import Device
from mlgpu.nn.module import Module
from mlgpu.nn.undisturbed import evaluating
from mlgpu.tensor import Tensor
from mlgpu.train.means import Means, number
from mlgpu.train.step import StepFunction, logged, parts


class Metric(Protocol):
    """What a metric has to have."""

    def update(self, prediction: Any, target: Any) -> Any:
        """Take in a batch."""

    def compute(self) -> Any:
        """The value so far."""

    def reset(self) -> Any:
        """Begin anew."""


def update_metrics(metrics: Mapping[str, Metric], named: Mapping[str, Any]) -> None:
    """Give a step's prediction and target to the metrics."""
    if not metrics:
        return
    missing = [name for name in ("prediction", "target") if name not in named]
    if missing:
        raise KeyError(f"Trainer: the metrics {sorted(metrics)} need the {' and '.join(missing)} "
                       "of each batch; return them from the step, in a dict beside 'loss'")
    prediction = named["prediction"]
    if isinstance(prediction, Tensor):
        prediction = prediction.detach()
    for metric in metrics.values():
        metric.update(prediction, named["target"])


def computed(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The metrics' values as numbers; a metric of several gives a mapping or a tensor of them."""
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        result = metric.compute()
        if isinstance(result, Mapping):
            values.update({f"{name}_{key}": number(value) for key, value in result.items()})
        elif isinstance(result, Tensor) and result.numel() != 1:
            values.update({f"{name}_{i}": value
                           for i, value in enumerate(result.reshape(-1).tolist())})
        else:
            values[name] = number(result)
    return values


def evaluate(model: Module, step: StepFunction, loader: Iterable[Any], device: Device,
             metrics: Mapping[str, Metric], count: Callable[[Any], int],
             autocast: Callable[[], AbstractContextManager[Any]],
             after_batch: Callable[[int], bool]) -> dict[str, float] | None:
    """The loss, values and metrics of the model over a loader; None where it was cut short.

    Means are over samples.  `after_batch(batches done)` says whether to go on.
    """
    means, done = Means(), 0
    for metric in metrics.values():
        metric.reset()
    with evaluating(model), no_grad():
        for batch in loader:
            batch = move(batch, device)
            with autocast():
                _, named = parts(step(model, batch))
            means.add(logged(named), count(batch))
            update_metrics(metrics, named)
            done += 1
            if not after_batch(done):
                return None
        if not done:
            raise ValueError("Trainer: the evaluation's loader gave no batch; an iterator is used "
                             "up after one pass, give a loader that can be iterated again")
        return {**means.means(), **computed(metrics)}
