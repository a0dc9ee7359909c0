"""Averages of a model's parameters over training: SWA and EMA, as torch.optim.swa_utils."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.device import DeviceLike
from mlgpu.dtypes import int64
from mlgpu.errors import ShapeError
from mlgpu.nn.batchnorm import _BatchNorm
from mlgpu.nn.module import Module
from mlgpu.ops.creation import zeros
from mlgpu.optim.lr_scheduler.scheduler import LRScheduler, per_group
from mlgpu.optim.optimizer import Optimizer
from mlgpu.tensor import Tensor

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
           "get_swa_multi_avg_fn", "update_bn"]

AverageOne = Callable[[Tensor, Tensor, Tensor], Tensor]
AverageAll = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]


def get_ema_avg_fn(decay: float = 0.999) -> AverageOne:
    """average = decay * average + (1 - decay) * parameter."""
    _check_decay("get_ema_avg_fn", decay)

    @no_grad()
    def average(averaged: Tensor, current: Tensor, number: Tensor) -> Tensor:
        return averaged * decay + current * (1 - decay)

    return average


def get_swa_avg_fn() -> AverageOne:
    """The mean of all parameters so far."""
    @no_grad()
    def average(averaged: Tensor, current: Tensor, number: Tensor) -> Tensor:
        return averaged + (current - averaged) / (number + 1)

    return average


def get_ema_multi_avg_fn(decay: float = 0.999) -> AverageAll:
    """As `get_ema_avg_fn`, in place on a list of averages."""
    _check_decay("get_ema_multi_avg_fn", decay)

    @no_grad()
    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], number: Tensor) -> None:
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point() or old.is_complex():
                old.lerp_(new, 1 - decay)
            else:
                old.copy_(old * decay + new * (1 - decay))

    return average


def get_swa_multi_avg_fn() -> AverageAll:
    """As `get_swa_avg_fn`, in place on a list of averages."""
    @no_grad()
    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], number: Tensor) -> None:
        for old, new in zip(averaged, current, strict=True):
            if old.is_floating_point() or old.is_complex():
                old.add_((new - old) / (number + 1))
            else:
                old.copy_(old + (new - old) / (number + 1))

    return average


def _check_decay(owner: str, decay: float) -> None:
    if not 0 <= decay <= 1:
        raise ShapeError(f"{owner}: decay must be between 0 and 1, got {decay}")


class AveragedModel(Module):
    """A copy of a model whose parameters are averages: call `update_parameters(model)` to add one.

    The first call copies the parameters; later ones average by `avg_fn(averaged, current, number)`
    or, in place, `multi_avg_fn(averages, currents, number)`; the mean by default (Izmailov et al.
    2018).  With `use_buffers` buffers are averaged as well, else copied each time.  The averages
    stay on `device` if one is given.
    """

    n_averaged: Tensor

    def __init__(self, model: Module, device: DeviceLike | None = None,
                 avg_fn: AverageOne | None = None, multi_avg_fn: AverageAll | None = None,
                 use_buffers: bool = False) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ShapeError("AveragedModel: avg_fn and multi_avg_fn exclude each other; pass one")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", zeros((), dtype=int64,
                                                 device="cpu" if device is None else device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model computes."""
        return self.module(*args, **kwargs)

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Take the model's parameters into the averages."""
        ours, theirs = list(self._averaged(self.module)), list(self._averaged(model))
        if len(ours) != len(theirs):
            raise ShapeError(f"update_parameters: the model has {len(theirs)} tensors, the average "
                             f"{len(ours)}; it must be of the kind that AveragedModel was made of")
        if int(self.n_averaged) == 0:
            for old, new in zip(ours, theirs, strict=True):
                old.copy_(new)
        else:
            by_device: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
            for old, new in zip(ours, theirs, strict=True):
                olds, news = by_device.setdefault(old.device, ([], []))
                olds.append(old.detach())
                news.append(new.detach().to(old.device))
            for device, (olds, news) in by_device.items():
                number = self.n_averaged.to(device)
                if self.avg_fn is None:
                    (self.multi_avg_fn or get_swa_multi_avg_fn())(olds, news, number)
                    continue
                for old, new in zip(olds, news, strict=True):
                    old.copy_(self.avg_fn(old, new, number))
        if not self.use_buffers:
            for old, new in zip(self.module.buffers(), model.buffers(), strict=True):
                old.detach().copy_(new.detach())
        self.n_averaged.add_(1)

    def _averaged(self, module: Module) -> Iterator[Tensor]:
        return itertools.chain(module.parameters(), module.buffers() if self.use_buffers else ())


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: DeviceLike | None = None) -> None:
    """Compute the running statistics of all batch norms anew, from one pass over the loader.

    A batch that is a list or tuple has its input first.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta, training = [norm.momentum for norm in norms], model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    model.train()
    for batch in loader:
        input = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(input if device is None else input.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(training)


class SWALR(LRScheduler):
    """From each group's rate to `swa_lr` in `anneal_epochs` steps, by a cosine or "linear"."""

    _closed = True

    def __init__(self, optimizer: Optimizer, swa_lr: float | list[float], anneal_epochs: int = 10,
                 anneal_strategy: str = "cos", last_epoch: int = -1) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise ShapeError(f"SWALR: anneal_strategy must be 'cos' or 'linear', got "
                             f"{anneal_strategy!r}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ShapeError(f"SWALR: anneal_epochs must be an int of at least 0, got "
                             f"{anneal_epochs!r}")
        for group, rate in zip(optimizer.param_groups,
                               per_group("SWALR", "swa_lr", optimizer, swa_lr), strict=True):
            group["swa_lr"] = rate
        self.anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        """How much of the way is done."""
        done = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * done)) / 2 if self.anneal_strategy == "cos" else done

    def get_lr(self) -> list[float]:
        step = max(1, self.last_epoch) if self.anneal_epochs == 0 else self.last_epoch
        before, now = self._share(step - 1), self._share(step)
        rates = []
        for group, rate in zip(self.optimizer.param_groups, self.current(), strict=True):
            end = group["swa_lr"]
            start = end if before == 1 else (rate - before * end) / (1 - before)
            rates.append(end * now + start * (1 - now))
        return rates
