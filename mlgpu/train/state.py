"""What a run consists of at one moment, copied."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import numpy as np

from mlgpu.errors import FormatError
from mlgpu.tensor import Tensor

_ARRAY = "numpy array"  # the one key of a dict that stands for an array


def snapshot(value: Any) -> Any:
    """A copy of `value` on the host that `mlgpu.save` can write, whatever happens to `value` next.

    Tensors that are the same view of the same memory stay one; NumPy arrays are packed.
    """
    return _copied(value, {})


def _copied(value: Any, known: dict[Any, Tensor]) -> Any:
    if isinstance(value, Tensor):
        place = (str(value.device), value.data_ptr(), tuple(value.shape), value.stride(),
                 value.dtype)
        if place not in known or not value.numel():
            known[place] = value.detach().to("cpu", copy=True)
        return known[place]
    if isinstance(value, np.ndarray):
        return {_ARRAY: [value.dtype.str, list(value.shape), value.tobytes()]}
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _copied(item, known)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(_copied(item, known) for item in value)
    return copy.deepcopy(value)


def unpacked(value: Any) -> Any:
    """What `snapshot` packed, with its arrays again."""
    if type(value) in (dict, OrderedDict):
        if set(value) == {_ARRAY}:
            kind, shape, data = value[_ARRAY]
            return np.frombuffer(data, kind).reshape(shape).copy()
        return type(value)((key, unpacked(item)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(unpacked(item) for item in value)
    return value


def state_of(part: Any) -> Any:
    """The state of anything that has one: `state_dict`, a generator's, or plain attributes."""
    if hasattr(part, "state_dict"):
        return part.state_dict()
    if hasattr(part, "get_state"):
        return part.get_state()
    return dict(vars(part))


def set_state_of(part: Any, state: Any, name: str) -> None:
    """Give `part` what `state_of` took from one like it.  FormatError where it does not fit."""
    if hasattr(part, "load_state_dict"):
        part.load_state_dict(state)
    elif hasattr(part, "set_state"):
        part.set_state(state)
    else:
        if not isinstance(state, dict) or set(state) != set(vars(part)):
            raise FormatError(f"Trainer: the checkpoint's state of {name!r} does not fit a "
                              f"{type(part).__name__}; resume with what the run was begun with")
        vars(part).update(state)
