"""`GradScaler`: losses scaled up so that small gradients survive a half type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from mlgpu import dtypes
from mlgpu.autograd import no_grad
from mlgpu.autograd.mode import mode
from mlgpu.device import Device
from mlgpu.errors import CaptureError, DTypeError, GraphError
from mlgpu.ops.choice import maximum, where
from mlgpu.ops.compare import isfinite
from mlgpu.ops.creation import zeros
from mlgpu.ops.elementwise import fuse
from mlgpu.ops.optimizer import unscale_
from mlgpu.optim.optimizer import Optimizer
from mlgpu.tensor import Tensor

__all__ = ["GradScaler"]


@dataclass
class _Turn:
    """What has been done with an optimizer's gradients since the last `update`."""

    unscaled: bool = False
    stepped: bool = False
    found: dict[Device, Tensor] = field(default_factory=dict)  # 1 where some were not finite


@fuse
def _next(scale: Any, tracker: Any, found: Any, growth: float, backoff: float, interval: int
          ) -> Any:
    """The scale and the count of steps without infinity after one more step."""
    count = tracker + 1
    grown = where(isfinite(scale * growth), scale * growth, scale)
    full = count >= interval
    return (where(found > 0, scale * backoff, where(full, grown, scale)),
            where(found > 0, tracker * 0, where(full, tracker * 0, count)))


class GradScaler:
    """Multiplies losses by a scale that grows until gradients overflow, and skips those steps.

    `scaler.scale(loss).backward()`, then `scaler.step(optimizer)` and `scaler.update()`; to clip,
    `scaler.unscale_(optimizer)` before.  The scale starts at `init_scale`, is multiplied by
    `growth_factor` after `growth_interval` steps in a row without an infinity or NaN, and by
    `backoff_factor` at each step with one, in which parameters and state stay as they are.

    Whether there was one is decided where the gradients are: nothing waits for the device, and a
    captured CUDA graph decides at each replay.  Optimizers of other kinds, which do not read
    `found_inf`, make `step` wait for the answer.  Micikevicius et al. 2018; torch.amp.GradScaler.
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0**16,
                 growth_factor: float = 2.0, backoff_factor: float = 0.5,
                 growth_interval: int = 2000, enabled: bool = True) -> None:
        if enabled and not growth_factor > 1.0:
            raise ValueError(f"GradScaler: growth_factor must be above 1, got {growth_factor}")
        if enabled and not 0.0 < backoff_factor < 1.0:
            raise ValueError("GradScaler: backoff_factor must lie between 0 and 1, got "
                             f"{backoff_factor}")
        self._device = device
        self._enabled = enabled
        self._init = float(init_scale), 0
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval = growth_interval
        self._scale: Tensor | None = None
        self._tracker: Tensor | None = None
        self._inverse: dict[Device, Tensor] = {}  # of the scale, until `update`
        self._turns: WeakKeyDictionary[Optimizer, _Turn] = WeakKeyDictionary()

    # --- the loss ---------------------------------------------------------------------------

    def scale(self, outputs: Any) -> Any:
        """A tensor times the scale, or each tensor of an iterable."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            self._begin(outputs.device)
            assert self._scale is not None
            return outputs * self._scale.to(outputs.device, non_blocking=True)
        if isinstance(outputs, Iterable):
            scaled = map(self.scale, outputs)
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled
        raise TypeError("GradScaler.scale: expected a Tensor or an iterable of Tensors, got "
                        f"{type(outputs).__name__}")

    def _begin(self, device: Device) -> None:
        if self._scale is not None:
            return
        if mode.capture is not None:
            raise CaptureError("GradScaler: the first use makes the scale; scale a loss once "
                               "before a step is captured")
        scale, tracker = self._init
        self._scale = zeros((), dtype=dtypes.float32, device=device).fill_(scale)
        self._tracker = zeros((), dtype=dtypes.int32, device=device).fill_(tracker)

    # --- gradients --------------------------------------------------------------------------

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, as `step` would.

        Raises GraphError the second time since `update`, or after `step`; DTypeError for float16
        gradients, which an unscaled value may not fit: keep parameters in float32.
        """
        if not self._enabled:
            return
        turn = self._turns.setdefault(optimizer, _Turn())
        if turn.unscaled or turn.stepped:
            raise GraphError("GradScaler.unscale_: " + (
                "step was called already" if turn.stepped else "called twice")
                + " for this optimizer since the last update()")
        self._unscale(optimizer, turn)

    @no_grad()
    def _unscale(self, optimizer: Optimizer, turn: _Turn) -> None:
        if self._scale is None:
            raise GraphError("GradScaler: no loss was scaled; call scale(loss).backward() first")
        grads: dict[Device, list[Tensor]] = {}
        for group in optimizer.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._check(param.grad)
                    grads.setdefault(param.grad.device, []).append(param.grad)
        if not grads:
            raise GraphError("GradScaler: no parameter of the optimizer has a gradient; call "
                             "scale(loss).backward() first")
        for device, those in grads.items():
            if device not in self._inverse:
                self._inverse[device] = self._scale.to(device, non_blocking=True).reciprocal()
            turn.found[device] = zeros((), dtype=dtypes.float32, device=device)
            unscale_(those, self._inverse[device], turn.found[device])
        turn.unscaled = True

    @staticmethod
    def _check(grad: Tensor) -> None:
        if grad.dtype is dtypes.float16:
            raise DTypeError("GradScaler: a gradient is float16, in which values divided by the "
                             "scale vanish; keep parameters in float32 and compute under autocast")

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """`optimizer.step()` on unscaled gradients; nothing changes where one is not finite.

        Raises GraphError if called twice since `update`, or without a gradient.  A closure is
        refused with TypeError: its gradients would not be scaled.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if args or "closure" in kwargs:
            raise TypeError("GradScaler.step: closures are not supported; call backward before")
        turn = self._turns.setdefault(optimizer, _Turn())
        if turn.stepped:
            raise GraphError("GradScaler.step: called twice for this optimizer since the last "
                             "update()")
        if not turn.unscaled:
            self._unscale(optimizer, turn)
        turn.stepped = True
        if optimizer.reads_found_inf and len(turn.found) == 1:
            (optimizer.found_inf,) = turn.found.values()
            try:
                return optimizer.step(**kwargs)
            finally:
                optimizer.found_inf = None
        if mode.capture is not None:
            raise CaptureError(f"GradScaler.step: {type(optimizer).__name__} does not decide on "
                               "the device whether to step, and a captured graph cannot ask")
        if any(found.item() for found in turn.found.values()):
            return None
        return optimizer.step(**kwargs)

    # --- the scale --------------------------------------------------------------------------

    @no_grad()
    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Move the scale after the steps of all optimizers; or set it to `new_scale`."""
        if not self._enabled:
            return
        if self._scale is None or self._tracker is None:
            raise GraphError("GradScaler.update: no loss was scaled yet")
        if new_scale is not None:
            if isinstance(new_scale, Tensor):
                self._scale.copy_(new_scale.reshape(()))
            else:
                self._scale.fill_(float(new_scale))
        else:
            found = [f.to(self._scale.device, non_blocking=True)
                     for turn in self._turns.values() for f in turn.found.values()]
            if not found:
                raise GraphError("GradScaler.update: no optimizer was stepped or unscaled since "
                                 "the last update")
            total = found[0]
            for other in found[1:]:
                total = maximum(total, other)
            scale, tracker = _next(self._scale, self._tracker, total, self._growth_factor,
                                   self._backoff_factor, self._growth_interval)
            self._scale.copy_(scale)
            self._tracker.copy_(tracker)
        self._turns.clear()
        self._inverse.clear()

    def get_scale(self) -> float:
        """The scale; waits for the device.  1.0 if disabled."""
        if not self._enabled:
            return 1.0
        return self._init[0] if self._scale is None else float(self._scale.item())

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by as it grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the growth factor."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What it is multiplied by at an infinity."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the backoff factor."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """How many steps without an infinity make it grow."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set the growth interval."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    # --- saving -----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The scale, how it moves, and how many steps it has not; empty if disabled."""
        if not self._enabled:
            return {}
        tracker = self._init[1] if self._tracker is None else int(self._tracker.item())
        return {"scale": self.get_scale(), "growth_factor": self._growth_factor,
                "backoff_factor": self._backoff_factor, "growth_interval": self._growth_interval,
                "_growth_tracker": tracker}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state.  GraphError for that of a disabled scaler."""
        if not self._enabled:
            return
        if not state_dict:
            raise GraphError("GradScaler.load_state_dict: the state is empty, of a disabled "
                             "scaler; construct this one with enabled=False too")
        self._init = float(state_dict["scale"]), int(state_dict["_growth_tracker"])
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        if self._scale is not None and self._tracker is not None:
            self._scale.fill_(self._init[0])
            self._tracker.fill_(self._init[1])
