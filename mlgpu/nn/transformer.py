"""Transformer layers (Vaswani et al. 2017; norm_first: Xiong et al. 2020)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn import init
from mlgpu.nn.attention import MultiheadAttention
from mlgpu.nn.containers import ModuleList
from mlgpu.nn.dropout import Dropout
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.nn.normalization import LayerNorm
from mlgpu.ops.creation import full
from mlgpu.tensor import Tensor

__all__ = ["Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
           "TransformerEncoderLayer"]

Activation = Callable[[Tensor], Tensor]


def _activation(owner: str, activation: str | Activation) -> Activation:
    if not isinstance(activation, str):
        return activation
    known: dict[str, Activation] = {"relu": F.relu, "gelu": F.gelu}
    if activation not in known:
        raise ShapeError(f"{owner}: activation must be 'relu', 'gelu' or a function, got "
                         f"{activation!r}")
    return known[activation]


_IN_ONE_KERNEL: dict[Any, str] = {F.relu: "relu", F.gelu: "gelu", F.silu: "silu"}


def activated(layer: Module, x: Tensor, activation: Activation) -> Tensor:
    """activation(layer(x)), in one kernel where a linear layer has that activation."""
    name = _IN_ONE_KERNEL.get(activation)
    if type(layer) is Linear and name is not None and x.is_floating_point():
        return layer(x, activation=name)  # type: ignore[no-any-return]
    return activation(layer(x))


def _idle(dropout: Module) -> bool:
    """Whether a layer of dropout leaves its input as it is."""
    return type(dropout) is Dropout and (not dropout.training or dropout.p == 0)


def _attention(layer: Module, dropout: Module, x: Tensor, memory: Tensor, residual: Tensor,
               mask: Tensor | None, padding: Tensor | None, is_causal: bool) -> Tensor:
    """`residual` + the attention of x to `memory`, in its last kernel where nothing drops."""
    idle = _idle(dropout)
    seen: Tensor
    seen, _ = layer(x, memory, memory, attn_mask=mask, key_padding_mask=padding,
                    need_weights=False, is_causal=is_causal, residual=residual if idle else None)
    return seen if idle else residual + dropout(seen)


def _projection(layer: Module, dropout: Module, x: Tensor, residual: Tensor) -> Tensor:
    """`residual` + a linear layer of x, in one kernel where nothing drops."""
    if _idle(dropout) and type(layer) is Linear:
        return layer(x, residual=residual)  # type: ignore[no-any-return]
    return residual + dropout(layer(x))  # type: ignore[no-any-return]


class TransformerEncoderLayer(Module):
    """Self-attention, then linear2(activation(linear1(x))), each added to its input.

    src: (l, n, d_model), or (n, l, d_model) with `batch_first`, or without n.  Norms come after
    each sum or, with `norm_first`, before each part.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: str | Activation = "relu", layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, bias=bias,
                                            batch_first=batch_first, device=device, dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias, device, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, device, dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, True, bias, device, dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, True, bias, device, dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _activation("TransformerEncoderLayer", activation)

    def forward(self, src: Tensor, src_mask: Tensor | None = None,
                src_key_padding_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """The layer's output, in the shape of `src`; masks as for MultiheadAttention."""
        x = src
        masks = (src_mask, src_key_padding_mask, is_causal)
        if self.norm_first:
            x = self._attend(self.norm1(x), x, *masks)
            return self._feed_forward(self.norm2(x), x)
        x = self.norm1(self._attend(x, x, *masks))
        return self.norm2(self._feed_forward(x, x))  # type: ignore[no-any-return]

    def _attend(self, x: Tensor, residual: Tensor, mask: Tensor | None, padding: Tensor | None,
                is_causal: bool) -> Tensor:
        return _attention(self.self_attn, self.dropout1, x, x, residual, mask, padding, is_causal)

    def _feed_forward(self, x: Tensor, residual: Tensor) -> Tensor:
        hidden = self.dropout(activated(self.linear1, x, self.activation))
        return _projection(self.linear2, self.dropout2, hidden, residual)


class TransformerEncoder(Module):
    """`num_layers` copies of an encoder layer, one after the other, then `norm`."""

    def __init__(self, encoder_layer: TransformerEncoderLayer, num_layers: int,
                 norm: Module | None = None, enable_nested_tensor: bool = True,
                 mask_check: bool = True) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(encoder_layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def forward(self, src: Tensor, mask: Tensor | None = None,
                src_key_padding_mask: Tensor | None = None, is_causal: bool | None = None
                ) -> Tensor:
        """The last layer's output; the same masks are used in every layer."""
        for layer in self.layers:
            src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask,
                        is_causal=bool(is_causal))
        return src if self.norm is None else self.norm(src)


class TransformerDecoderLayer(Module):
    """Self-attention, attention to the encoder's output, then the two linear layers.

    tgt: (l, n, d_model), memory: (s, n, d_model), as TransformerEncoderLayer otherwise.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: str | Activation = "relu", layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout, bias=bias,
                                            batch_first=batch_first, device=device, dtype=dtype)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout=dropout, bias=bias,
                                                 batch_first=batch_first, device=device,
                                                 dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias, device, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, device, dtype)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, True, bias, device, dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, True, bias, device, dtype)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, True, bias, device, dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _activation("TransformerDecoderLayer", activation)

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
                memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
                memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool = False,
                memory_is_causal: bool = False) -> Tensor:
        """The layer's output, in the shape of `tgt`; masks as for MultiheadAttention."""
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        theirs = (memory, memory_mask, memory_key_padding_mask, memory_is_causal)
        x = tgt
        if self.norm_first:
            x = self._attend(self.norm1(x), x, *own)
            x = self._attend_memory(self.norm2(x), x, *theirs)
            return self._feed_forward(self.norm3(x), x)
        x = self.norm1(self._attend(x, x, *own))
        x = self.norm2(self._attend_memory(x, x, *theirs))
        return self.norm3(self._feed_forward(x, x))  # type: ignore[no-any-return]

    def _attend(self, x: Tensor, residual: Tensor, mask: Tensor | None, padding: Tensor | None,
                is_causal: bool) -> Tensor:
        return _attention(self.self_attn, self.dropout1, x, x, residual, mask, padding, is_causal)

    def _attend_memory(self, x: Tensor, residual: Tensor, memory: Tensor, mask: Tensor | None,
                       padding: Tensor | None, is_causal: bool) -> Tensor:
        return _attention(self.multihead_attn, self.dropout2, x, memory, residual, mask, padding,
                          is_causal)

    def _feed_forward(self, x: Tensor, residual: Tensor) -> Tensor:
        hidden = self.dropout(activated(self.linear1, x, self.activation))
        return _projection(self.linear2, self.dropout3, hidden, residual)


class TransformerDecoder(Module):
    """`num_layers` copies of a decoder layer, one after the other, then `norm`."""

    def __init__(self, decoder_layer: TransformerDecoderLayer, num_layers: int,
                 norm: Module | None = None) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(decoder_layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
                memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
                memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool | None = None,
                memory_is_causal: bool = False) -> Tensor:
        """The last layer's output; the same masks are used in every layer."""
        for layer in self.layers:
            tgt = layer(tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask,
                        memory_key_padding_mask, bool(tgt_is_causal), memory_is_causal)
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """An encoder and a decoder that attends to it, each with a last norm (Vaswani et al. 2017).

    src: (s, n, d_model), tgt: (t, n, d_model), or (n, ...) with `batch_first`.  Another encoder or
    decoder can be given.  Weights are drawn as by `init.xavier_uniform_`.
    """

    def __init__(self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6,
                 num_decoder_layers: int = 6, dim_feedforward: int = 2048, dropout: float = 0.1,
                 activation: str | Activation = "relu", custom_encoder: Module | None = None,
                 custom_decoder: Module | None = None, layer_norm_eps: float = 1e-5,
                 batch_first: bool = False, norm_first: bool = False, bias: bool = True,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        options: Any = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps,
                        batch_first, norm_first, bias, device, dtype)

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, True, bias, device, dtype)

        self.encoder = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(*options), num_encoder_layers, norm())
        self.decoder = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(*options), num_decoder_layers, norm())
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def forward(self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None,
                tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
                src_key_padding_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None,
                memory_key_padding_mask: Tensor | None = None, src_is_causal: bool | None = None,
                tgt_is_causal: bool | None = None, memory_is_causal: bool = False) -> Tensor:
        """The decoder's output, in the shape of `tgt`; masks as for MultiheadAttention.

        Raises ShapeError where the batches or the features of src and tgt differ.
        """
        batch = 0 if self.batch_first else 1
        if (src.ndim != tgt.ndim or src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model
                or (src.ndim == 3 and src.shape[batch] != tgt.shape[batch])):
            raise ShapeError(f"Transformer: src of shape {tuple(src.shape)} and tgt of shape "
                             f"{tuple(tgt.shape)} do not go together with d_model={self.d_model}")
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask,
                              is_causal=src_is_causal)
        decoded: Tensor = self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal)
        return decoded

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: DeviceLike | None = None,
                                        dtype: DTypeLike | None = None) -> Tensor:
        """(sz, sz): 0 on and below the diagonal, -inf above: position i sees none after it."""
        return full((sz, sz), float("-inf"), device=device, dtype=dtype).triu(1)
