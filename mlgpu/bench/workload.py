"""What is measured: a workload's inputs, how a library of PyTorch's names runs it, its bounds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]
Sizes = Mapping[str, int]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Case:
    """A workload set up in one library."""

    call: Callable[[], object]  # what is timed; on the CPU it is done when it returns
    results: Callable[[], Arrays]  # outputs and gradients; asked for once, before the first call
    prepare: Callable[[], object] | None = None  # before each call, not timed


class Kit(Protocol):
    """A library of PyTorch's names, and the few things that are done differently in each."""

    lib: Any
    device: str

    def tensor(self, array: Array, grad: bool = False) -> Any:
        """The array on the kit's device, in its float dtype; a leaf if `grad`."""

    def numpy(self, tensor: Any) -> Array:
        """A copy of the tensor's values."""

    def compile(self, function: Any) -> Any:
        """The function as the kit runs it: as it is, or compiled."""

    def place(self, module: Any) -> Any:
        """The module on the kit's device, in its float dtype."""


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str
    section: str
    title: str
    inputs: Callable[[np.random.Generator, Sizes], Arrays]
    build: Callable[[Kit, Arrays], Case]
    sizes: Sizes
    tiny: Sizes  # for tests of the suite itself
    operations: int = 1  # operations in one call: times are shown for one
    bytes: Callable[[Sizes], float] | None = None  # read and written once, by the mathematics
    flops: Callable[[Sizes], float] | None = None
    tolerance: float = 1e-5  # max |error| / max |reference|, for results that `tolerances` lacks
    tolerances: Mapping[str, float] = field(default_factory=dict)
    # Results that chance moves, and by how much: they are checked, but are no error of rounding.
    statistics: Mapping[str, float] = field(default_factory=dict)
    cuda: bool = False  # whether it is about CUDA devices alone
    # The results in float64 by NumPy; without it, a library runs the workload in float64.
    reference: Callable[[Arrays], Arrays] | None = None

    @property
    def family(self) -> str:
        """The name without what says the size."""
        return re.sub(r"_\d+MB|25M(_fused)?|(?<=gemm)\d+|(?<=xent)\d+", "", self.name)

    def arrays(self, seed: int, tiny: bool) -> Arrays:
        """The inputs, the same for every library."""
        return self.inputs(np.random.default_rng(seed), self.tiny if tiny else self.sizes)


def normal(random: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    """Normally distributed float32 numbers."""
    return random.standard_normal(shape, np.float32) * np.float32(scale)


def forward(function: Callable[..., Any], *names: str) -> Callable[[Kit, Arrays], Case]:
    """A build that calls `function(lib, *operands)`."""

    def build(kit: Kit, arrays: Arrays) -> Case:
        lib = kit.lib
        operands = [kit.tensor(arrays[name]) for name in names]
        run = kit.compile(lambda *given: function(lib, *given))
        return Case(lambda: run(*operands), lambda: {"output": kit.numpy(run(*operands))})

    return build


def both(function: Callable[..., Any], *names: str, wrt: str, timed: str = "both"
         ) -> Callable[[Kit, Arrays], Case]:
    """A build that calls `function(lib, *operands)` and its backward, or its backward alone.

    Gradients are taken of the operands that `wrt` names; "gradient" among the inputs is the
    output's, and is left out where the output is one number.
    """

    def build(kit: Kit, arrays: Arrays) -> Case:
        lib = kit.lib
        operands = [kit.tensor(arrays[name], name in wrt.split()) for name in names]
        leaves = {name: t for name, t in zip(names, operands, strict=True) if t.requires_grad}
        upstream = [kit.tensor(arrays["gradient"])] if "gradient" in arrays else []
        run = kit.compile(lambda *given: function(lib, *given))
        kept: list[Any] = []

        def step() -> Any:
            prepare()
            output = kept.pop()
            output.backward(*upstream)
            return output

        def results() -> Arrays:
            found = {"output": kit.numpy(step())}
            return found | {f"d {name}": kit.numpy(leaf.grad) for name, leaf in leaves.items()}

        def prepare() -> None:
            for leaf in leaves.values():
                leaf.grad = None
            kept[:] = [run(*operands)]

        def backward() -> None:
            kept.pop().backward(*upstream)

        if timed == "backward":
            return Case(backward, results, prepare)
        return Case(step, results)

    return build
