"""Tensors as text, laid out as PyTorch does it; `set_printoptions` changes the details."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu import dtypes

if TYPE_CHECKING:
    from mlgpu.tensor import Tensor

__all__ = ["get_printoptions", "set_printoptions"]


@dataclass(frozen=True)
class PrintOptions:
    """Digits after the point, elements before summarising, elements shown at edges, line width."""

    precision: int = 4
    threshold: int = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_options = PrintOptions()
_PROFILES = {"default": PrintOptions(), "short": PrintOptions(2, 1000, 2),
             "full": PrintOptions(threshold=2**63)}


def set_printoptions(precision: int | None = None, threshold: int | None = None,
                     edgeitems: int | None = None, linewidth: int | None = None,
                     profile: str | None = None, sci_mode: bool | None = None) -> None:
    """Change how tensors print: see `PrintOptions`; profile is "default", "short" or "full"."""
    global _options
    options = _PROFILES[profile] if profile is not None else _options
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems,
             "linewidth": linewidth}
    _options = replace(options, sci_mode=sci_mode,
                       **{k: v for k, v in given.items() if v is not None})


def get_printoptions() -> PrintOptions:
    """The options in force."""
    return _options


class _Formatter:
    """One width and notation for all elements shown."""

    def __init__(self, values: Any) -> None:
        self.options = _options
        self.integral = self.scientific = False
        self.float = values.dtype.kind == "f"
        self.width = 1
        if not self.float:
            self.width = max((len(self.text(v)) for v in values.reshape(-1)), default=1)
            return
        shown = values[np.isfinite(values) & (values != 0)].reshape(-1)
        self.integral = True
        if shown.size:
            size = np.abs(shown.astype(np.float64))
            low, high = float(size.min()), float(size.max())
            self.integral = bool(np.all(size == np.ceil(size)))
            self.scientific = (high / low > 1000.0 or high > 1.0e8
                               or (not self.integral and low < 1.0e-4))
        if self.options.sci_mode is not None:
            self.scientific = self.options.sci_mode
        self.width = max((len(self.text(v)) for v in shown), default=1)

    def text(self, value: Any) -> str:
        if not self.float:
            return str(value)
        if not math.isfinite(value):
            return str(float(value))
        if self.scientific:
            return f"{float(value):.{self.options.precision}e}"
        if self.integral:
            return f"{float(value):.0f}."
        return f"{float(value):.{self.options.precision}f}"

    def __call__(self, value: Any) -> str:
        return self.text(value).rjust(self.width)


class _ComplexFormatter:
    def __init__(self, values: Any) -> None:
        self.real, self.imag = _Formatter(values.real), _Formatter(np.abs(values.imag))
        self.width = self.real.width + self.imag.width + 2

    def __call__(self, value: Any) -> str:
        sign = "-" if math.copysign(1.0, value.imag) < 0 else "+"
        return f"{self.real(value.real)}{sign}{self.imag.text(abs(value.imag)).lstrip()}j"


def _edges(array: Any) -> Any:
    """The elements that a summary shows."""
    n = _options.edgeitems
    for axis in range(array.ndim):
        if array.shape[axis] > 2 * n:
            head = array.take(range(n), axis)
            array = np.concatenate((head, array.take(range(-n, 0), axis)), axis)
    return array


def _vector(array: Any, indent: int, summary: bool, form: Any) -> str:
    per_line = max(1, (_options.linewidth - indent) // (form.width + 2))
    n = _options.edgeitems
    if summary and len(array) > 2 * n:
        items = [form(v) for v in array[:n]] + [" ..."] + [form(v) for v in array[-n:]]
    else:
        items = [form(v) for v in array]
    lines = [", ".join(items[i:i + per_line]) for i in range(0, len(items), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _nested(array: Any, indent: int, summary: bool, form: Any) -> str:
    if array.ndim == 0:
        return str(form(array[()]))
    if array.ndim == 1:
        return _vector(array, indent, summary, form)
    n = _options.edgeitems
    if summary and len(array) > 2 * n:
        rows = [_nested(a, indent + 1, summary, form) for a in array[:n]] + ["..."] + [
            _nested(a, indent + 1, summary, form) for a in array[-n:]]
    else:
        rows = [_nested(a, indent + 1, summary, form) for a in array]
    gap: str = "," + "\n" * (array.ndim - 1) + " " * (indent + 1)
    return "[" + gap.join(rows) + "]"


def tensor_str(tensor: Tensor) -> str:
    """What `repr(tensor)` shows."""
    if tensor._storage.released:
        return f"tensor(<released>, size={tuple(tensor.shape)}, dtype={tensor.dtype!r})"
    prefix = f"{'Parameter containing:' + chr(10) if _is_parameter(tensor) else ''}tensor("
    indent = len("tensor(")
    suffixes = []
    if tensor.device.type != "cpu":
        suffixes.append(f"device='{tensor.device}'")
    plain = (dtypes.get_default_dtype(), dtypes.int64, dtypes.bool_,
             dtypes.get_default_dtype().to_complex())
    if tensor.numel() == 0:
        body = "[]"
        if tensor.ndim != 1:
            suffixes.append(f"size={tuple(tensor.shape)}")
        if tensor.dtype is not dtypes.get_default_dtype():
            suffixes.append(f"dtype={tensor.dtype!r}")
    else:
        if tensor.dtype not in plain:
            suffixes.append(f"dtype={tensor.dtype!r}")
        body = _body(tensor, indent)
    if tensor.grad_fn is not None:
        suffixes.append(f"grad_fn=<{tensor.grad_fn.label}>")
    elif tensor.requires_grad:
        suffixes.append("requires_grad=True")
    text = prefix + body
    last = len(text) - text.rfind("\n") - 1 if "\n" in text else len(text)
    for suffix in suffixes:
        if last + len(suffix) + 2 > _options.linewidth:
            text += ",\n" + " " * indent + suffix
            last = indent + len(suffix)
        else:
            text += ", " + suffix
            last += len(suffix) + 2
    return text + ")"


def _is_parameter(tensor: Tensor) -> bool:
    return type(tensor).__name__ == "Parameter"


def _body(tensor: Tensor, indent: int) -> str:
    array = tensor.detach()._host()
    if array.dtype.kind == "V" or array.dtype == dtypes.bfloat16.numpy:
        array = array.astype(np.float32)
    summary = array.size > _options.threshold
    shown = _edges(array) if summary else array
    with np.errstate(all="ignore"):
        form = _ComplexFormatter(shown) if array.dtype.kind == "c" else _Formatter(shown)
        return _nested(array, indent, summary, form)
