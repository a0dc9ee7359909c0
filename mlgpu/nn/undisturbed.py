"""Running a model without leaving a trace: its modes, its buffers, and all random numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from mlgpu.autograd import no_grad
from mlgpu.nn.module import Module
from mlgpu.random import get_rng_state, set_rng_state


def random_state() -> dict[str, Any]:
    """The states of mlgpu's, Python's and NumPy's own generators."""
    version, words, gauss = random.getstate()
    return {"mlgpu": get_rng_state(),
            "python": [version, np.array(words, np.uint32), gauss],
            "numpy": np.random.get_state(legacy=False)}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Let all three go on from what `random_state` gave."""
    version, words, gauss = state["python"]
    set_rng_state(state["mlgpu"])
    random.setstate((version, tuple(words.tolist()), gauss))
    np.random.set_state(state["numpy"])


def drawn(state: Mapping[str, Any]) -> tuple[Any, ...]:
    """What differs between two states if anything was drawn from mlgpu, Python or NumPy."""
    _, words, gauss = state["python"]
    numpy = [value.tobytes() if isinstance(value, np.ndarray) else value
             for value in state["numpy"]["state"].values()]
    return (state["mlgpu"].tolist(), words.tobytes(), gauss, numpy, state["numpy"].get("gauss"))


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Within the block the model evaluates; its modes and all random states are put back after."""
    modes = [(module, module.training) for module in model.modules()]
    state = random_state()
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        set_random_state(state)


def buffers_of(model: Module) -> Callable[[], None]:
    """Keep the model's buffers as they are; the function that is returned puts them back."""
    before = [(module, name, buffer, buffer._version, buffer.detach().clone())
              for module in model.modules() for name, buffer in module._buffers.items()
              if buffer is not None]

    def restore() -> None:
        with no_grad():
            for module, name, buffer, version, values in before:
                module._buffers[name] = buffer
                if buffer._version != version:
                    buffer.copy_(values)

    return restore


@contextmanager
def buffers_kept(model: Module) -> Iterator[None]:
    """After the block the model's buffers are what they were, with the values that they had."""
    restore = buffers_of(model)
    try:
        yield
    finally:
        restore()
