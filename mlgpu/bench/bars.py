"""The ratios to PyTorch eager that mlgpu is held to, without and with Numba."""

from __future__ import annotations

from dataclasses import dataclass

from .record import Row


@dataclass(frozen=True)
class Bar:
    """Upper bounds of time (or memory) over PyTorch's; `stretch` is what is aimed at."""

    numpy: float
    numba: float
    stretch: float | None = None

    def of(self, peer: str) -> float | None:
        """The bound for a peer, None where it has none."""
        return {"mlgpu": self.numba, "mlgpu-numpy": self.numpy}.get(peer)


BARS = {
    "gpt_step": Bar(1.05, 0.90),
    "mlp_step": Bar(0.80, 0.75),
    "cnn_step": Bar(1.50, 1.40, 1.0),
    "lstm_fb": Bar(1.30, 1.20, 0.9),
    "mlp_infer1": Bar(0.60, 0.60),
    "gelu_fb_16MB": Bar(1.0, 0.6),
    "gelu_erf_fb_16MB": Bar(1.0, 0.6),
    "silu_fused_fb_16MB": Bar(1.0, 0.6),
    "softmax": Bar(2.0, 1.4, 1.0),
    "ln_fb": Bar(2.3, 0.7),
    "attn_fb": Bar(0.9, 0.75),
    "xent_fb": Bar(0.25, 0.15),
    "adamw25M_fused": Bar(1.8, 1.0),
    "conv_fb": Bar(1.4, 1.4, 1.0),
    "tiny_fb": Bar(0.5, 0.5),
    "tiny_fb_all": Bar(0.5, 0.5),
    "gpt_memory": Bar(0.8, 0.8),
    "import": Bar(0.12, 0.12),
    "cold_start": Bar(0.12, 0.12),
}

# Ratios that hold with slack on any machine, for CI: far from 1, or made by what is left out.
GATES = {
    "xent1024_fb": Bar(0.6, 0.5),
    "dropout_16MB": Bar(0.6, 0.5),
    "maxpool_fb": Bar(1.5, 1.5),
    "adamw25M": Bar(1.2, 0.8),
    "tiny_fb": Bar(4.0, 4.0),
    "import": Bar(0.25, 0.25),
}


def verdict(bars: dict[str, Bar], row: Row, peer: str) -> tuple[float, str] | None:
    """The bound and whether it is met: by both ratios, by one of them, or not."""
    bar, ratios = bars.get(row.name), row.ratios(peer)
    bound = None if bar is None else bar.of(peer)
    if bar is None or bound is None or ratios is None:
        return None
    met = [ratio <= bound for ratio in ratios]
    if all(met):
        reached = bar.stretch is not None and all(ratio <= bar.stretch for ratio in ratios)
        return bound, "met, stretch too" if reached else "met"
    if any(met):
        return bound, "met by the median" if met[0] else "met by the best"
    return bound, "not met"
