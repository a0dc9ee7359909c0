"""Recurrent layers and cells, with PyTorch's parameter names and order."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from mlgpu.amp.policy import by_policy
from mlgpu.autograd.mode import mode as precision
from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn import init
from mlgpu.nn.module import Module
from mlgpu.nn.packed import PackedSequence
from mlgpu.nn.parameter import Parameter
from mlgpu.ops import recurrent
from mlgpu.ops.creation import empty, zeros
from mlgpu.ops.join import cat, stack
from mlgpu.tensor import Tensor

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]

_layer = by_policy(recurrent.layer, "recurrent_layer")
_lstm_cell, _gru_cell = by_policy(recurrent.lstm_cell), by_policy(recurrent.gru_cell)
_rnn_tanh_cell = by_policy(recurrent.rnn_tanh_cell)
_rnn_relu_cell = by_policy(recurrent.rnn_relu_cell)

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


def _uniform(module: Module, hidden_size: int) -> None:
    bound = 1 / math.sqrt(hidden_size) if hidden_size > 0 else 0
    for weight in module.parameters():
        init.uniform_(weight, -bound, bound)


class RNNBase(Module):
    """What RNN, LSTM and GRU share: layers of recurrences, in one direction or both.

    Layer k has weight_ih_l{k} (gates * hidden, in), weight_hh_l{k} (gates * hidden, hidden),
    bias_ih_l{k} and bias_hh_l{k} (gates * hidden,), drawn within ±1 / sqrt(hidden); those of the
    backward direction end in _reverse.
    """

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1,
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, proj_size: int = 0, device: DeviceLike | None = None,
                 dtype: DTypeLike | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        if mode not in GATES:
            raise ShapeError(f"{name}: mode must be one of {', '.join(GATES)}, got {mode!r}")
        if hidden_size <= 0 or num_layers <= 0 or input_size < 0:
            raise ShapeError(f"{name}: hidden_size and num_layers must be positive, got "
                             f"{hidden_size} and {num_layers}")
        if not 0 <= dropout <= 1:
            raise ShapeError(f"{name}: dropout must be a probability, got {dropout}")
        if proj_size and (mode != "LSTM" or not 0 < proj_size < hidden_size):
            raise ShapeError(f"{name}: proj_size is for an LSTM, and below its hidden_size, got "
                             f"{proj_size}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(f"{name}: dropout acts between layers; with num_layers=1 there is no "
                          "place for it", stacklevel=3)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                self._make_weights(layer, suffix, device, dtype)
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][:1 + self.bidirectional]

    def _make_weights(self, layer: int, suffix: str, device: Any, dtype: Any) -> None:
        rows = GATES[self.mode] * self.hidden_size
        out = self.proj_size or self.hidden_size
        columns = self.input_size if layer == 0 else out * (1 + self.bidirectional)
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, columns),
                                              "weight_hh": (rows, out)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        for name, shape in shapes.items():
            setattr(self, name + suffix, Parameter(empty(shape, device=device, dtype=dtype)))

    def _weights(self, suffix: str) -> list[Tensor]:
        names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if self.bias else []),
                 *(["weight_hr"] if self.proj_size else [])]
        return [getattr(self, name + suffix) for name in names]

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The weights of each layer and direction."""
        return [self._weights(suffix) for layer in range(self.num_layers)
                for suffix in self._suffixes(layer)]

    def reset_parameters(self) -> None:
        """Draw new weights."""
        _uniform(self, self.hidden_size)

    def flatten_parameters(self) -> None:
        """Does nothing: the weights need no common memory here."""

    def _run(self, input: Any, hx: tuple[Tensor, ...] | None
             ) -> tuple[Any, tuple[Tensor, ...]]:
        """The outputs, and each part of the last state; packed where the input is."""
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx)
        name = type(self).__name__
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            raise ShapeError(f"{name}: input must be 2-d or 3-d with {self.input_size} features, "
                             f"got {tuple(input.shape)}")
        if input.dtype is not self.weight_ih_l0.dtype and precision.autocast is None:
            raise DTypeError(f"{name}: input is {input.dtype!r}, the weights are "
                             f"{self.weight_ih_l0.dtype!r}; convert one with .to()")
        single = input.ndim == 2
        x = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
        if x.shape[0] == 0:
            raise ShapeError(f"{name}: the sequence is empty, input {tuple(input.shape)}")
        y, last = self._layers(x, self._states(x, hx, single))
        if single:
            return y.squeeze(1), tuple(state.squeeze(1) for state in last)
        return y.transpose(0, 1) if self.batch_first else y, last

    def _states(self, x: Tensor, hx: tuple[Tensor, ...] | None, single: bool
                ) -> list[tuple[Tensor, ...]]:
        """The first state of each layer and direction."""
        count = self.num_layers * (1 + self.bidirectional)
        sizes = [self.proj_size or self.hidden_size, self.hidden_size][:1 + (self.mode == "LSTM")]
        if hx is None:
            zero = [zeros(x.shape[1], size, device=x.device, dtype=x.dtype) for size in sizes]
            return [tuple(zero)] * count
        expected = [(count, size) if single else (count, x.shape[1], size) for size in sizes]
        if [tuple(state.shape) for state in hx] != expected:
            raise ShapeError(f"{type(self).__name__}: the state must have shape "
                             f"{' and '.join(map(str, expected))}, got "
                             f"{' and '.join(str(tuple(state.shape)) for state in hx)}")
        parts = [state.unsqueeze(1) if single else state for state in hx]
        return [tuple(part[k] for part in parts) for k in range(count)]

    def _layers(self, x: Tensor, states: list[tuple[Tensor, ...]]
                ) -> tuple[Tensor, tuple[Tensor, ...]]:
        last: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for reverse, suffix in enumerate(self._suffixes(layer)):
                y, state = _layer(self.mode, x, states[len(last)], self._weights(suffix),
                                           self.bias, bool(reverse))
                outputs.append(y)
                last.append(state)
            x = outputs[0] if len(outputs) == 1 else cat(outputs, -1)
        return x, tuple(_stacked(part) for part in zip(*last, strict=True))

    # --- packed sequences: runs of steps that as many of them have ------------------------------

    def _run_packed(self, packed: PackedSequence, hx: tuple[Tensor, ...] | None
                    ) -> tuple[PackedSequence, tuple[Tensor, ...]]:
        x, number = packed.data, int(packed.batch_sizes[0])
        if x.ndim != 2 or x.shape[-1] != self.input_size:
            raise ShapeError(f"{type(self).__name__}: packed data must be (steps, "
                             f"{self.input_size}), got {tuple(x.shape)}")
        if hx is not None and packed.sorted_indices is not None:
            hx = tuple(state.index_select(1, packed.sorted_indices) for state in hx)
        states = self._states(x[None, :number], hx, False)
        last: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for reverse, suffix in enumerate(self._suffixes(layer)):
                direction = self._backwards if reverse else self._forwards
                y, state = direction(x, packed.segments(), states[len(last)],
                                     self._weights(suffix))
                outputs.append(y)
                last.append(state)
            x = outputs[0] if len(outputs) == 1 else cat(outputs, -1)
        final = tuple(_stacked(part) for part in zip(*last, strict=True))
        if packed.unsorted_indices is not None:
            final = tuple(part.index_select(1, packed.unsorted_indices) for part in final)
        return packed.with_data(x), final

    def _forwards(self, x: Tensor, segments: list[tuple[int, int, int]],
                  state: tuple[Tensor, ...], weights: list[Tensor]
                  ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Sequences end from segment to segment: the shortest, which stand last, first."""
        outputs, ended = [], []
        for row, steps, count in segments:
            if count < len(state[0]):
                ended.append(tuple(part[count:] for part in state))
                state = tuple(part[:count] for part in state)
            piece = x[row:row + steps * count].reshape(steps, count, -1)
            y, state = _layer(self.mode, piece, state, weights, self.bias, False)
            outputs.append(y.reshape(steps * count, -1))
        parts = zip(*(state, *reversed(ended)), strict=True)
        return cat(outputs), tuple(cat(list(part)) for part in parts)

    def _backwards(self, x: Tensor, segments: list[tuple[int, int, int]],
                   start: tuple[Tensor, ...], weights: list[Tensor]
                   ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Sequences join from segment to segment, each at its last step."""
        outputs: list[Tensor] = []
        state = tuple(part[:0] for part in start)
        for row, steps, count in reversed(segments):
            state = tuple(cat([part, first[len(part):count]])
                          for part, first in zip(state, start, strict=True))
            piece = x[row:row + steps * count].reshape(steps, count, -1)
            y, state = _layer(self.mode, piece, state, weights, self.bias, True)
            outputs.append(y.reshape(steps * count, -1))
        return cat(outputs[::-1]), state

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (("proj_size", 0), ("num_layers", 1), ("bias", True),
                              ("batch_first", False), ("dropout", 0.0), ("bidirectional", False)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return parts[0].unsqueeze(0) if len(parts) == 1 else stack(parts)


class RNN(RNNBase):
    """h[t] = tanh(w_ih x[t] + b_ih + w_hh h[t - 1] + b_hh), or relu of it.

    x: (length, n, input_size), or (n, length, ...) with `batch_first`, or without n, or packed
    (nn.utils.rnn).  Returns the last layer's h at all steps, directions side by side, and h_n
    (layers * directions, n, hidden).
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1,
                 nonlinearity: str = "tanh", bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ShapeError(f"RNN: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias,
                         batch_first, dropout, bidirectional, 0, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, (h,) = self._run(input, None if hx is None else (hx,))
        return output, h


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); gates in the order i, f, g, o.

    As RNN, with the state (h, c): returns the outputs and (h_n, c_n).  With `proj_size`, h is
    projected to that size by weight_hr_l{k} (proj_size, hidden_size).
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 proj_size: int = 0, device: DeviceLike | None = None,
                 dtype: DTypeLike | None = None) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, proj_size, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
                ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, (h, c) = self._run(input, None if hx is None else tuple(hx))
        return output, (h, c)


class GRU(RNNBase):
    """Gated recurrent units (Cho et al. 2014); gates in the order reset, update, new.

    As RNN: returns the outputs and h_n.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, 0, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, (h,) = self._run(input, None if hx is None else (hx,))
        return output, h


# --- cells ---------------------------------------------------------------------------------------


class RNNCellBase(Module):
    """What the cells share: weight_ih, weight_hh, bias_ih, bias_hh, of `num_chunks` gates."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.weight_ih = Parameter(empty(rows, input_size, device=device, dtype=dtype))
        self.weight_hh = Parameter(empty(rows, hidden_size, device=device, dtype=dtype))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(
                empty(rows, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        _uniform(self, self.hidden_size)

    def _rows(self, input: Tensor, states: tuple[Tensor, ...] | None, count: int
              ) -> tuple[Tensor, list[Tensor]]:
        """Input and states as rows of a batch; states of zeros if there are none."""
        name = type(self).__name__
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(f"{name}: input must be 1-d or 2-d with {self.input_size} features, "
                             f"got {tuple(input.shape)}")
        shape = (*input.shape[:-1], self.hidden_size)
        if states is None:
            states = (zeros(shape, device=input.device, dtype=input.dtype),) * count
        for state in states:
            if tuple(state.shape) != shape:
                raise ShapeError(f"{name}: the state must be {shape}, got {tuple(state.shape)}")
        if input.ndim == 2:
            return input, list(states)
        return input.unsqueeze(0), [state.unsqueeze(0) for state in states]

    def _weights(self) -> tuple[Any, ...]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        return text if self.bias else f"{text}, bias={self.bias}"


class RNNCell(RNNCellBase):
    """One step of an RNN: (n, input_size) and h (n, hidden_size), or without n, to the next h."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 nonlinearity: str = "tanh", device: DeviceLike | None = None,
                 dtype: DTypeLike | None = None) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ShapeError(f"RNNCell: nonlinearity must be 'tanh' or 'relu', got "
                             f"{nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        rows, (h,) = self._rows(input, None if hx is None else (hx,), 1)
        cell = _rnn_tanh_cell if self.nonlinearity == "tanh" else _rnn_relu_cell
        h = cell(rows, h, *self._weights())
        return h if input.ndim == 2 else h.squeeze(0)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"


class LSTMCell(RNNCellBase):
    """One step of an LSTM: (n, input_size) and (h, c), or without n, to the next (h, c)."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
                ) -> tuple[Tensor, Tensor]:
        rows, (h, c) = self._rows(input, None if hx is None else tuple(hx), 2)
        h, c = _lstm_cell(rows, (h, c), *self._weights())
        return (h, c) if input.ndim == 2 else (h.squeeze(0), c.squeeze(0))


class GRUCell(RNNCellBase):
    """One step of a GRU: (n, input_size) and h (n, hidden_size), or without n, to the next h."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        rows, (h,) = self._rows(input, None if hx is None else (hx,), 1)
        h = _gru_cell(rows, h, *self._weights())
        return h if input.ndim == 2 else h.squeeze(0)
