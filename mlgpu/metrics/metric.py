"""What all metrics have in common: a small exact state, fed batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from mlgpu.autograd import no_grad
from mlgpu.device import Device, DeviceLike
from mlgpu.dtypes import float64
from mlgpu.errors import ShapeError
from mlgpu.ops.choice import maximum, minimum
from mlgpu.ops.creation import tensor
from mlgpu.ops.join import cat
from mlgpu.tensor import Tensor

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Metric", "MetricCollection"]

_JOINS: dict[str, Any] = {"sum": lambda a, b: a + b, "max": maximum, "min": minimum}


class Metric:
    """A quantity over all batches: `update(preds, target)`, `compute()`, `reset()`, `merge(other)`.

    A subclass adds its states, defines `_update` and `compute`, and `_merge` where states do not
    just add up.  States are float64 or int64 sums, so that they are exact and small, or lists of
    batches where the quantity needs all values; they lie on the device of what is given to
    `update`.  Nothing is recorded for gradients.  Calling a metric updates it and returns the
    quantity of that batch alone.
    """

    def __init__(self) -> None:
        self._defaults: dict[str, Any] = {}
        self._joins: dict[str, str] = {}
        self._device: Device | None = None
        self._updates = 0

    def add_state(self, name: str, default: Any, join: str = "sum") -> None:
        """A state, from now on the attribute `name`.

        A tensor, or number, that joins with another's by "sum", "max" or "min", or a list of
        batches, which are put together.
        """
        if not isinstance(default, (Tensor, list)):
            default = tensor(default, dtype=float64)
        if isinstance(default, Tensor):  # until there is a batch, whatever the current device is
            default = default.cpu()
        self._defaults[name] = default
        self._joins[name] = "cat" if isinstance(default, list) else join
        setattr(self, name, deepcopy(default) if isinstance(default, list) else default.clone())

    # --- use --------------------------------------------------------------------------------------

    @no_grad()
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take in a batch."""
        given = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        if given is not None and given.device != self._device:
            self.to(given.device)
        self._update(*args, **kwargs)
        self._updates += 1

    def _numbers(self, value: Tensor | float) -> Tensor:
        """What was given to `update`, in float64, where the states lie."""
        if isinstance(value, Tensor):
            return value.to(float64)
        return tensor(value, dtype=float64, device=self._device or "cpu")

    def _update(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"{type(self).__name__}: _update is not defined")

    def compute(self) -> Any:
        """The quantity of all batches so far."""
        raise NotImplementedError(f"{type(self).__name__}: compute is not defined")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        alone = deepcopy(self)
        alone.reset()
        alone.update(*args, **kwargs)
        self.merge(alone)
        return alone.compute()

    def reset(self) -> None:
        """Forget all batches."""
        self._updates = 0
        for name, default in self._defaults.items():
            if isinstance(default, list):
                setattr(self, name, [])
            else:
                setattr(self, name, default.to(self._device or default.device, copy=True))

    @no_grad()
    def merge(self, other: Metric) -> Self:
        """Take in the batches of another metric of this kind, such as another process's."""
        if type(other) is not type(self):
            raise TypeError(f"{type(self).__name__}.merge: expected one of its kind, got "
                            f"{type(other).__name__}")
        if self._device is None and other._device is not None:
            self.to(other._device)
        twin = deepcopy(other)
        twin.to(self._device or "cpu")
        if twin._updates:
            self._merge(twin)
            self._updates += twin._updates
        return self

    def _merge(self, other: Any) -> None:
        for name, join in self._joins.items():
            ours, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, ours + theirs if join == "cat" else _JOINS[join](ours, theirs))

    # --- states -----------------------------------------------------------------------------------

    def to(self, device: DeviceLike) -> Self:
        """Move the states."""
        self._device = Device(device)
        for name in self._defaults:
            value = getattr(self, name)
            setattr(self, name, [v.to(device) if isinstance(v, Tensor) else v for v in value]
                    if isinstance(value, list) else value.to(device))
        return self

    def state_dict(self) -> dict[str, Any]:
        """The states by name, and the number of updates."""
        return {**{name: getattr(self, name) for name in self._defaults},
                "updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.  KeyError where a state is missing."""
        for name in self._defaults:
            value = state[name]
            setattr(self, name, list(value) if isinstance(value, (list, tuple)) else value.clone())
        self._updates = int(state["updates"])
        first = next((v for name in self._defaults for v in _tensors(getattr(self, name))), None)
        self._device = None if first is None else first.device

    def _all(self, name: str) -> Tensor:
        """A list of batches as one tensor."""
        batches = getattr(self, name)
        if not batches:
            raise ShapeError(f"{type(self).__name__}.compute: there were no batches; call update "
                             "first")
        joined = cat(batches)
        setattr(self, name, [joined])
        return joined

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _tensors(value: Any) -> Sequence[Tensor]:
    return [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, Tensor)]


class MetricCollection(dict[str, Metric]):
    """Metrics by name that take the same batches; `compute` gives a dict of their quantities."""

    def __init__(self, metrics: Mapping[str, Metric] | Sequence[Metric]) -> None:
        super().__init__(metrics if isinstance(metrics, Mapping) else
                         {type(metric).__name__: metric for metric in metrics})
        if len(self) != len(metrics):
            raise ShapeError("MetricCollection: two metrics of one kind need names; pass a dict")

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Give a batch to all of them."""
        for metric in self.values():
            metric.update(*args, **kwargs)

    def compute(self) -> dict[str, Any]:
        """Their quantities by name."""
        return {name: metric.compute() for name, metric in self.items()}

    def reset(self) -> None:
        """Forget all batches."""
        for metric in self.values():
            metric.reset()

    def state_dict(self) -> dict[str, Any]:
        """Their states by name."""
        return {name: metric.state_dict() for name, metric in self.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        for name, metric in self.items():
            metric.load_state_dict(state[name])


def ratio(above: Tensor, below: Tensor, otherwise: float = 0.0) -> Tensor:
    """above / below, `otherwise` where below is 0; in float64."""
    above, below = above.to(float64), below.to(float64)
    empty = below == 0
    return (above / below.masked_fill(empty, 1.0)).masked_fill(empty, otherwise)


def check_alike(owner: str, preds: Tensor, target: Tensor) -> None:
    """Raise ShapeError unless predictions and targets have one shape."""
    if preds.shape != target.shape:
        raise ShapeError(f"{owner}: preds and target must have one shape, got "
                         f"{tuple(preds.shape)} and {tuple(target.shape)}")
