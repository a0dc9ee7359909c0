"""What a model consists of, layer by layer: shapes, parameters, memory, and operations."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from mlgpu import memory
from mlgpu.autograd import no_grad
from mlgpu.autograd.mode import observe
from mlgpu.cpu.runtime import CpuRuntime
from mlgpu.cuda.runtime import CudaRuntime
from mlgpu.device import current_device
from mlgpu.nn.flops import forward_flops
from mlgpu.nn.module import Module
from mlgpu.nn.undisturbed import buffers_kept, evaluating
from mlgpu.tensor import Tensor

__all__ = ["LayerSummary", "ModelSummary", "summary"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerSummary:
    """One module.  Parameters and operations are its own, without those of modules inside it."""

    name: str  # dotted; "" is the model itself
    kind: str  # its class
    depth: int
    inputs: tuple[Shape, ...]  # of its first call, of tensors, in order
    outputs: tuple[Shape, ...]
    calls: int
    parameters: int
    trainable: int  # of them
    parameter_bytes: int
    activation_bytes: int  # that its calls began to hold and still held as they ended
    flops: int  # of its forward; see `summary` for what is counted
    leaf: bool  # whether no module is inside


@dataclass(frozen=True)
class ModelSummary:
    """A model, layer by layer, and in total; printed, a table.

    `activation_bytes` is the sum over layers without layers inside; `peak_bytes` what the forward
    pass held at most beyond what was held before it.  Both are the allocator's own books.
    `recorded`: whether the pass recorded a graph, so that what it keeps for backward is in them.
    """

    model: str
    layers: tuple[LayerSummary, ...]
    parameters: int  # shared ones once
    trainable: int
    parameter_bytes: int
    buffer_bytes: int
    activation_bytes: int
    peak_bytes: int
    flops: int
    recorded: bool

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSummary:
        """What `as_dict` was taken of."""
        layers = tuple(LayerSummary(**{**layer, "inputs": _shapes_of(layer["inputs"]),
                                       "outputs": _shapes_of(layer["outputs"])})
                       for layer in values["layers"])
        return cls(**{**values, "layers": layers})

    def __str__(self) -> str:
        return table(self)


def summary(model: Module, *inputs: Any, **options: Any) -> ModelSummary:
    """Run `model(*inputs, **options)` once and say what each layer is and does.

    Without gradients, in evaluation mode; modes, buffers and all random states are afterwards what
    they were.  FLOPs: products of matrices, convolutions, attention and recurrent products count 2
    for each multiplication with its addition; nothing else counts.  A module that runs several
    times has the sum of its calls.
    """
    with evaluating(model), buffers_kept(model), no_grad(), observed(model) as seen:
        model(*inputs, **options)
    return seen.summary()


class Observation:
    """What was seen of a model's forward pass; `summary` once it is over."""

    def __init__(self, model: Module) -> None:
        self.model = model
        device = next((p.device for p in model.parameters()), current_device())
        self.books = memory.account(device)
        self.thread = threading.get_ident()
        self.open: list[tuple[Module, int]] = []  # modules that are running, and bytes before
        self.calls: dict[Module, int] = {}
        self.shapes: dict[Module, tuple[tuple[Shape, ...], tuple[Shape, ...]]] = {}
        self.held: dict[Module, int] = {}
        self.flops: dict[Module, int] = {}
        self.peak = 0
        self.recorded = False

    def enter(self, module: Module, args: Any, kwargs: Any) -> None:
        self.open.append((module, self.books.allocated))

    def leave(self, module: Module, args: Any, kwargs: Any, output: Any) -> None:
        _, before = self.open.pop()
        self.calls[module] = self.calls.get(module, 0) + 1
        self.shapes.setdefault(module, (tuple(_shapes([args, kwargs])), tuple(_shapes(output))))
        self.held[module] = (self.held.get(module, 0)
                             + max(self.books.allocated - before, 0))
        self.recorded = self.recorded or any(t.requires_grad for t in _tensors(output))

    def operation(self, count: int) -> None:
        if count and threading.get_ident() == self.thread:
            module = self.open[-1][0] if self.open else self.model
            self.flops[module] = self.flops.get(module, 0) + count

    def summary(self) -> ModelSummary:
        """What was seen, in the order of the modules."""
        layers = []
        for name, module in self.model.named_modules():
            parameters = [p for p in module._parameters.values() if p is not None]
            shapes = self.shapes.get(module, ((), ()))
            layers.append(LayerSummary(
                name, type(module).__name__, name.count(".") + 1 if name else 0, *shapes,
                self.calls.get(module, 0), _count(parameters),
                _count([p for p in parameters if p.requires_grad]), _bytes(parameters),
                self.held.get(module, 0), self.flops.get(module, 0),
                next(module.children(), None) is None))
        every = list(self.model.parameters())
        return ModelSummary(
            type(self.model).__name__, tuple(layers), _count(every),
            _count([p for p in every if p.requires_grad]), _bytes(every),
            _bytes(list(self.model.buffers())),
            sum(layer.activation_bytes for layer in layers if layer.leaf), self.peak,
            sum(self.flops.values()), self.recorded)


@contextmanager
def observed(model: Module) -> Iterator[Observation]:
    """Within the block, see what the model's forward passes do, and change nothing of it."""
    seen = Observation(model)
    handles = []
    without = [module for module in model.modules() if module._hooks is None]
    restore: list[Callable[[], None]] = [_counting(owner, seen)
                                         for owner in (CpuRuntime, CudaRuntime)]
    observe(1)
    memory.watch(1)
    books = seen.books
    before, start = books.peak, books.allocated
    books.peak = start
    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(seen.enter, prepend=True,
                                                            with_kwargs=True))
            handles.append(module.register_forward_hook(seen.leave, with_kwargs=True))
        yield seen
    finally:
        seen.peak = books.peak - start
        books.peak = max(before, books.peak)
        memory.watch(-1)
        observe(-1)
        for undo in restore:
            undo()
        for handle in handles:
            handle.remove()
        for module in without:
            module.__dict__.pop("_hooks", None)


def _counting(owner: Any, seen: Observation) -> Callable[[], None]:
    """Have a runtime's operations counted; answers with what undoes it."""
    original = owner.call

    @functools.wraps(original)
    def call(engine: Any, function: Callable[..., Any], arrays: Sequence[Any], device: Any,
             written: int = 0) -> Any:
        result = original(engine, function, arrays, device, written)
        given = arrays[written:]
        seen.operation(forward_flops(function, given, arrays[0] if written else result))
        return result

    owner.call = call
    return lambda: setattr(owner, "call", original)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _shapes(value: Any) -> list[Shape]:
    return [tuple(tensor.shape) for tensor in _tensors(value)]


def _shapes_of(values: Sequence[Sequence[int]]) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for shape in values)


def _count(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.dtype.itemsize for t in tensors)


# --- printing -------------------------------------------------------------------------------------

HEADINGS = ("layer", "input", "output", "parameters", "memory", "activations", "FLOPs")


def table(model: ModelSummary) -> str:
    """A summary as text: a line for each layer, and the totals."""
    lines = [HEADINGS, *rows(model)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    text = ["  ".join(cell.ljust(width) if column < 3 else cell.rjust(width)
                      for column, (cell, width) in enumerate(zip(line, widths, strict=True))
                      ).rstrip() for line in lines]
    return "\n".join([text[0], rule, *text[1:], rule, *totals(model)])


def rows(model: ModelSummary) -> list[tuple[str, ...]]:
    """The cells of each layer under HEADINGS."""
    return [("  " * layer.depth + (f"{layer.name.rpartition('.')[2]}: " if layer.name else "")
             + layer.kind + (f" (x{layer.calls})" if layer.calls > 1 else ""),
             shapes_text(layer.inputs), shapes_text(layer.outputs),
             _parameters_text(layer),
             memory.format_bytes(layer.parameter_bytes) if layer.parameters else "",
             memory.format_bytes(layer.activation_bytes) if layer.activation_bytes else "",
             count_text(layer.flops) if layer.flops else "") for layer in model.layers]


def totals(model: ModelSummary) -> list[str]:
    """What a summary says of the whole, in lines."""
    frozen = model.parameters - model.trainable
    parameters, buffers, layers, peak = map(memory.format_bytes, (
        model.parameter_bytes, model.buffer_bytes, model.activation_bytes, model.peak_bytes))
    kept = " (with what backward needs)" if model.recorded else ""
    return [f"parameters   {model.parameters:,}, trainable {model.trainable:,}, frozen {frozen:,}",
            f"memory       parameters {parameters}, buffers {buffers}",
            f"activations  layers {layers}, peak of the forward pass {peak}{kept}",
            f"FLOPs        {count_text(model.flops)} forward (2 per multiply-add)"]


def shapes_text(shapes: Sequence[Shape]) -> str:
    """Shapes as 2x3, 4."""
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)


def count_text(count: float) -> str:
    """A count for people: 950, 1.23 k, 4.56 G."""
    for unit in ("", " k", " M", " G", " T"):
        if abs(count) < 1000 or unit == " T":
            return f"{count:,.0f}" if not unit else f"{count:,.2f}{unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _parameters_text(layer: LayerSummary) -> str:
    if not layer.parameters:
        return ""
    frozen = layer.parameters - layer.trainable
    return f"{layer.parameters:,}" + (f" ({frozen:,} frozen)" if frozen else "")
